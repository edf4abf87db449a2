"""Settings that change how fast a step is, and not what it learns, tried out here.

Rows of a micro-batch: a step has as many tokens as before, in more rows and fewer
micro-batches or the other way round. Rows are numbered through, so each step gets the
same ones, and a run learns the same up to rounding. And the compiler: whether the time
that it saves in a run is more than the time that it takes.

Each try is a process of its own, so that its peak of memory is its own, and one that
the system ends for want of memory ends alone.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import psutil
import torch

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.step import add_gradients, compile_blocks, take_step

PASSES = 3  # timed ones; the fastest counts


@dataclass(frozen=True)
class Trial:
    """What one micro-batch of so many rows has cost."""

    rows: int
    peak_bytes: int  # most memory at once: weights, optimizer and, on a CPU, libraries
    seconds: float  # of a forward and a backward pass
    first_seconds: float  # of the first step, compiling included


def peak_bytes(device: str) -> int:
    """The most memory this process has held; where no peak is kept, what it holds."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    held = psutil.Process().memory_info()
    return getattr(held, "peak_wset", held.rss)


def free_bytes(device: str) -> int:
    """The memory that nobody uses."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def try_here(config: ModelConfig, recipe: Recipe, device: str) -> Trial | None:
    """Take a step of one micro-batch, then time more passes. None: out of memory."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    try:
        started = now()
        model = Transformer(config).to(device)
        optimizer = make_optimizer(model, recipe)
        if recipe.compiled:
            compile_blocks(model)
        ids = torch.randint(0, config.vocabulary, (recipe.rows, recipe.length + 1))
        batch = ids[:, :-1].to(device), ids[:, 1:].to(device)
        numbers = recipe.final_rate, recipe.clip, recipe.precision
        take_step(model, optimizer, [batch], *numbers)
        times = [now()]
        for _ in range(PASSES):
            add_gradients(model, [batch], recipe.precision)
            times.append(now())
    except (torch.OutOfMemoryError, MemoryError):
        return None
    seconds = min(b - a for a, b in zip(times, times[1:], strict=False))
    return Trial(recipe.rows, peak_bytes(device), seconds, times[0] - started)


def try_apart(config: ModelConfig, recipe: Recipe, device: str = "cpu") -> Trial | None:
    """`try_here` in a process of its own. None too when the system has ended it."""
    with ProcessPoolExecutor(
        1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)
    ) as pool:
        try:
            return pool.submit(try_here, config, recipe, device).result()
        except BrokenProcessPool:
            return None


def find_batch(
    config: ModelConfig,
    recipe: Recipe,
    device: str = "cpu",
    memory: int | None = None,
    told: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Recipe, list[Trial]]:
    """The recipe with the fastest rows that fit into so many bytes, by default those
    that are free; and what was tried, each `told` when it is known.

    Tokens a step stay. Raises ValueError when not even one row fits.
    """
    memory = free_bytes(device) if memory is None else memory
    in_a_step, trials = recipe.rows * recipe.accumulation, []
    for rows in (n for n in range(1, in_a_step + 1) if in_a_step % n == 0):
        trial = try_apart(config, replace(recipe, rows=rows), device)
        if trial is None or trial.peak_bytes > memory:
            break
        trials.append(trial)
        told(trial)
    if not trials:
        needs = f"{trial.peak_bytes:,} bytes" if trial else "more than there is"
        raise ValueError(
            f"a step of one row of {recipe.length} tokens needs {needs},"
            f" expected at most {memory:,} bytes: take a shorter row or a smaller model"
        )
    best = min(trials, key=lambda trial: trial.seconds / trial.rows)
    rest = in_a_step // best.rows
    return replace(recipe, rows=best.rows, accumulation=rest), trials


def find_compiled(
    config: ModelConfig, recipe: Recipe, device: str = "cpu"
) -> tuple[Recipe, dict[str, float]]:
    """The recipe, compiled if a run of it then ends sooner; and the seconds behind it.

    Those of a pass `eager` and `compiled`, those of compiling, and those `saved` in the
    whole run. Raises ValueError when a step does not fit into memory.
    """
    trials = [
        try_apart(config, replace(recipe, compiled=compiled), device)
        for compiled in (False, True)
    ]
    if None in trials:
        raise ValueError(
            f"{recipe.rows} rows of {recipe.length} tokens do not fit into memory:"
            " expected fewer, see find_batch"
        )
    eager, compiled = trials
    compiling = compiled.first_seconds - eager.first_seconds
    passes = recipe.steps * recipe.accumulation
    saved = passes * (eager.seconds - compiled.seconds) - compiling
    return replace(recipe, compiled=saved > 0), {
        "eager": eager.seconds,
        "compiled": compiled.seconds,
        "compiling": compiling,
        "saved": saved,
    }
