"""Runs as CSV and as TensorBoard's event files, read back by their own readers."""

import csv
import json
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cort33x_lib.training.export import to_csv, to_tensorboard
from cort33x_lib.training.record import Run
from run import ROOT

LINES = [
    {"step": 1, "loss": 7.657239437103271, "clipped": True, "seconds": 0.5},
    {"step": 2, "loss": 1e-7, "norms": {"a": 0.25, "b": {"c": 3}}, "seconds": 1.0},
    {"step": 2, "held_out": 2.5, "sample": 'a "story",\nof two lines'},
    {"step": 3, "loss": 2.0, "norms": {"a": None}, "seconds": 1.5},
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"started": "2026-01-01T00:00:00+00:00"}')
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    (folder / "metrics.jsonl").write_text(text)
    return Run(folder)


def test_a_table_has_every_number_as_it_was_measured(run, tmp_path):
    to_csv(run, tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "step", "loss", "clipped", "seconds", "norms/a", "norms/b/c", "held_out",
    ]  # fmt: skip
    assert [float(row["loss"]) for row in rows] == [7.657239437103271, 1e-7, 2.0]
    assert rows[1]["norms/b/c"] == "3" and rows[1]["held_out"] == "2.5"
    assert rows[0]["norms/a"] == rows[2]["norms/a"] == ""


def test_tensorboard_reads_every_number_at_its_step_and_time(run, tmp_path):
    path = to_tensorboard(run, tmp_path / "events" / "run")
    events = EventAccumulator(str(path.parent)).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss", "clipped", "seconds", "norms/a", "norms/b/c", "held_out",
    }  # fmt: skip
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3]
    assert [event.value for event in losses] == pytest.approx([7.6572394, 1e-7, 2.0])
    assert losses[1].wall_time - losses[0].wall_time == pytest.approx(0.5)
    assert losses[0].wall_time == pytest.approx(1767225600.5)
    assert events.Scalars("norms/b/c")[0].step == 2
    to_tensorboard(run, path.parent)
    assert [path] == list(path.parent.iterdir())


def test_a_recorded_run_of_the_book_is_exported_whole(tmp_path):
    run = Run(ROOT / "data" / "runs" / "tour-seed-0")
    path = to_tensorboard(run, tmp_path)
    to_csv(run, tmp_path / "run.csv")
    events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    with open(tmp_path / "run.csv", newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert losses == [m["loss"] for m in run.metrics() if "loss" in m]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(losses)


def test_a_full_disk_leaves_no_half_file(run, small_disk):
    (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    for export in (lambda: to_csv(run, small_disk / "x.csv"),
                   lambda: to_tensorboard(run, small_disk)):  # fmt: skip
        with pytest.raises(OSError, match="No space"):
            export()
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_without_tensorboard_the_reader_is_told_what_to_install(run, tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from cort33x_lib.training import export, record\n"
        f"export.to_tensorboard(record.Run({str(run.folder)!r}), 'x')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert 'pip install -e ".[tensorboard]"' in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "x").exists()
