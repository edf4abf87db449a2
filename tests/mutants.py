"""Twelve planted bugs, each of which the tests must catch: `make mutants`.

Each is planted in a copy of the library in a temporary folder, where the tests of the
model then run until one fails. A bug that survives is a hole in the tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/test_proofs.py", "tests/test_limits.py", "tests/test_model.py"]
GUARD = """\
from pathlib import Path

import cort33x_lib

HERE = Path(__file__).resolve().parent
assert Path(cort33x_lib.__file__).resolve().is_relative_to(HERE), "not the copy"
"""


@dataclass(frozen=True)
class Mutant:
    """A bug: in `file` of the model room, `new` stands where `old` stood."""

    what: str
    file: str
    old: str
    new: str

    def planted(self) -> str:
        """The file's text with the bug; ValueError if `old` is not there once."""
        text = (ROOT / "cort33x_lib" / "model" / self.file).read_text("utf-8")
        if text.count(self.old) != 1:
            found = f"{self.file} has {text.count(self.old)} times {self.old!r}"
            raise ValueError(f"{found}, expected once, to plant: {self.what}")
        return text.replace(self.old, self.new)


MUTANTS = [
    Mutant(
        "a token reads the one after it",
        "attention.py",
        "column <= row)",
        "column <= row + 1)",
    ),
    Mutant(
        "a window reads one token too many",
        "attention.py",
        "column > row - (window or slots)",
        "column >= row - (window or slots)",
    ),
    Mutant(
        "scores are not divided by the root of D",
        "attention.py",
        "is_causal=mask is None,",
        "is_causal=mask is None, scale=1.0,",
    ),
    Mutant(
        "a cached token is rotated as if it stood first",
        "attention.py",
        "rotary_angles(position, x",
        "rotary_angles(0 * position, x",
    ),
    Mutant(
        "heads read the keys of another group",
        "attention.py",
        "queries.reshape(B, G, H // G, D)",
        "queries.reshape(B, H // G, G, D).mT.reshape(B, G, H // G, D)",
    ),
    Mutant(
        "the ring is written one slot further on",
        "window.py",
        "place = ((-1 - position) %",
        "place = ((-2 - position) %",
    ),
    Mutant(
        "the memory fades after the correction, not before",
        "delta.py",
        "        memory = memory * decay[:, :, t, None, None].exp()\n"
        "        error = values[:, :, t].unsqueeze(2) - key @ memory",
        "        error = values[:, :, t].unsqueeze(2) - key @ memory\n"
        "        memory = memory * decay[:, :, t, None, None].exp()",
    ),
    Mutant(
        "the convolution forgets the tokens before a part",
        "delta.py",
        "tail = torch.cat([tail, x], dim=1)[:, 1 - TAPS :].clone()",
        "tail = torch.zeros_like(tail)",
    ),
    Mutant(
        "the memory is handed on in bfloat16",
        "delta.py",
        "DeltaState(memory, tail, state",
        "DeltaState(memory.bfloat16().to(memory), tail, state",
    ),
    Mutant(
        "the absorbed form divides by the wrong width",
        "latent.py",
        "(width / self.head_channels) ** 0.5",
        "(self.latent_channels / self.head_channels) ** 0.5",
    ),
    Mutant(
        "the norm is over tokens instead of channels",
        "norm.py",
        "torch.linalg.vector_norm(x, dim=-1,",
        "torch.linalg.vector_norm(x, dim=-2,",
    ),
    Mutant(
        "targets that do not count have gradients",
        "loss.py",
        "logits *= counted.unsqueeze(1) / mass",
        "logits /= mass",
    ),
]


def first_failure(mutant: Mutant | None, words: Sequence[str] = TESTS) -> str | None:
    """The first test that fails with the bug planted; None if all pass.

    `words` say to pytest which tests. RuntimeError when they could not run at all.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy"
        unread = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "cort33x_lib", copy / "cort33x_lib", ignore=unread)
        shutil.copy(ROOT / "pyproject.toml", copy)
        (copy / "conftest.py").write_text(GUARD, "utf-8")
        (copy / "tests").mkdir()
        for test in TESTS:
            shutil.copy(ROOT / test, copy / "tests")
        if mutant:
            place = copy / "cort33x_lib" / "model" / mutant.file
            place.write_text(mutant.planted(), "utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "--tb=no"]
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [*command, *words],
            cwd=copy,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode not in (0, 1) or len(failed) != done.returncode:
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return failed[0].split(" - ")[0].split("::", 1)[1] if failed else None


def main() -> int:
    started = time.monotonic()
    failed = first_failure(None)
    if failed:
        print(f"Without any planted bug, {failed} fails: nothing can be said.")
        return 1
    print("The tests pass on a copy without bugs. With each of these:", flush=True)
    caught = 0
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(first_failure, MUTANTS)
        for mutant, test in zip(MUTANTS, found, strict=True):
            caught += test is not None
            print(f"  {mutant.what:50} {test or 'SURVIVES'}", flush=True)
    seconds = time.monotonic() - started
    print(f"{caught} of {len(MUTANTS)} planted bugs caught, in {seconds:.0f} s.")
    return caught < len(MUTANTS)


if __name__ == "__main__":
    sys.exit(main())
