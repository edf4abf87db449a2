"""The view: what figures and widgets hold; how they look is the browser tests' part."""

import asyncio
import threading
import time

import pytest

from cort33x_lib.view.figures import level_bars, loss_curves, show, table
from cort33x_lib.view.widgets import TrainingDashboard, thin


def test_a_table_shows_its_cells_as_they_are():
    shown = table(["a", "b"], [["<script>x</script>", 'a "b" & c']]).data
    assert shown == (
        '<table class="table"><tr><th>a</th><th>b</th></tr>'
        "<tr><td>&lt;script&gt;x&lt;/script&gt;</td>"
        "<td>a &quot;b&quot; &amp; c</td></tr></table>"
    )


def test_figures_are_the_same_bytes_each_time():
    metrics = [{"step": n, "loss": 5.0 / n} for n in range(1, 30)]
    metrics[9]["held_out"] = 2.0

    def drawn():
        return show(loss_curves({"seed 0": metrics}, baseline=5.0, floor=1.0)).data

    assert drawn() == drawn()
    assert "<svg" in drawn()
    assert (
        "<svg" in show(level_bars({"model": 1.0, "floor": 0.5}, "bits per byte")).data
    )


@pytest.mark.parametrize("length", [0, 1, 400, 401, 10_000])
def test_thinned_curves_keep_their_mean(length):
    values = [float(n) for n in range(length)]
    thinned = thin(values)
    assert len(thinned) <= 400
    if length % 400 == 0 and length:
        assert sum(thinned) / len(thinned) == pytest.approx(sum(values) / length)


def records(count, pace=0.0, fault_at=None, closed=None):
    try:
        for step in range(1, count + 1):
            time.sleep(pace)
            if step == fault_at:
                raise ArithmeticError("loss nan")
            record = {
                "step": step,
                "loss": 5.0 / step,
                "learning_rate": 0.1,
                "tokens_per_second": 10.0,
                "seconds": step * 0.1,
            }
            if step % 5 == 0:
                record |= {"held_out": 4.0, "sample": f"story {step}"}
            yield record
    finally:
        if closed:
            closed.set()


def dashboard(**options):
    return TrainingDashboard(lambda: records(**options), options["count"], 1.0, 6.0)


def test_a_run_to_the_end_is_shown_whole():
    shown = dashboard(count=12)
    assert shown.state == "idle"
    assert asyncio.run(shown.finished()) == "finished"
    assert shown.curve["step"] == list(range(1, 13))
    assert shown.held_out == [[5, 4.0], [10, 4.0]]
    assert shown.samples == [[5, "story 5"], [10, "story 10"]]


def test_pause_resume_and_stop():
    closed = threading.Event()
    shown = dashboard(count=10_000, pace=0.002, closed=closed)

    async def steer():
        shown.start()
        await asyncio.sleep(0.1)
        shown.pause()
        assert shown.state == "paused"
        await asyncio.sleep(0.05)
        paused_at = len(shown._records)
        await asyncio.sleep(0.1)
        assert len(shown._records) == paused_at > 0
        shown.start()
        await asyncio.sleep(0.1)
        assert shown.state == "running"
        assert len(shown._records) > paused_at
        shown.stop()
        return await shown.finished()

    assert asyncio.run(steer()) == "stopped"
    assert closed.is_set()


def test_stop_while_paused():
    shown = dashboard(count=10_000, pace=0.001)

    async def steer():
        shown.start()
        shown.pause()
        shown.stop()
        return await shown.finished()

    assert asyncio.run(steer()) == "stopped"


def test_a_fault_in_training_reaches_the_reader():
    shown = dashboard(count=10, fault_at=3)
    with pytest.raises(ArithmeticError, match="loss nan"):
        asyncio.run(shown.finished())
    assert shown.state == "failed"
    assert shown.message == "ArithmeticError: loss nan"
    assert shown.curve["step"] == [1, 2]


def test_run_after_stop_takes_up_the_records_where_they_are_taken_again():
    shown = dashboard(count=6)

    async def twice():
        await shown.finished()
        shown.start()
        return await shown.finished()

    assert asyncio.run(twice()) == "finished"
    assert shown.curve["step"] == [1, 2, 3, 4, 5, 6]


def test_other_work_goes_on_while_the_training_is_awaited():
    """As the buttons' messages must, while a cell awaits the end."""
    shown = dashboard(count=10_000, pace=0.001)

    async def press_stop():
        await asyncio.sleep(0.1)
        shown._obey(shown, {"order": "stop"}, [])

    async def both():
        ended, _ = await asyncio.gather(shown.finished(), press_stop())
        return ended

    assert asyncio.run(both()) == "stopped"


def test_an_interrupt_stops_the_training():
    closed = threading.Event()
    shown = dashboard(count=10_000, pace=0.001, closed=closed)

    async def interrupted():
        waiting = asyncio.create_task(shown.finished())
        await asyncio.sleep(0.1)
        waiting.cancel()
        return await waiting

    assert asyncio.run(interrupted()) == "stopped"
    assert closed.is_set()
