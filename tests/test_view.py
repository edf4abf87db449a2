"""The view: what figures and widgets hold; how they look is the browser tests' part."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cort33x_lib.view.curves import panel_of
from cort33x_lib.view.figures import level_bars, loss_curves, show, table
from cort33x_lib.view.widgets import LIVE, TrainingDashboard


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


def steered(steer, **options):
    """A dashboard and what the coroutine `steer(dashboard)` gives, in an event loop.

    In a thread of its own: in this one the browser tests' loop may be running.
    """

    async def run():
        shown = TrainingDashboard(
            lambda: records(**options), options["count"], floor=1.0, baseline=6.0
        )
        assert shown.state == "idle"
        return shown, await steer(shown)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def sent(shown, curve):
    """Steps and values of a curve of the run in training, as the browser gets them."""
    packed, start = shown.growing[panel_of(curve)], 0
    values = np.frombuffer(packed["values"], "<f4")
    for run, name, rows, groups in packed["lines"]:
        if (run, name) == (LIVE, curve):
            return values[start : start + 2 * groups].reshape(2, groups).tolist()
        start += rows * groups
    raise KeyError(curve)


def taken(shown):
    return len(shown._own.steps)


def to_the_end(shown):
    return shown.finished()


def press(shown, order):
    """As JupyterLab does: in a thread that is not the training's."""
    message = (shown, {"order": order}, [])
    pressing = threading.Thread(target=shown._obey, args=message)
    pressing.start()
    pressing.join()


def test_a_run_to_the_end_is_shown_whole():
    shown, state = steered(to_the_end, count=12)
    assert state == "finished"
    assert sent(shown, "loss")[0] == list(range(1, 13))
    assert sent(shown, "held_out") == [[5, 10], [4.0, 4.0]]
    assert shown.latest["step"] == 12
    assert shown.samples == {LIVE: [(5, "story 5"), (10, "story 10")]}


def test_the_buttons_are_obeyed_while_the_end_is_awaited():
    closed = threading.Event()

    async def steer(shown):
        waiting = asyncio.create_task(shown.finished())
        await asyncio.sleep(0.1)
        press(shown, "pause")
        await asyncio.sleep(0.05)
        assert shown.state == "paused"
        paused_at = taken(shown)
        await asyncio.sleep(0.1)
        assert taken(shown) == paused_at > 0
        press(shown, "resume")
        await asyncio.sleep(0.1)
        assert shown.state == "running"
        assert taken(shown) > paused_at
        press(shown, "stop")
        return await asyncio.wait_for(waiting, timeout=1)

    _, state = steered(steer, count=10_000, pace=0.002, closed=closed)
    assert state == "stopped"
    assert closed.is_set()


def test_run_is_obeyed_before_anybody_awaits_the_end():
    async def steer(shown):
        press(shown, "run")
        await asyncio.sleep(0.1)
        assert taken(shown) > 0
        press(shown, "pause")
        press(shown, "stop")
        return await shown.finished()

    assert steered(steer, count=10_000, pace=0.002)[1] == "stopped"


def test_a_fault_in_training_reaches_the_reader():
    async def steer(shown):
        with pytest.raises(ArithmeticError, match="loss nan"):
            await shown.finished()

    shown, _ = steered(steer, count=10, fault_at=3)
    assert shown.state == "failed"
    assert shown.message == "ArithmeticError: loss nan"
    assert sent(shown, "loss")[0] == [1, 2]


def test_run_after_stop_takes_up_the_records_where_they_are_taken_again():
    async def steer(shown):
        await shown.finished()
        shown.start()
        return await shown.finished()

    shown, state = steered(steer, count=6)
    assert state == "finished"
    assert sent(shown, "loss")[0] == [1, 2, 3, 4, 5, 6]


def test_an_interrupt_stops_the_training():
    closed = threading.Event()

    async def steer(shown):
        waiting = asyncio.create_task(shown.finished())
        await asyncio.sleep(0.1)
        waiting.cancel()
        return await waiting

    _, state = steered(steer, count=10_000, pace=0.001, closed=closed)
    assert state == "stopped"
    assert closed.is_set()
