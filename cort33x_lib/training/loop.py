"""The training loop: a generator that takes a step each time it is asked for one.

It prints nothing and plots nothing. The caller does, between the steps, and pauses by
not asking and stops by closing it. Several processes run the same loop, each told by
its `world` which one it is; see `distributed`.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.checkpoint import Progress, save_checkpoint
from cort33x_lib.training.distributed import ALONE, Alone
from cort33x_lib.training.facts import facts_of
from cort33x_lib.training.lock import hold
from cort33x_lib.training.optimizer import Optimizer, Together, make_optimizer
from cort33x_lib.training.randomness import undrawn_on_failure
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.record import Run
from cort33x_lib.training.replay import keep_for_replay
from cort33x_lib.training.resume import resume
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.start import check_device, check_first_loss
from cort33x_lib.training.step import (
    MicroBatch,
    NotFiniteError,
    Watcher,
    broken_weights,
    compile_blocks,
    take_step,
)
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
    model: Transformer, batches: Batches | Mixture, numbers: Iterable[int]
) -> list[MicroBatch]:
    """The micro-batches of these numbers, on the model's device."""
    device = model.embedding.weight.device
    return [tuple(ids.to(device) for ids in batches[number]) for number in numbers]


def train(
    model: Transformer,
    batches: Batches | Mixture,
    recipe: Recipe,
    run: Run | None = None,
    examine: Callable[[Transformer], float] | None = None,
    world: Alone = ALONE,
) -> Iterator[dict]:
    """Train, and yield one dictionary of measurements a step.

    step, from 1 · loss, in nats per token · learning_rate · gradient_norm, before
    clipping · clipped, and clipped_steps, in all · tokens and seconds, in all ·
    tokens_per_second ·
    held_out, what `examine` gives every `examine_every` steps and after the last ·
    best_held_out, the lowest so far

    With a run, these and those of `telemetry` go to its record, and every `save_every`
    steps, and however the loop ends, a checkpoint is saved, unless a weight of it is
    not finite; a run that holds one goes on from it. With a `world` of several, none is
    saved when one of them stops alone.
    Close the generator (leave the loop, or use contextlib.closing) to stop.
    Raises, before the weights are touched: DeviceError for a device that computes
    something else, FirstLossError for a new run of a model that is not new, and
    NotFiniteError, naming the step, which keeps in the run what `replay` needs;
    LockedError when the run is being written already; CheckpointError as `resume` does;
    and OSError when a checkpoint cannot be written, which ends the run and leaves its
    record.
    """
    with hold(run.folder) if run and world.main else nullcontext():
        yield from take_steps(model, batches, recipe, run, examine, world)


def next_step(
    model: Transformer,
    optimizer: Optimizer | Together,
    batches: Batches | Mixture,
    recipe: Recipe,
    progress: Progress,
    watcher: Watcher | None = None,
    world: Alone = ALONE,
) -> dict:
    """The next step of a run, measured; `progress` is moved on. Raises as `train`."""
    started = time.perf_counter()
    step = progress.step + 1
    rate = learning_rate(recipe, step)
    mine = world.numbers(progress.position, recipe.accumulation)
    parts = micro_batches(model, batches, mine)
    if step == 1:
        check_first_loss(model, parts[0])
    try:
        loss, norm = take_step(
            model, optimizer, parts, rate, recipe.clip, recipe.precision, watcher, world
        )
    except NotFiniteError as fault:
        fault.args = (f"step {step}: {fault}",)
        raise
    seconds = time.perf_counter() - started
    progress.step = step
    progress.position += recipe.accumulation
    progress.tokens += recipe.tokens_per_step
    progress.seconds += seconds
    progress.clipped += norm > recipe.clip
    return {
        "step": step,
        "loss": loss,
        "learning_rate": rate,
        "gradient_norm": norm,
        "clipped": norm > recipe.clip,
        "clipped_steps": progress.clipped,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 4),
        "tokens_per_second": round(recipe.tokens_per_step / seconds, 1),
    }


def take_steps(
    model: Transformer,
    batches: Batches | Mixture,
    recipe: Recipe,
    run: Run | None,
    examine: Callable[[Transformer], float] | None,
    world: Alone,
) -> Iterator[dict]:
    """The loop of `train`, where nobody else writes to the run."""
    check_device(str(model.embedding.weight.device))
    optimizer = world.shared(make_optimizer(model, recipe), model, recipe)
    progress = Progress()
    telemetry = Telemetry(model, batches) if run and world.main else None
    if run:
        facts = facts_of(run, batches, recipe)
        progress = resume(run, model, optimizer, facts, world)
    tried = progress.step  # the last step that was saved, or should have been

    def save() -> None:
        nonlocal tried
        tried = progress.step
        if broken := broken_weights(model):
            message = f"step {tried} has left broken weights in {', '.join(broken)}"
            raise NotFiniteError(f"{message}: nothing was saved", [], [], broken)
        with world.whole(optimizer):
            if world.main:
                run.bring_to_disk()
                save_checkpoint(run.checkpoints, progress, model, optimizer, facts)

    if recipe.compiled:
        compile_blocks(model)
    try:
        for step in range(progress.step + 1, recipe.steps + 1):
            with interrupts_held():
                try:
                    with undrawn_on_failure():
                        measured = next_step(
                            model,
                            optimizer,
                            batches,
                            recipe,
                            progress,
                            telemetry,
                            world,
                        )
                except NotFiniteError as fault:
                    if run and progress.step > tried and not fault.weights:
                        save()
                    if run and world.main:
                        if world.size > 1:  # look at the others' micro-batches too
                            fault.micro_batches = []
                        every = ALONE.numbers(progress.position, recipe.accumulation)
                        parts = micro_batches(model, batches, every)
                        keep_for_replay(run, step, model, batches, parts, recipe, fault)
                    raise
                if examine and world.main and is_due(recipe, step):
                    measured["held_out"] = score = examine(model)
                    best = progress.best
                    progress.best = score if best is None else min(best, score)
                    measured["best_held_out"] = progress.best
                if telemetry:
                    measured |= telemetry.measure(step, recipe.accumulation)
                if run and world.main:
                    run.append(**measured)
                if run and step % recipe.save_every == 0:
                    save()
            yield measured
    finally:
        # Of several processes one may stop alone: the others cannot take part then.
        all_here = world.size == 1 or progress.step == recipe.steps
        if run and progress.step > tried and all_here and not broken_weights(model):
            with interrupts_held():
                save()


def is_due(recipe: Recipe, step: int) -> bool:
    """Whether the model is examined after this step."""
    every = recipe.examine_every
    return bool(every) and (step % every == 0 or step == recipe.steps)
