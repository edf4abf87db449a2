"""The curves of runs: read from records while these grow, thinned for display."""

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cort33x_lib.training.export import numbers
from cort33x_lib.training.record import Run

POINTS = 400  # of a curve that are sent to the browser; all are kept here and on disk
COUNTERS = {"tokens", "bytes", "seconds"}  # they only grow
PANELS = {  # name: title, unit, the numbers in it
    "loss": ("Loss", "nats per token", ["loss", "held_out"]),
    "learning_rate": ("Learning rate", "", ["learning_rate"]),
    "gradient_norms": (
        "Gradient norms",
        "before clipping",
        ["gradient_norm", "gradient_norms"],
    ),
    "update_ratios": ("Updates", "update / weight", ["update_ratios"]),
    "speed": ("Speed", "tokens per second", ["tokens_per_second"]),
}
OWNERS = {member: name for name, (*_, members) in PANELS.items() for member in members}


class Curves:
    """Every number of a run, a column a name, NaN where a step lacks it (float32)."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.columns: dict[str, array] = {}
        self.samples: list[tuple[int, str]] = []  # what the model wrote after a step

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the measurements of a step; those of one step are joined.

        Raises KeyError or TypeError for a record without a whole number as its step.
        """
        step = record["step"]
        if not self.steps or step > self.steps[-1]:
            row = len(self.steps)
            self.steps.append(step)
        else:
            row = self._row(step)
        for name, value in numbers(record):
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = array("f")
            if row < len(column):
                column[row] = value
            else:
                column.extend([nan] * (row - len(column)))
                column.append(value)
        if isinstance(record.get("sample"), str):
            self.samples.append((step, record["sample"]))

    def _row(self, step: int) -> int:
        row = bisect_left(self.steps, step)
        if row == len(self.steps) or self.steps[row] != step:
            self.steps.insert(row, step)
            for column in self.columns.values():
                if row < len(column):
                    column.insert(row, nan)
        return row

    def forget_after(self, step: int) -> None:
        """Drop the steps after this one, which a resumed run takes again."""
        rows = bisect_right(self.steps, step)
        del self.steps[rows:]
        for column in self.columns.values():
            del column[rows:]
        self.samples = [sample for sample in self.samples if sample[0] <= step]

    def latest(self) -> dict[str, float]:
        """The last value of every number."""
        last = {}
        for name, column in self.columns.items():
            known = (value for value in reversed(column) if value == value)
            if (value := next(known, None)) is not None:
                last[name] = value
        return last

    def thinned(self, name: str, points: int = POINTS) -> np.ndarray:
        """A curve in at most `points` groups of neighbouring steps, for display.

        (4, groups), float32: last step, mean, least and greatest of each group; only
        the first two rows where every group is one step.
        """
        values = np.array(self.columns.get(name, ()), dtype=np.float64)
        known = np.flatnonzero(~np.isnan(values))
        values, steps = values[known], np.array(self.steps)[known]
        size = -(-len(values) // points) or 1
        if size == 1:
            return np.stack([steps, values]).astype(np.float32)
        starts = np.arange(0, len(values), size)
        ends = np.append(starts[1:], len(values))
        means = np.add.reduceat(values, starts) / (ends - starts)
        low, high = (f.reduceat(values, starts) for f in (np.minimum, np.maximum))
        return np.stack([steps[ends - 1], means, low, high]).astype(np.float32)


class RecordReader:
    """A run's folder, its curves so far, and how far its record has been read.

    It never locks, and leaves a half-written last line for the next time. Raises
    FileNotFoundError where there is no run.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._path = Run(Path(folder)).folder / "metrics.jsonl"
        self.curves = Curves()
        self._read, self._lines, self._file = 0, 0, 0
        self.refresh()

    def refresh(self) -> bool:
        """Read what has been added, or all of a record that was replaced.

        Gives whether there was anything. Raises ValueError for a line that is no
        record of a step, with its number.
        """
        if not self._path.exists():
            return False
        with open(self._path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._file or found.st_size < self._read:
                self.curves = Curves()
                self._read, self._lines, self._file = 0, 0, found.st_ino
            file.seek(self._read)
            block = file.read()
        block = block[: block.rfind(b"\n") + 1]
        for number, line in enumerate(block.splitlines(), self._lines + 1):
            try:
                self.curves.add(orjson.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as fault:
                raise ValueError(
                    f"{self._path}, line {number}: {line[:80]!r}, expected a JSON "
                    f"object with a whole number as its step ({fault})"
                ) from fault
            self._lines = number
        self._read += len(block)
        return bool(block)


def read_folders(folders: Sequence[str | os.PathLike[str]]) -> dict[str, RecordReader]:
    """A reader of each record folder, called by its last part where that is enough."""
    paths = [Path(folder) for folder in folders]
    last = [path.name for path in paths]
    return {
        path.name if last.count(path.name) == 1 else str(path): RecordReader(path)
        for path in paths
    }


def panel_of(name: str) -> str:
    """The panel that a number is shown in: of its group, or one of its own."""
    group = name.partition("/")[0]
    return OWNERS.get(group, group)


def panels(names: Iterable[str]) -> list[dict[str, Any]]:
    """Name, title, unit and curves of every panel that these numbers fill, in order."""
    members: dict[str, list[str]] = {}
    for name in names:
        if name not in COUNTERS:
            members.setdefault(panel_of(name), []).append(name)
    order = [*(p for p in PANELS if p in members), *(p for p in members)]
    found = []
    for panel in dict.fromkeys(order):
        plain = panel.replace("_", " ")
        title, unit, _ = PANELS.get(panel, (plain[:1].upper() + plain[1:], "", []))
        curves = members[panel]
        found.append({"name": panel, "title": title, "unit": unit, "curves": curves})
    return found


def pack(curves: Mapping[str, Curves], names: Iterable[str]) -> dict[str, Any]:
    """These numbers of several runs, as the browser takes them.

    `lines` has run, name, rows and groups of each curve, `values` their float32 one
    after the other, as `Curves.thinned` gives them.
    """
    lines, values = [], []
    for name in names:
        for run, of_run in curves.items():
            thinned = of_run.thinned(name)
            if thinned.size:
                lines.append([run, name, *thinned.shape])
                values.append(thinned.astype("<f4").tobytes())
    return {"lines": lines, "values": b"".join(values)}
