"""The training loop: a generator that takes a step each time it is asked for one.

It prints nothing and plots nothing. The caller does, between the steps, and pauses by
not asking and stops by closing it. Left out: several machines, see `distributed`.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.checkpoint import newest_checkpoint, restore, save_checkpoint
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.record import Run
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.step import MicroBatch, NotFiniteError, take_step
from cort33x_lib.training.telemetry import Telemetry


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


def micro_batches(
    model: Transformer, batches: Batches | Mixture, recipe: Recipe, step: int
) -> list[MicroBatch]:
    """What a step, counted from 1, is computed from, on the model's device."""
    device = model.embedding.weight.device
    first = (step - 1) * recipe.accumulation
    return [
        tuple(ids.to(device) for ids in batches[number])
        for number in range(first, first + recipe.accumulation)
    ]


def train(
    model: Transformer,
    batches: Batches | Mixture,
    recipe: Recipe,
    run: Run | None = None,
    examine: Callable[[Transformer], float] | None = None,
) -> Iterator[dict]:
    """Train, and yield one dictionary of measurements a step.

    step, from 1 · loss, in nats per token · learning_rate · gradient_norm, before
    clipping · clipped · tokens, in all · seconds, in all · tokens_per_second ·
    held_out, what `examine` gives every `examine_every` steps and after the last

    With a run, these and those of `telemetry` go to its record, and every `save_every`
    steps, and
    however the loop ends, a checkpoint is saved; a run that holds one goes on from it.
    Close the generator (leave the loop, or use contextlib.closing) to stop.
    Raises NotFiniteError, naming the step, before the weights are touched.
    """
    optimizer = make_optimizer(model, recipe)
    telemetry = Telemetry(model, batches) if run else None
    done = 0
    if run and any(run.checkpoints.glob("step-*")):
        checkpoint = newest_checkpoint(run.checkpoints)
        restore(checkpoint, model, optimizer, run.facts)
        done = checkpoint.step
        run.forget_after(done)
    seconds = 0.0

    try:
        for step in range(done + 1, recipe.steps + 1):
            with interrupts_held():
                started = time.perf_counter()
                rate = learning_rate(recipe, step)
                parts = micro_batches(model, batches, recipe, step)
                try:
                    loss, norm = take_step(
                        model,
                        optimizer,
                        parts,
                        rate,
                        recipe.clip,
                        recipe.precision,
                        telemetry,
                    )
                except NotFiniteError as fault:
                    fault.args = (f"step {step}: {fault}",)
                    raise
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
                if examine and is_due(recipe, step):
                    measured["held_out"] = examine(model)
                if telemetry:
                    measured |= telemetry.measure(step, recipe.accumulation)
                if run:
                    run.append(**measured)
                    if step % recipe.save_every == 0:
                        save_checkpoint(
                            run.checkpoints, step, model, optimizer, run.facts
                        )
            yield measured
    finally:
        if run and done:
            with interrupts_held():
                save_checkpoint(run.checkpoints, done, model, optimizer, run.facts)


def is_due(recipe: Recipe, step: int) -> bool:
    """Whether the model is examined after this step."""
    every = recipe.examine_every
    return bool(every) and (step % every == 0 or step == recipe.steps)
