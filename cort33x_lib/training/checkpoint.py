"""Checkpoints: all that is needed to go on, whole or not there at all.

    step-00000200/model.safetensors       weights by name
    step-00000200/optimizer.safetensors   AdamW's two averages and count, by weight
    step-00000200/checkpoint.json         step, config, facts, sha256 of both files

A checkpoint is written under another name, brought to disk, then renamed: whoever
finds the folder finds it complete. Reading checks the sha256 before anything is used.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cort33x_lib import files
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import states

TENSOR_FILES = ("model.safetensors", "optimizer.safetensors")


class CheckpointError(ValueError):
    """No intact checkpoint is there, or one does not fit."""


@dataclass(frozen=True)
class Checkpoint:
    """An intact checkpoint on disk, and the broken newer ones passed over for it."""

    folder: Path
    step: int
    config: ModelConfig
    facts: dict
    skipped: tuple[str, ...] = ()


def _optimizer_tensors(
    model: Transformer, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    remembered = states(optimizer)
    return {
        f"{name}/{key}": value
        for name, weights in model.named_parameters()
        for key, value in remembered[weights].items()
    }


def save_checkpoint(
    folder: Path,
    step: int,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    facts: dict,
) -> Path:
    """Write a checkpoint and return its folder; then drop all but the newest two.

    `facts` is what must match to go on, such as the tokenizer's name. When writing
    fails, the OSError passes through, and earlier checkpoints stay as they were.
    """
    final = folder / f"step-{step:08d}"
    if final.exists():
        try:
            return _read(final).folder
        except CheckpointError:
            shutil.rmtree(final)
    for left_by_a_kill in folder.glob("part-*"):
        shutil.rmtree(left_by_a_kill)
    part = folder / f"part-{step:08d}"
    part.mkdir(parents=True)
    try:
        save_file(model.state_dict(), part / TENSOR_FILES[0])
        save_file(_optimizer_tensors(model, optimizer), part / TENSOR_FILES[1])
        for name in TENSOR_FILES:
            files.bring_to_disk(part / name)
        contents = {
            "step": step,
            "config": asdict(model.config),
            "facts": facts,
            "sha256": {name: files.sha256_of(part / name) for name in TENSOR_FILES},
        }
        files.write_atomically(
            part / "checkpoint.json", json.dumps(contents, indent=2) + "\n"
        )
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    files.bring_to_disk(folder)
    for old in sorted(folder.glob("step-*"))[:-2]:
        shutil.rmtree(old)
    return final


def _read(folder: Path) -> Checkpoint:
    try:
        contents = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        for name, expected in contents["sha256"].items():
            if files.sha256_of(folder / name) != expected:
                raise CheckpointError(f"{name} is not the file that was saved")
        config = ModelConfig(**contents["config"])
        return Checkpoint(folder, contents["step"], config, contents["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise CheckpointError(f"{folder}: {fault}") from fault


def newest_checkpoint(folder: Path) -> Checkpoint:
    """The newest intact checkpoint; `skipped` says which newer ones are broken and why.

    Raises CheckpointError when there is none.
    """
    skipped = []
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        try:
            found = _read(candidate)
            return Checkpoint(**{**vars(found), "skipped": tuple(skipped)})
        except CheckpointError as fault:
            skipped.append(str(fault))
    faults = "; ".join(skipped) or "the folder holds none"
    raise CheckpointError(f"no intact checkpoint in {folder}: {faults}")


def load_model(checkpoint: Checkpoint) -> Transformer:
    """The model of a checkpoint, ready to generate text."""
    model = Transformer(checkpoint.config)
    model.load_state_dict(load_file(checkpoint.folder / TENSOR_FILES[0]))
    return model


def restore(
    checkpoint: Checkpoint,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    facts: dict,
) -> None:
    """Set model and optimizer to where a checkpoint left them.

    Raises CheckpointError when the model's config or the facts are not the same.
    """
    if checkpoint.config != model.config:
        raise CheckpointError(
            f"{checkpoint.folder} holds {checkpoint.config}, expected {model.config}"
        )
    if checkpoint.facts != facts:
        raise CheckpointError(
            f"{checkpoint.folder} was saved with {checkpoint.facts}, expected {facts}"
        )
    model.load_state_dict(load_file(checkpoint.folder / TENSOR_FILES[0]))
    tensors = load_file(checkpoint.folder / TENSOR_FILES[1])
    remembered = states(optimizer)
    for name, weights in model.named_parameters():
        remembered[weights].clear()
        remembered[weights].update(
            (key.removeprefix(f"{name}/"), value)
            for key, value in tensors.items()
            if key.rpartition("/")[0] == name
        )
