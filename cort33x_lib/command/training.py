"""`train` and `resume`: the loop with a bar, which Ctrl-C stops and nothing loses.

`fit`: which micro-batch is the fastest here, and whether the compiler pays.
"""

import argparse
import os
import shlex
import warnings
from contextlib import closing

from tqdm import tqdm

from cort33x_lib.command.runs import find_run
from cort33x_lib.lab.launch import Training, launch, reopen
from cort33x_lib.lab.plan import Plan, read_plan
from cort33x_lib.training.batch_finder import Trial, find_batch, find_compiled
from cort33x_lib.training.distributed import ALONE, process_group


def asked_plan(asked: argparse.Namespace) -> Plan:
    """The plan that the words choose and change."""
    named = {"name": asked.plan} if asked.plan else {}
    return read_plan(**named, file=asked.config, changes=asked.set)


def train_command(asked: argparse.Namespace) -> None:
    """Start a new run of a plan."""
    plan = asked_plan(asked)
    config = asked.config.stem if asked.config else "tour"
    name = asked.name or asked.plan or config
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"name {name!r}: expected letters, digits, - and _")
    asked.runs.mkdir(parents=True, exist_ok=True)
    if not os.access(asked.runs, os.W_OK):  # known before the work, not after
        raise ValueError(f"{asked.runs} may not be written to: give another --runs")
    tqdm.write(f"preparing {name}: documents, tokenizer, tokens", file=asked.errors)
    with process_group() as world:
        follow(launch(plan, name, asked.runs, world), asked)


def fit_command(asked: argparse.Namespace) -> None:
    """Try micro-batches, and the compiler if asked; say the words for the fastest."""
    plan, device = asked_plan(asked), str(ALONE.device)
    length = plan.recipe.length
    print(f"{plan.recipe.tokens_per_step:,} tokens a step, on {device}")
    print("rows  MB at the peak  tokens per second")

    def show(trial: Trial) -> None:
        speed = trial.rows * length / trial.seconds
        peak = f"{trial.peak_bytes / 1e6:,.0f}"
        print(f"{trial.rows:4}  {peak:>14}  {speed:17,.0f}", flush=True)

    recipe, _ = find_batch(plan.model, plan.recipe, device, told=show)
    best = dict(rows=recipe.rows, accumulation=recipe.accumulation)
    if asked.compile:
        recipe, found = find_compiled(plan.model, recipe, device)
        print(
            f"compiled: {found['compiled']:.3f} s a pass instead of"
            f" {found['eager']:.3f}, {found['compiling']:.0f} s to compile:"
            f" {found['saved']:,.0f} s saved in {recipe.steps:,} steps"
        )
        best["compiled"] = str(recipe.compiled).lower()
    print(*(f"--set recipe.{name}={value}" for name, value in best.items()))


def resume_command(asked: argparse.Namespace) -> None:
    """Go on with a run from its newest checkpoint."""
    run = find_run(asked.runs, asked.run)
    steps = run.manifest["recipe"]["steps"]
    metrics = run.metrics()
    if metrics and metrics[-1]["step"] == steps:
        print(f"{run.folder.name} has all its {steps} steps")
        return
    tqdm.write(f"preparing {run.folder.name} again", file=asked.errors)
    with process_group() as world:
        follow(reopen(run, world), asked)


def follow(training: Training, asked: argparse.Namespace) -> None:
    """Take the steps, show them in a bar, and say where the run stands at its end."""
    run, steps, main = training.run, training.plan.recipe.steps, training.world.main
    shown = {}
    try:
        with (
            warnings.catch_warnings(),
            closing(training.steps()) as taken,
            tqdm(
                total=steps, desc=run.folder.name, unit=" steps", disable=not main
            ) as bar,
        ):
            # PyTorch says on a CPU that it norms bfloat16 in two steps
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
            for measured in taken:
                names = {"loss", "held_out"} & measured.keys()
                shown |= {name: f"{measured[name]:.3f}" for name in sorted(names)}
                bar.set_postfix(shown, refresh=False)
                bar.update(measured["step"] - bar.n)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{run.folder.name} is on the disk; go on with:\n  {going_on(run, asked)}"
        ) from None
    if not main:
        return
    last = run.metrics()[-1]
    facts = [f"{last['step']} steps in {last['seconds']:.0f} s"]
    facts += [f"{name.replace('_', ' ')} {value}" for name, value in shown.items()]
    if training.floor is not None:
        facts.append(f"floor {training.floor:.3f} nats per token")
    print(f"{run.folder.name}: {', '.join(facts)}")


def going_on(run, asked: argparse.Namespace) -> str:
    """The command that goes on with a run."""
    words = ["python", "-m", "cort33x_lib", "resume", run.folder.name]
    return shlex.join([*words, "--runs", str(run.folder.parent)])
