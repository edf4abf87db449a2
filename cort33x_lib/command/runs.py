"""`runs list | show | diff | bisect`: what the records of runs say."""

import argparse
import difflib
import json
import re
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from cort33x_lib.command.console import columns, sparkline, visible
from cort33x_lib.lab.bisect import bisect, change_names, needed_arms
from cort33x_lib.lab.plan import Plan, plan_of
from cort33x_lib.lab.workbench import library_in
from cort33x_lib.training.compare import Change, code_changes, compare
from cort33x_lib.training.export import to_csv, to_tensorboard
from cort33x_lib.training.record import Run, describe_code, describe_machine

SHOWN = 12  # lines of the table of `runs show`


def find_run(runs: Path, name: str) -> Run:
    """A run by its name: `tour-003` itself, `tour` the newest of its name, or a folder.

    Raises ValueError naming near ones.
    """
    for folder in (runs / name, Path(name)):
        if is_run(folder):
            return Run(folder)
    numbered = re.compile(re.escape(name) + r"-(\d+)")
    found = {
        int(match[1]): known
        for known in run_names(runs)
        if (match := numbered.fullmatch(known))
    }
    if found:
        return Run(runs / found[max(found)])
    known = run_names(runs)
    series = {re.sub(r"-\d+$", "", one) for one in known}
    near = difflib.get_close_matches(name, [*series, *known], n=3)
    hint = f"near it: {', '.join(near)}" if near else f"there are: {listed(series)}"
    raise ValueError(f"no run {name!r} in {runs}; {hint}")


def listed(names: set[str]) -> str:
    """Names for a message."""
    return ", ".join(sorted(names)) or "none yet"


def run_names(runs: Path) -> list[str]:
    """The folders of a folder that hold a run, by name."""
    if not runs.is_dir():
        return []
    return sorted(folder.name for folder in runs.iterdir() if is_run(folder))


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run; a corpus has a manifest of another kind.

    Raises ValueError for a manifest that is damaged.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        return False
    try:
        return "recipe" in json.loads(file.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise ValueError(f"{file} is damaged: {fault}") from None


def list_command(asked: argparse.Namespace) -> None:
    """Every run, the newest last."""
    runs = [Run(asked.runs / name) for name in run_names(asked.runs)]
    if not runs:
        raise ValueError(f"{asked.runs} holds no runs: `train` makes one")
    rows = []
    for run in sorted(runs, key=lambda run: run.manifest.get("started", "")):
        metrics = run.metrics()
        last = metrics[-1] if metrics else {}
        held_out = [m["held_out"] for m in metrics if "held_out" in m]
        speed = last.get("tokens_per_second")
        steps = run.manifest["recipe"]["steps"]
        rows.append(
            [
                run.folder.name,
                run.manifest.get("started", "")[:16].replace("T", " "),
                f"{last.get('step', 0)} of {steps}",
                last.get("loss", "-"),
                held_out[-1] if held_out else "-",
                "-" if speed is None else round(speed),
            ]
        )
    head = ["run", "started", "steps", "loss", "held out", "tokens/s"]
    print(columns(head, rows))


def show_command(asked: argparse.Namespace) -> None:
    """What a run is made of, its loss as a curve and as a table."""
    run = find_run(asked.runs, asked.run)
    metrics = run.metrics()
    model, recipe = run.manifest["model"], run.manifest["recipe"]
    machine = run.manifest["machine"]
    facts = {
        "run": run.folder,
        "started": run.manifest.get("started", "-"),
        "corpus": run.manifest["corpus"],
        "tokenizer": run.manifest["tokenizer"],
        "model": f"{model['pattern']}, {model['channels']} channels,"
        f" vocabulary {model['vocabulary']}",
        "recipe": f"{recipe['steps']} steps of"
        f" {recipe['rows'] * recipe['length'] * recipe['accumulation']:,} tokens,"
        f" seed {recipe['seed']}",
        "machine": f"{machine['processor']}, {machine['threads']} threads,"
        f" accelerator {machine['accelerator']}",
    }
    print("\n".join(f"{name:10} {value}" for name, value in facts.items()))
    if asked.csv:
        to_csv(run, asked.csv)
    if asked.tensorboard:
        to_tensorboard(run, asked.tensorboard)
    losses = [m["loss"] for m in metrics if "loss" in m]
    if not losses:
        print("no step has been recorded yet")
        return
    print(f"\nloss {max(losses):.3f} to {min(losses):.3f}\n{sparkline(losses)}\n")
    every = max(-(-len(metrics) // SHOWN), 1)
    chosen = [m for m in metrics if m["step"] % every == 0 or m is metrics[-1]]
    if "held_out" in metrics[-1] or any("held_out" in m for m in metrics):
        names = ["step", "loss", "held_out", "learning_rate", "gradient_norm"]
    else:
        names = ["step", "loss", "learning_rate", "gradient_norm"]
    names += ["tokens", "seconds"]
    print(columns(names, [[m.get(name, "-") for name in names] for m in chosen]))


def diff_command(asked: argparse.Namespace) -> None:
    """What has changed from the first run to the second, a sentence each."""
    runs = (find_run(asked.runs, name) for name in (asked.before, asked.after))
    print("\n".join(map(visible, compare(*runs))))


def bisect_command(asked: argparse.Namespace) -> None:
    """Train what is between two runs, and split the difference."""
    runs = [find_run(asked.runs, name) for name in (asked.before, asked.after)]
    plans = [recorded_plan(run) for run in runs]
    if asked.steps is not None:
        plans = [replace(p, recipe=replace(p.recipe, steps=asked.steps)) for p in plans]
    if asked.seeds < 2:
        raise ValueError(f"seeds is {asked.seeds}, expected 2 or more")
    changed = [*code_changes(*(run.manifest for run in runs))]
    if changed and not asked.code and not asked.without_code:
        raise ValueError(
            f"the code differs: {in_short(changed)}; expected --code BEFORE AFTER, two"
            " folders that hold the code of each, or --without-code to leave it out"
        )
    for folder, run in zip(asked.code or (), runs, strict=False):
        refuse_other_code(folder, run)
    seeds = range(asked.seeds)
    arms = needed_arms(change_names(*plans, asked.code), seeds)
    with tqdm(total=len(arms), desc="bisect", unit=" runs") as bar:
        found = bisect(*plans, seeds, asked.code, done=lambda _: bar.update())
    print("\n".join(found.sentences()))


def recorded_plan(run: Run) -> Plan:
    """The plan of a run. Raises ValueError, naming the run, where it has none."""
    if "plan" not in run.manifest:
        raise ValueError(f"{run.folder} was not started from a plan, so none is known")
    try:
        return plan_of(run.manifest)
    except ValueError as fault:
        raise ValueError(f"{run.folder}: {fault}") from None


def refuse_other_code(folder: Path, run: Run) -> None:
    """Raises ValueError where a folder does not hold the code that made a run."""
    here = describe_code(library_in(folder)) | {"machine": describe_machine()}
    if changed := [*code_changes(run.manifest, here)]:
        raise ValueError(
            f"{folder} does not hold the code of {run.folder.name}: {in_short(changed)}"
        )


def in_short(changes: list[Change]) -> str:
    """The first few changes of code, and how many more there are."""
    said = "; ".join(f"{change.name} {change.after}" for change in changes[:3])
    return said + f"; and {len(changes) - 3} more" * (len(changes) > 3)
