"""What a run leaves when a number is not finite any more, and the fault once again.

    runs/NAME-001/not-finite-00000412/replay.json           step, groups, micro-batches
    runs/NAME-001/not-finite-00000412/weights.safetensors   as they were, update or not
    runs/NAME-001/not-finite-00000412/batches.safetensors   inputs.N and targets.N

`replay(folder)` needs neither corpus nor tokenizer.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cort33x_lib import files
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.optimizer import Together
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.record import Run
from cort33x_lib.training.step import MicroBatch, NotFiniteError, take_step


@dataclass(frozen=True)
class Replay:
    """A fault, met again: from all micro-batches together, and from which alone."""

    fault: NotFiniteError | None  # None where it does not come again
    alone: list[int]  # places of micro-batches that are enough for it


def keep_for_replay(
    run: Run,
    step: int,
    model: Transformer,
    batches: Batches | Mixture,
    parts: list[MicroBatch],
    recipe: Recipe,
    fault: NotFiniteError,
) -> Path:
    """Write what a step was computed from, weights untouched; gives the folder."""
    folder = run.folder / f"not-finite-{step:08d}"
    folder.mkdir(exist_ok=True)
    alone = fault.micro_batches or gradients_of(model, parts, recipe.precision).alone
    first = (step - 1) * recipe.accumulation
    saved = sorted(x.name for x in run.checkpoints.glob("step-*"))
    weights = {name: x.detach().cpu() for name, x in model.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    tensors = {
        f"{name}.{place}": ids.cpu()
        for place, part in enumerate(parts)
        for name, ids in zip(("inputs", "targets"), part, strict=True)
    }
    save_file(tensors, folder / "batches.safetensors")
    said = {
        "step": step,
        "message": str(fault),
        "groups": fault.groups,
        "weights": fault.weights,
        "micro_batches": alone,
        "batches": [first + place for place in alone],
        "documents": [documents_of(batches, first + place) for place in alone],
        "checkpoint": saved[-1] if saved else None,
        "model": run.manifest["model"],
        "precision": recipe.precision,
    }
    files.write_atomically(folder / "replay.json", json.dumps(said, indent=2) + "\n")
    return folder


def documents_of(batches: Batches | Mixture, number: int) -> list:
    """The documents of each row of a batch: their numbers, after the source's name."""
    rows = range(number * batches.rows, (number + 1) * batches.rows)
    if not isinstance(batches, Mixture):
        return [batches.documents(row).tolist() for row in rows]
    origins = [batches.origin(row) for row in rows]
    return [[name, *batches.sources[name].documents(n).tolist()] for name, n in origins]


def gradients_of(model: Transformer, parts: list[MicroBatch], precision: str) -> Replay:
    """What is broken in the gradients of all micro-batches, and of each alone."""

    def fault_of(some: list[MicroBatch]) -> NotFiniteError | None:
        try:
            take_step(model, Together([]), some, 0.0, math.inf, precision)
        except NotFiniteError as fault:
            return fault
        finally:
            model.zero_grad()
        return None

    alone = [place for place, part in enumerate(parts) if fault_of([part])]
    return Replay(fault_of(parts), alone)


def replay(folder: str | Path, device: str | torch.device = "cpu") -> Replay:
    """Compute a kept step once more. Raises FileNotFoundError when none was kept."""
    folder = Path(folder)
    said = json.loads((folder / "replay.json").read_text(encoding="utf-8"))
    model = Transformer(ModelConfig(**said["model"]))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.to(device)
    tensors = load_file(folder / "batches.safetensors", str(device))
    parts = [
        (tensors[f"inputs.{place}"], tensors[f"targets.{place}"])
        for place in range(len(tensors) // 2)
    ]
    return gradients_of(model, parts, said["precision"])
