"""`train` and `resume`: the loop with a bar, which Ctrl-C stops and nothing loses."""

import argparse
import shlex
from contextlib import closing

from tqdm import tqdm

from cort33x_lib.command.runs import find_run
from cort33x_lib.lab.launch import Training, launch, reopen
from cort33x_lib.lab.plan import read_plan
from cort33x_lib.training.distributed import process_group


def train_command(asked: argparse.Namespace) -> None:
    """Start a new run of a plan."""
    named = {"name": asked.plan} if asked.plan else {}
    plan = read_plan(**named, file=asked.config, changes=asked.set)
    config = asked.config.stem if asked.config else "tour"
    name = asked.name or asked.plan or config
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"name {name!r}: expected letters, digits, - and _")
    tqdm.write(f"preparing {name}: documents, tokenizer, tokens", file=asked.errors)
    with process_group() as world:
        follow(launch(plan, name, asked.runs, world), asked)


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
            closing(training.steps()) as taken,
            tqdm(
                total=steps, desc=run.folder.name, unit=" steps", disable=not main
            ) as bar,
        ):
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
