"""Time every chapter on this machine, for the forecast of chapter 0.

    .venv/bin/python benchmarks/time_chapters.py

Runs each chapter as JupyterLab would, takes its training time from the records that it
leaves, and writes both with this machine's speed to data/runs/chapter-times.json. The
last chapter comes first, so that chapter 0 finds the times of the others.
"""

import json
import time

import jupytext
from nbclient import NotebookClient

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.forecast import TIMES, measure_speed
from cort33x_lib.training.record import Run, describe_machine


def recorded_runs() -> set:
    return {path.parent for path in PROJECT.glob("runs/*/manifest.json")}


def main() -> None:
    times = {
        "machine": describe_machine(),
        "speed": vars(measure_speed()),
        "chapters": {},
    }
    for path in sorted((PROJECT / "book").glob("[0-9]*.md"), reverse=True):
        before, started = recorded_runs(), time.perf_counter()
        NotebookClient(
            jupytext.read(path),
            timeout=600,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
        seconds = time.perf_counter() - started
        made = [Run(folder).metrics()[-1] for folder in recorded_runs() - before]
        training = sum(last["seconds"] for last in made)
        times["chapters"][path.stem] = {
            "python": round(seconds - training, 1),
            "training": round(training, 1),
        }
        print(path.stem, times["chapters"][path.stem])
        times["chapters"] = dict(sorted(times["chapters"].items()))
        write_atomically(TIMES, json.dumps(times, indent=2) + "\n")


if __name__ == "__main__":
    main()
