"""Checkpoints: all that is needed to go on, whole or not there at all.

    step-00000200/model.safetensors       weights by name
    step-00000200/optimizer.safetensors   what the optimizer remembers of each weight
    step-00000200/random.safetensors      where the random generators stand
    step-00000200/checkpoint.json         progress, facts, sha256 of the three: the seal

A checkpoint is written under another name, brought to the disk, then renamed: whoever
finds the folder finds it complete. The seal is written last, and reading checks it
before anything is used. Nothing points to the newest: it is looked for.
Chosen: full precision, one writer. Left out: a gradient scaler, which only float16
needs; bfloat16 has the range of float32.
"""

import json
import math
import shutil
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from cort33x_lib import files
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.cost import parameters
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.facts import differences
from cort33x_lib.training.optimizer import Optimizer, Together
from cort33x_lib.training.optimizer_state import recall, remembered
from cort33x_lib.training.randomness import random_states, set_random_states
from cort33x_lib.training.tensor_file import (
    CheckpointError,
    check_fit,
    fill,
    open_tensors,
    write_tensors,
)

TENSOR_FILES = MODEL, OPTIMIZER, RANDOM = (
    "model.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
)
SEAL, KEPT, LONGEST_SEAL = "checkpoint.json", 2, 1 << 20
FAULTS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
)


@dataclass
class Progress:
    """How far a run has come: what goes on counting when it is resumed."""

    step: int = 0  # updates made; the schedule and the record go by it
    position: int = 0  # micro-batches used, by all processes together
    tokens: int = 0
    clipped: int = 0  # steps whose gradient was too long
    seconds: float = 0.0
    best: float | None = None  # the lowest held-out loss

    def __post_init__(self):
        counts = self.step, self.position, self.tokens, self.clipped
        numbers = [self.seconds, 0.0 if self.best is None else self.best]
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"{self}: expected whole numbers from 0")
        if any(type(n) is not float or not math.isfinite(n) for n in numbers):
            raise ValueError(f"{self}: expected finite numbers")


@dataclass(frozen=True)
class Checkpoint:
    """An intact checkpoint on disk, and the broken newer ones passed over for it."""

    folder: Path
    progress: Progress
    config: ModelConfig
    facts: dict
    skipped: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Updates that the weights have had."""
        return self.progress.step


def seal_of(contents: dict) -> str:
    """A checkpoint's JSON text, which holds the SHA-256 of all else that it says."""
    whole = contents | {"seal": files.digest(json.dumps(contents).encode("utf-8"))}
    return json.dumps(whole, indent=2) + "\n"


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: Optimizer | Together,
    facts: dict,
) -> Path:
    """Write a checkpoint, read it again, then drop all but the newest two.

    `facts` is what must match to go on, such as the tokenizer's name. Gives the
    checkpoint's folder. Raises OSError, with the bytes needed and free, when writing
    fails, and CheckpointError when what is read again is not what was written; earlier
    checkpoints then stay as they were.
    """
    sweep(folder)
    final = folder / f"step-{progress.step:08d}"
    if final.exists():
        try:
            return read_checkpoint(final).folder
        except CheckpointError:
            discard(final)
    tensors = tensors_of(model, optimizer)
    part = folder / f"part-{progress.step:08d}"
    try:
        part.mkdir()
        contents = {
            "progress": asdict(progress),
            "model": asdict(model.config),
            "facts": facts,
            "sha256": {
                name: write_tensors(part / name, kind) for name, kind in tensors.items()
            },
        }
        files.write_atomically(part / SEAL, seal_of(contents))
        part.rename(final)
        files.bring_to_disk(folder)
        read_checkpoint(final)
    except BaseException as fault:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(fault, OSError):
            raise with_room(fault, folder, tensors) from fault
        raise
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        discard(old)
    return final


def tensors_of(
    model: nn.Module, optimizer: Optimizer | Together
) -> dict[str, dict[str, Tensor]]:
    """All tensors to save, by the file that they go to."""
    return {
        MODEL: model.state_dict(),
        OPTIMIZER: remembered(model, optimizer),
        RANDOM: random_states(),
    }


def with_room(fault: OSError, folder: Path, tensors: dict[str, dict]) -> OSError:
    """The same fault of a disk, with the bytes that were needed and that are free."""
    needed = sum(t.nbytes for kind in tensors.values() for t in kind.values())
    free = shutil.disk_usage(folder).free
    why = f"no checkpoint: it needs {needed:,} bytes, {free:,} are free"
    return OSError(fault.errno, f"{why} ({fault.strerror})", str(folder))


