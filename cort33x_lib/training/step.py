"""One update of the weights, from as many micro-batches as it takes.

Nothing is changed before the loss and every gradient are known to be finite.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cort33x_lib.training.distributed import ALONE, Alone
from cort33x_lib.training.optimizer import Optimizer, Together

MicroBatch = tuple[Tensor, Tensor]  # inputs and targets, (B, T) each


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is not a number any more; the weights were not touched.

    `groups` names the layer groups whose gradients are broken, `weights` those whose
    weights were broken before, and `micro_batches` the places, from 0, of micro-batches
    whose loss is.
    """

    def __init__(
        self,
        message: str,
        groups: list[str],
        micro_batches: list[int],
        weights: list[str],
    ):
        super().__init__(message)
        self.groups, self.micro_batches, self.weights = groups, micro_batches, weights


class Watcher(Protocol):
    """Who looks at the weights while they are trained; see `telemetry`."""

    def before_update(self, model: nn.Module) -> None:
        """Gradients are known and not yet clipped, weights are the old ones."""

    def after_update(self, model: nn.Module) -> None:
        """Weights are the new ones."""


def layer_group(name: str) -> str:
    """The part of the model that a weight belongs to: "blocks.3.mixer", "embedding"."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] == "blocks" else parts[:1])


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile make each block of a model, in place, when it is first used.

    Blocks of one letter share what was compiled. Weights and their names stay.
    """
    for block in model.blocks:
        block.compile()


def add_gradients(
    model: nn.Module,
    micro_batches: Sequence[MicroBatch],
    precision: str = "float32",
    world: Alone = ALONE,
) -> list[Tensor]:
    """Add up the gradients of one mean loss over all counted targets.

    Gives the share of each micro-batch in that loss, by how many targets it counts.
    Raises ValueError when none of them, in no process, counts any.
    """
    counts = [int((targets != -100).sum()) for _, targets in micro_batches]
    total = world.sum(sum(counts))
    if not total:
        given = f"no target counts in {len(counts)} micro-batches, all are -100"
        raise ValueError(f"{given}: expected at least one token id")
    half, shares = precision == "bfloat16", []
    for (inputs, targets), count in zip(micro_batches, counts, strict=True):
        if not count:  # the mean of nothing is no number, not even times zero
            targets = targets.clamp(min=0)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
            share = model.loss(inputs, targets) * (count / total)
        share.backward()
        shares.append(share.detach())
    return shares


def take_step(
    model: nn.Module,
    optimizer: Optimizer | Together,
    micro_batches: Sequence[MicroBatch],
    rate: float,
    clip: float,
    precision: str = "float32",
    watcher: Watcher | None = None,
    world: Alone = ALONE,
) -> tuple[float, float]:
    """One update of the weights; gives the loss before it and the gradient's norm.

    The loss is in nats per token, the mean over the counted tokens of all
    micro-batches, of all processes, however many each has. The norm is the one before
    clipping. Raises NotFiniteError, weights untouched. bfloat16 has the range of
    float32, so no loss is scaled, as float16 would need.
    """
    losses = add_gradients(model, micro_batches, precision, world)
    world.sum_gradients(model)
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    length = get_total_norm(gradients)
    norm, *shares = torch.stack([length, *losses]).tolist()
    loss = world.sum(sum(shares))
    if not all(map(math.isfinite, (norm, loss))):
        fault = describe_fault(model, shares, norm)
        optimizer.zero_grad()
        raise fault
    if watcher:
        watcher.before_update(model)
    clip_grads_with_norm_(model.parameters(), clip, length)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_scale", 1.0)
    optimizer.step()
    if watcher:
        watcher.after_update(model)
    optimizer.zero_grad()
    return loss, norm


def broken_weights(model: nn.Module) -> list[str]:
    """The layer groups that hold a weight that is not finite."""
    broken = (name for name, w in model.named_parameters() if not w.isfinite().all())
    return [*dict.fromkeys(map(layer_group, broken))]


def describe_fault(
    model: nn.Module, shares: list[float], norm: float
) -> NotFiniteError:
    """What is broken: which losses, and the gradients and weights of which groups.

    To be called before gradients are clipped: clipping by a norm that is not finite
    breaks every one of them.
    """
    named = [*model.named_parameters()]
    gradients = {
        layer_group(name): None
        for name, weights in named
        if weights.grad is not None and not weights.grad.isfinite().all()
    }
    weights = broken_weights(model)
    broken = [place for place, share in enumerate(shares) if not math.isfinite(share)]
    message = f"loss {sum(shares)}, gradient norm {norm}"
    if weights:
        message += f", broken weights in {', '.join(weights)}"
    elif gradients:
        message += f", broken gradients in {', '.join(gradients)}"
    return NotFiniteError(message, [*gradients], broken, weights)
