"""A recorded log of 100 steps, and how far threads move it.

Threads add up in other orders, so bits may differ; how far is measured and printed.
After a change that is meant to move the losses, record them again:

    .venv/bin/python tests/test_golden.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.training.record import Run

GOLDEN = PROJECT / "data" / "runs" / "golden-losses.json"
CHANGES = ["recipe.steps=100", "recipe.rows=1", "recipe.examine_every=0"]
CHANGES += ["corpus.documents=2000", "tokenizer.documents=200"]
WORDS = ["train", "tour", *(word for change in CHANGES for word in ("--set", change))]


def trained(folder: Path, threads: int) -> Run:
    """A fresh process, with so many threads, trains a million weights for 100 steps."""
    command = [sys.executable, "-m", "cort33x_lib", *WORDS, "--runs", str(folder)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    return Run(folder / "tour-001")


def losses(run: Run) -> list[float]:
    return [measured["loss"] for measured in run.metrics()]


def test_the_losses_are_those_of_the_record(tmp_path):
    recorded = json.loads(GOLDEN.read_text("utf-8"))["losses"]
    found = {n: losses(trained(tmp_path / str(n), n)) for n in (1, 2, 4)}
    assert len(recorded) == 100
    for threads, those in found.items():
        drift = [abs(one - other) for one, other in zip(those, recorded, strict=True)]
        print(
            f"\n{threads} threads: at most {max(drift[:10]):.1e} nats from the", end=""
        )
        print(f" record in 10 steps, {max(drift):.1e} in 100", end="")
        assert max(drift[:10]) < 1e-3 and max(drift) < 0.1


def main() -> None:
    with TemporaryDirectory() as name:
        run = trained(Path(name), threads=1)
        kept = {"losses": losses(run), "machine": run.manifest["machine"]}
    write_atomically(GOLDEN, json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
