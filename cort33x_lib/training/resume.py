"""Taking a run up again: from the newest checkpoint that is whole, or not at all."""

import warnings

from torch import nn

from cort33x_lib.training.checkpoint import (
    CheckpointError,
    Progress,
    newest_checkpoint,
    restore,
)
from cort33x_lib.training.distributed import ALONE, Alone
from cort33x_lib.training.optimizer import Optimizer, Together
from cort33x_lib.training.record import Run


def resume(
    run: Run,
    model: nn.Module,
    optimizer: Optimizer | Together,
    facts: dict,
    world: Alone = ALONE,
) -> Progress:
    """Set a run back to its newest intact checkpoint, and its record with it.

    Without a checkpoint it begins at step 0. Warns of damaged checkpoints that it
    passes over. Raises CheckpointError when none is intact, when there should be one
    and is none, or when one does not fit.
    """
    progress, recorded = Progress(), last_step(run)
    if any(run.checkpoints.glob("step-*")):
        checkpoint = newest_checkpoint(run.checkpoints)
        progress = restore(checkpoint, model, optimizer, facts)
        for damage in checkpoint.skipped:
            warn(
                f"going on from step {progress.step}, a newer one is damaged: {damage}"
            )
        if recorded < progress.step:
            warn(f"the record ends at step {recorded}, before step {progress.step}")
    elif recorded > facts["recipe"]["save_every"]:
        raise CheckpointError(
            f"{run.folder} has a record of {recorded} steps and no checkpoint: expected"
            " one, or a new run"
        )
    if world.sum(progress.step) != world.size * progress.step:
        raise CheckpointError(
            f"{run.folder}: the processes found different checkpoints"
        )
    if world.main:
        run.forget_after(progress.step)
    world.forget_others(optimizer)
    return progress


def last_step(run: Run) -> int:
    """The step that a record ends at, 0 where nothing was written."""
    metrics = run.metrics()
    return metrics[-1]["step"] if metrics else 0


def warn(message: str) -> None:
    """Say something that must not be missed and stops nothing."""
    warnings.warn(message, RuntimeWarning, stacklevel=3)
