"""The training loop: a generator that takes a step each time it is asked for one.

It prints nothing and plots nothing. The caller does, between the steps, and pauses by
not asking and stops by closing it. Chosen: fp32 on the model's device. Left out:
mixed precision, several machines.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.checkpoint import newest_checkpoint, restore, save_checkpoint
from cort33x_lib.training.optimizer import learning_rate, make_optimizer
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.record import Run


class NotFiniteError(ArithmeticError):
    """The loss or a gradient is not a number any more; the weights were not touched."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that no step is left half taken."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    held = []
    previous = signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held:
        raise KeyboardInterrupt


def take_step(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[tuple[Tensor, Tensor]],
    rate: float,
    clip: float,
) -> tuple[float, float]:
    """One update of the weights; gives the loss before it and the gradient's norm.

    The loss is in nats per token, the mean over all micro-batches, which are of one
    size. The norm is the one before clipping. Raises NotFiniteError, weights untouched.
    """
    loss = 0.0
    for inputs, targets in micro_batches:
        part = model.loss(inputs, targets) / len(micro_batches)
        part.backward()
        loss += part.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item()
    if not math.isfinite(loss) or not math.isfinite(norm):
        optimizer.zero_grad()
        raise NotFiniteError(f"loss {loss}, gradient norm {norm}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return loss, norm


def train(
    model: Transformer,
    batches: Batches | Mixture,
    recipe: Recipe,
    run: Run | None = None,
) -> Iterator[dict]:
    """Train, and yield one dictionary of measurements a step.

    step, from 1 · loss, in nats per token · learning_rate · gradient_norm, before
    clipping · clipped · tokens, in all · seconds, in all · tokens_per_second

    With a run, every step is written to its record, and every `save_every` steps, and
    however the loop ends, a checkpoint is saved; a run that holds one goes on from it.
    Close the generator (leave the loop, or use contextlib.closing) to stop.
    Raises NotFiniteError, naming the step, before the weights are touched.
    """
    optimizer = make_optimizer(model, recipe)
    done = 0
    facts = (
        {name: run.manifest[name] for name in ("corpus", "tokenizer")} if run else {}
    )
    if run and any(run.checkpoints.glob("step-*")):
        checkpoint = newest_checkpoint(run.checkpoints)
        restore(checkpoint, model, optimizer, facts)
        done = checkpoint.step
        run.forget_after(done)
    device = model.embedding.weight.device
    seconds = 0.0

    try:
        for step in range(done + 1, recipe.steps + 1):
            with interrupts_held():
                started = time.perf_counter()
                first = (step - 1) * recipe.accumulation
                micro_batches = [
                    tuple(ids.to(device) for ids in batches[number])
                    for number in range(first, first + recipe.accumulation)
                ]
                rate = learning_rate(recipe, step)
                try:
                    loss, norm = take_step(
                        model, optimizer, micro_batches, rate, recipe.clip
                    )
                except NotFiniteError as fault:
                    raise NotFiniteError(f"step {step}: {fault}") from None
                done = step
                elapsed = time.perf_counter() - started
                seconds += elapsed
                measured = {
                    "step": step,
                    "loss": loss,
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    "clipped": norm > recipe.clip,
                    "tokens": step * recipe.tokens_per_step,
                    "seconds": round(seconds, 4),
                    "tokens_per_second": round(recipe.tokens_per_step / elapsed, 1),
                }
                if run:
                    run.append(**measured)
                    if step % recipe.save_every == 0:
                        save_checkpoint(run.checkpoints, step, model, optimizer, facts)
            yield measured
    finally:
        if run and done:
            with interrupts_held():
                save_checkpoint(run.checkpoints, done, model, optimizer, facts)
