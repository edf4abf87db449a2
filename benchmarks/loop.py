"""What the training loop costs beside the model it trains, and what makes steps faster.

    .venv/bin/python benchmarks/loop.py

Takes turns between steps of the whole loop (batches, schedule, checks, clipping,
telemetry, record) and the same forward, backward and update with nothing around them,
for the plan `small` and for `cort33x` with one row of 1,024 tokens a step. Then
`float32` against `bfloat16` and eager against compiled, and the memory of the process
over 2,000 steps of the smallest model. Each part ends after its rounds or its seconds,
whichever comes first. With one thread, times are processor seconds, which other work on
the machine disturbs least; with more, they are those of the clock. Writes
data/runs/loop-cost.json, which chapter 14 reads. Eight minutes on two quiet cores.
"""

import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.launch import Training, launch
from cort33x_lib.lab.plan import PLANS, CorpusPlan, Plan
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.record import describe_machine
from cort33x_lib.training.step import add_gradients, compile_blocks

ROUNDS = {"small": 120, "cort33x": 12}
SECONDS = {"small": 60.0, "cort33x": 90.0, "ways": 45.0}  # at most, a part
SHORT = {"steps": 10**6, "save_every": 10**6, "examine_every": 0}
MEMORY_STEPS, MEMORY_WARM = 2000, 200


def plans() -> dict[str, Plan]:
    """The sizes that are measured, which are neither saved nor examined here."""
    small, large = PLANS["small"], PLANS["cort33x"]
    few = CorpusPlan("standard-library", documents=300, held_out=10)
    rows = replace(large.recipe, rows=1, accumulation=1, **SHORT)
    return {
        "small": replace(small, recipe=replace(small.recipe, **SHORT)),
        "cort33x": replace(
            large,
            recipe=rows,
            corpus=few,
            tokenizer=replace(large.tokenizer, documents=300),
        ),
    }


def summary(values: list[float], digits: int) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    found = {"low": low, "median": median, "high": high}
    return {name: round(float(x), digits) for name, x in found.items()}


def take_turns(
    works: dict[str, Callable[[], object]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of each work by round, in changing order; the first is left out."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in works}
    started = time.perf_counter()
    for turn in range(rounds + 1):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            began = clock()
            works[name]()
            if turn:
                times[name].append(clock() - began)
        if turn >= 3 and time.perf_counter() - started > seconds:
            break
    return times


def bare_steps(
    training: Training, precision: str = "float32", compiled: bool = False
) -> Iterator[None]:
    """Forward, backward and update, over and over, on a batch that is there."""
    recipe = training.plan.recipe
    model = Transformer(training.plan.model)
    optimizer = make_optimizer(model, recipe)
    parts = [training.batches[number] for number in range(recipe.accumulation)]
    if compiled:
        compile_blocks(model)
    while True:
        add_gradients(model, parts, precision)
        optimizer.step()
        optimizer.zero_grad()
        yield


def loop_cost(training: Training, rounds: int, seconds: float) -> dict:
    """The whole loop beside bare steps, by the ratio within each round."""
    whole, bare = training.steps(), bare_steps(training)
    works = {"whole": lambda: next(whole), "bare": lambda: next(bare)}
    for work in works.values():
        work()  # the first makes checks and memory that no other makes
    times = take_turns(works, rounds, seconds)
    whole.close()
    pairs = [*zip(times["whole"], times["bare"], strict=True)]
    added = [100 * (ours / theirs - 1) for ours, theirs in pairs]
    medians = [float(np.median(times[name])) for name in ("whole", "bare")]
    return {
        "n": len(pairs),
        "tokens_per_step": training.plan.recipe.tokens_per_step,
        "whole_ms": summary([1e3 * x for x in times["whole"]], 3),
        "bare_ms": summary([1e3 * x for x in times["bare"]], 3),
        "added_percent": summary(added, 3),
        "of_medians_percent": round(100 * (medians[0] / medians[1] - 1), 3),
    }


def compare_ways(training: Training, seconds: float) -> tuple[dict, float]:
    """Steps of one model by precision and compiler; seconds that compiling took."""
    steps = {
        "float32": bare_steps(training),
        "bfloat16": bare_steps(training, "bfloat16"),
        "float32 compiled": bare_steps(training, compiled=True),
    }
    for name, one in steps.items():
        began = time.perf_counter()
        next(one)
        first = time.perf_counter() - began
        if "compiled" in name:
            compile_seconds = first
    works = {name: lambda one=one: next(one) for name, one in steps.items()}
    times = take_turns(works, 30, seconds)
    plain = times["float32"]
    found = {
        name: {
            "n": len(taken),
            "milliseconds": summary([1e3 * x for x in taken], 3),
            "times": summary([a / b for a, b in zip(taken, plain, strict=True)], 4),
        }
        for name, taken in times.items()
    }
    return found, round(compile_seconds, 2)


def memory_slope(runs: Path) -> dict:
    """Bytes that a process grows by in a step, its 95% interval, over 2,000 steps."""
    tiny = PLANS["tiny"]
    recipe = replace(tiny.recipe, **SHORT)
    steps = launch(replace(tiny, recipe=recipe), "memory", runs).steps()
    process, sizes = psutil.Process(), []
    for step in range(MEMORY_STEPS):
        next(steps)
        if step >= MEMORY_WARM and step % 20 == 0:
            gc.collect()
            sizes.append((step, process.memory_info().rss))
    steps.close()
    x, y = np.array(sizes, dtype=float).T
    slope, start = map(float, np.polyfit(x, y, 1))
    left = y - (slope * x + start)
    error = (left.var() * len(x) / (len(x) - 2) / (x.var() * len(x))) ** 0.5
    return {
        "steps": MEMORY_STEPS,
        "warm_up_steps": MEMORY_WARM,
        "first_mb": round(float(y[0]) / 1e6, 2),
        "last_mb": round(float(y[-1]) / 1e6, 2),
        "slope": round(slope, 1),
        "interval": [round(slope - 1.96 * error, 1), round(slope + 1.96 * error, 1)],
    }


def main() -> None:
    found: dict = {"machine": describe_machine(), "loop": {}}
    found |= {"ways": {}, "compile_seconds": {}, "memory": {}}

    def keep() -> None:
        text = json.dumps(found, indent=1)
        write_atomically(PROJECT / "data" / "runs" / "loop-cost.json", text + "\n")

    with TemporaryDirectory() as folder:
        runs = Path(folder)
        made = {name: launch(plan, name, runs) for name, plan in plans().items()}
        for name, training in made.items():
            found["loop"][name] = loop_cost(training, ROUNDS[name], SECONDS[name])
            keep()
        found["memory"] = memory_slope(runs)
        keep()
        for name, training in made.items():
            ways, seconds = compare_ways(training, SECONDS["ways"])
            found["ways"][name], found["compile_seconds"][name] = ways, seconds
            keep()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