def sweep(folder: Path) -> None:
    """Make the folder of checkpoints, and clear up in it what a kill left half done."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob("part-*"):
        shutil.rmtree(part)


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint's folder; a kill on the way leaves no half a checkpoint."""
    going = checkpoint.with_name(checkpoint.name.replace("step", "part"))
    checkpoint.rename(going)
    shutil.rmtree(going)


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint whose every byte is as it was saved.

    Raises CheckpointError, naming the file and what is wrong with it.
    """
    try:
        if folder.is_symlink():
            raise CheckpointError("it is a link, expected a folder")
        text = read_sealed(folder / SEAL)
        contents = json.loads(text)
        del contents["seal"]
        if seal_of(contents) != text:
            raise CheckpointError(f"{SEAL} is not the file that was saved")
        hashes = contents["sha256"]
        if sorted(hashes) != sorted(TENSOR_FILES):
            raise CheckpointError(f"{SEAL} lists {sorted(hashes)}")
        for name, expected in hashes.items():
            check_kind(folder / name)
            if files.sha256_of(folder / name) != expected:
                raise CheckpointError(f"{name} is not the file that was saved")
        progress = Progress(**contents["progress"])
        if folder.name != f"step-{progress.step:08d}":
            raise CheckpointError(f"it holds step {progress.step}")
        config = ModelConfig(**contents["model"])
        return Checkpoint(folder, progress, config, contents["facts"])
    except FAULTS as fault:
        raise CheckpointError(f"{folder}: {fault}") from fault


def read_sealed(path: Path) -> str:
    """The text of a file that is no longer than a seal can be."""
    check_kind(path)
    if path.stat().st_size > LONGEST_SEAL:
        raise CheckpointError(f"{path.name} is longer than {LONGEST_SEAL} bytes")
    return path.read_text(encoding="utf-8")


def check_kind(path: Path) -> None:
    """Refuse what is no plain file: a link could lead anywhere, a pipe never ends."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CheckpointError(f"{path.name} is no plain file")


def newest_checkpoint(folder: Path) -> Checkpoint:
    """The newest intact checkpoint; `skipped` says which newer ones are broken and why.

    Raises CheckpointError when there is none.
    """
    skipped = []
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        try:
            return replace(read_checkpoint(candidate), skipped=tuple(skipped))
        except CheckpointError as fault:
            skipped.append(str(fault))
    faults = "; ".join(skipped) or "the folder holds none"
    raise CheckpointError(f"no intact checkpoint in {folder}: {faults}")


def load_model(checkpoint: Checkpoint) -> Transformer:
    """The model of a checkpoint, ready to generate text.

    Raises CheckpointError when the file does not hold its weights.
    """
    path = checkpoint.folder / MODEL
    try:
        count = sum(parameters(checkpoint.config).values())
        if count > path.stat().st_size:
            raise CheckpointError(f"{MODEL} is too short for {count:,} parameters")
        model = Transformer(checkpoint.config)
        with open_tensors(path) as tensors:
            check_fit(model.state_dict(), tensors)
            fill(model.state_dict(), tensors)
        return model
    except FAULTS as fault:
        raise CheckpointError(f"{checkpoint.folder}: {fault}") from fault


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: Optimizer | Together,
    facts: dict,
) -> Progress:
    """Set weights, optimizer and random generators to where a checkpoint left them.

    Gives the progress to go on counting from. Raises CheckpointError, nothing touched,
    when config, facts or tensors are not those of this run.
    """
    folder = checkpoint.folder
    given = {"model": asdict(model.config), **facts}
    if wrong := differences(
        {"model": asdict(checkpoint.config)} | checkpoint.facts, given
    ):
        raise CheckpointError(f"{folder} was saved with {'; '.join(wrong)}")
    try:
        with (
            open_tensors(folder / MODEL) as weights,
            open_tensors(folder / OPTIMIZER) as memory,
            open_tensors(folder / RANDOM) as random,
        ):
            check_fit(model.state_dict(), weights)
            set_random_states(random)
            recall(model, optimizer, memory)
            fill(model.state_dict(), weights)
    except FAULTS as fault:
        raise CheckpointError(f"{folder}: {fault}") from fault
    return replace(checkpoint.progress)
