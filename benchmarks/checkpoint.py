"""What a checkpoint of the 35M model costs: seconds, bytes, memory, and to resume it.

    .venv/bin/python benchmarks/checkpoint.py

Our checkpoint beside two calls that people use, torch.save and save_file of
safetensors, which write the same tensors and check nothing; each is brought to the
disk. Every measurement is a process of its own, and they take turns. The medians go to
data/runs/checkpoint-cost.json, which chapter 15 reads. A minute or two on two cores.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from safetensors.torch import save_file

from cort33x_lib.files import PROJECT, bring_to_disk, write_atomically
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.checkpoint import (
    Progress,
    newest_checkpoint,
    restore,
    save_checkpoint,
)
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.optimizer_state import remembered
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import describe_machine

ROUNDS, EVERY = 3, 120  # seconds from one save to the next, as a long run has it
SAVES = ("checkpoint", "torch.save", "save_file")
HIGHEST = Path("/proc/self/status")  # Linux keeps the most memory held so far


def peak_reset() -> None:
    """Forget the most memory held so far, where the system can."""
    if HIGHEST.exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak() -> int | None:
    """The most memory held since, in bytes; None where the system does not say."""
    if not HIGHEST.exists():
        return None
    lines = HIGHEST.read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def ready(updated: bool):
    """The model and its optimizer, after an update that remembers every weight."""
    model = Transformer(CONFIGS["cort33x"])
    optimizer = make_optimizer(model, RECIPES["cort33x"])
    if updated:
        for weights in model.parameters():
            weights.grad = torch.full_like(weights, 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(kind: str, folder: Path) -> dict:
    """One save: seconds, bytes on the disk, bytes of memory on top of the model's."""
    model, optimizer = ready(updated=True)
    tensors = model.state_dict() | remembered(model, optimizer)
    peak_reset()
    held = psutil.Process().memory_info().rss
    started, worked = time.perf_counter(), time.process_time()
    if kind == "checkpoint":
        made = save_checkpoint(folder, Progress(1), model, optimizer, {})
    else:
        folder.mkdir()
        made = folder / "all"
        torch.save(tensors, made) if kind == "torch.save" else save_file(tensors, made)
        bring_to_disk(made)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    written = [made] if made.is_file() else [*made.iterdir()]
    return {
        "seconds": seconds,
        "processor_seconds": worked,
        "bytes": sum(file.stat().st_size for file in written),
        "memory": None if peak() is None else peak() - held,
        "tensors": sum(tensor.nbytes for tensor in tensors.values()),
    }


def resume(folder: Path) -> dict:
    """One resume: seconds from a model with first weights to one that can go on."""
    model, optimizer = ready(updated=False)
    peak_reset()
    held = psutil.Process().memory_info().rss
    started, worked = time.perf_counter(), time.process_time()
    restore(newest_checkpoint(folder), model, optimizer, {})
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds": seconds,
        "processor_seconds": worked,
        "memory": None if peak() is None else peak() - held,
    }


def measure(*words: str) -> dict:
    """What this script finds in a process of its own."""
    command = [sys.executable, __file__, *words]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def main() -> None:
    found: dict[str, list[dict]] = {name: [] for name in (*SAVES, "resume")}
    (PROJECT / "runs").mkdir(exist_ok=True)  # where real runs save, and not in memory
    with TemporaryDirectory(dir=PROJECT / "runs") as place:
        for turn in range(ROUNDS):
            for name in SAVES:
                folder = Path(place) / f"{name}-{turn}"
                found[name].append(measure(name, str(folder)))
            folder = str(Path(place) / f"checkpoint-{turn}")
            found["resume"].append(measure("resume", folder))
    medians = {
        name: {
            key: statistics.median(row[key] for row in rows)
            for key in rows[0]
            if rows[0][key] is not None
        }
        for name, rows in found.items()
    }
    record = {
        "machine": describe_machine(),
        "config": "cort33x",
        "rounds": ROUNDS,
        "median": medians,
        "seconds": {
            name: [round(row["seconds"], 3) for row in rows]
            for name, rows in found.items()
        },
        "save_every_seconds": EVERY,
        "share_of_training": medians["checkpoint"]["seconds"] / EVERY,
    }
    text = json.dumps(record, indent=2)
    target = PROJECT / "data" / "runs" / "checkpoint-cost.json"
    write_atomically(target, text + "\n")
    print(text)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        kind, folder = sys.argv[1], Path(sys.argv[2])
        print(json.dumps(resume(folder) if kind == "resume" else save(kind, folder)))
