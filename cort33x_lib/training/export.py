"""The numbers of a run for other programs: one table as CSV, curves for TensorBoard.

A number inside a dictionary is named with its path: `gradient_norms/blocks.0.mixer`.
Left out: texts, such as samples, and numbers that float32 cannot hold.
"""

import csv
import io
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cort33x_lib import files
from cort33x_lib.training.record import Run

LARGEST = 3e38  # what float32 holds
EVENTS = "events.out.tfevents.cort33x"


def numbers(record: dict[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Name and value of every number of a step but `step` itself; True counts as 1."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{within}{name}/")
        elif isinstance(value, int | float) and -LARGEST < value < LARGEST:
            if name != "step":
                yield within + name, value


def to_csv(run: Run, path: str | os.PathLike[str]) -> None:
    """A line a step, a column a number; empty where a step was not measured so.

    Numbers are written as Python writes them, so that they are read back the same.
    The file is there whole or not at all. Raises OSError when it cannot be written.
    """
    rows = [{"step": m["step"], **dict(numbers(m))} for m in run.metrics()]
    header = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, header, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write_atomically(path, text.getvalue())


def to_tensorboard(run: Run, folder: str | os.PathLike[str]) -> Path:
    """One event file in `folder`, which is made; gives the file's path.

    Its times are the run's start plus the seconds of training. A second call replaces
    the file. Raises ImportError where the package tensorboard is missing.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as missing:
        raise ImportError(
            "writing for TensorBoard needs its package: "
            'python -m pip install -e ".[tensorboard]"'
        ) from missing
    started = datetime.fromisoformat(run.manifest["started"]).timestamp()
    path = Path(folder) / EVENTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.open_atomically(path) as file:
        writer = RecordWriter(file)
        first = Event(wall_time=started, file_version="brain.Event:2")
        writer.write(first.SerializeToString())
        for measured in run.metrics():
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in numbers(measured)
            ]
            event = Event(
                wall_time=started + measured.get("seconds", 0.0),
                step=measured["step"],
                summary=Summary(value=values),
            )
            writer.write(event.SerializeToString())
    return path
