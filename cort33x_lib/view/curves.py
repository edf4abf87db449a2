"""The curves of runs: read from records while these grow, thinned for display."""

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cort33x_lib.training.export import LARGEST
from cort33x_lib.training.record import Run

POINTS = 400  # of a curve that are sent to the browser; all are kept here and on disk
NUMBERS = {int, float, bool}
COUNTERS = {"tokens", "bytes", "seconds"}  # they only grow
PANELS = {  # name: title, unit, the numbers in it; others get a panel of their own
    "loss": ("Loss", "nats per token", ["loss", "held_out", "best_held_out"]),
    "learning_rate": ("Learning rate", "", ["learning_rate"]),
    "gradients": ("Gradients", "norm", ["gradient_norm", "gradient_norms"]),
    "update_ratios": ("Updates", "update / weight", ["update_ratios"]),
    "extremes": ("Extremes", "activations and logits", ["activations", "logits"]),
    "entropies": ("Attention entropy", "nats", ["entropies"]),
    "sinks": ("Sinks", "share of attention", ["sinks"]),
    "decays": ("Decays", "share kept a token", ["decays"]),
    "speed": ("Speed", "tokens per second", ["tokens_per_second"]),
    "memory": ("Memory", "bytes", ["memory"]),
}
OWNERS = {member: name for name, (*_, members) in PANELS.items() for member in members}


class Curves:
    """Every number of a run, a column a name, NaN where a step lacks it (float32)."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.columns: dict[str, array] = {}
        self.samples: list[tuple[int, str]] = []  # what the model wrote after a step

    def extend(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Take in the measurements of some steps; those of one step are joined.

        Numbers in dictionaries are named as in training/export.py. Raises KeyError or
        TypeError for a record without a whole number as its step.
        """
        steps = array("q", [record["step"] for record in records])
        if np.all(np.diff([*self.steps[-1:], *steps]) > 0):
            self.steps.extend(steps)
        else:
            for step in steps:
                self._make_row(step)
        rows = np.searchsorted(np.array(self.steps), steps)
        for name in dict.fromkeys(chain.from_iterable(records)):
            if name != "step":
                self._fill(name, [record.get(name) for record in records], rows)
        for record in records:
            if isinstance(record.get("sample"), str):
                self.samples.append((record["step"], record["sample"]))

    def _make_row(self, step: int) -> None:
        row = bisect_left(self.steps, step)
        if row == len(self.steps) or self.steps[row] != step:
            self.steps.insert(row, step)
            for column in self.columns.values():
                if row < len(column):
                    column.insert(row, nan)

    def _fill(self, name: str, values: list, rows: np.ndarray) -> None:
        kinds = set(map(type, values))
        if dict in kinds:
            inner = [value for value in values if type(value) is dict]
            for key in dict.fromkeys(chain.from_iterable(inner)):
                within = [v.get(key) if type(v) is dict else None for v in values]
                self._fill(f"{name}/{key}", within, rows)
        if not kinds & NUMBERS:
            return
        if not kinds <= NUMBERS:
            values = [value if type(value) in NUMBERS else nan for value in values]
        found = np.array(values, dtype=np.float64)
        known = np.abs(found) < LARGEST
        if known.any():
            column = self.columns.setdefault(name, array("f"))
            column.extend(array("f", [nan]) * (len(self.steps) - len(column)))
            np.frombuffer(column, np.float32)[rows[known]] = found[known]

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
        records = []
        for number, line in enumerate(block.splitlines(), self._lines + 1):
            try:
                records.append(orjson.loads(line))
                if type(records[-1]["step"]) is not int:
                    raise TypeError("the step is no whole number")
            except (ValueError, TypeError, LookupError) as fault:
                raise ValueError(
                    f"{self._path}, line {number}: {line[:80]!r}, expected a JSON "
                    f"object with a whole number as its step ({fault})"
                ) from fault
        self.curves.extend(records)
        self._lines += len(records)
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
