"""Widgets: live in JupyterLab, and on the site from what they last showed."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anywidget
import traitlets

POINTS = 400  # of a curve that are sent to the browser; all are kept on disk
PERIOD = 0.2  # seconds between two messages to the browser


def thin(values: list[float], points: int = POINTS) -> list[float]:
    """At most `points` means of neighbouring values, for display."""
    size = -(-len(values) // points) or 1
    groups = (values[i : i + size] for i in range(0, len(values), size))
    return [round(sum(group) / len(group), 6) for group in groups]


class TrainingDashboard(anywidget.AnyWidget):
    """A training run to watch and to steer: Run, Pause, Resume, Stop.

    `steps` is called when Run is pressed and gives the generator of the loop: one
    dictionary a step, with `held_out` (nats per token) and `sample` (text) where
    there are any. It runs in a thread of its own; the widget draws what it yields.
    Run after Stop calls `steps` again, which may go on from a checkpoint.
    """

    _esm = Path(__file__).with_name("dashboard.js")
    _css = Path(__file__).with_name("dashboard.css")
    total = traitlets.Int().tag(sync=True)  # steps of the whole run
    floor = traitlets.Float().tag(sync=True)  # nats per token
    baseline = traitlets.Float().tag(sync=True)  # nats per token
    state = traitlets.Unicode("idle").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    curve = traitlets.Dict().tag(sync=True)  # name -> thinned list, one entry a step
    latest = traitlets.Dict().tag(sync=True)  # the last entry, as it was measured
    held_out = traitlets.List().tag(sync=True)  # [step, nats per token]
    samples = traitlets.List().tag(sync=True)  # [step, text]

    def __init__(
        self,
        steps: Callable[[], Iterator[dict]],
        total: int,
        floor: float,
        baseline: float,
    ):
        super().__init__(total=total, floor=floor, baseline=baseline)
        self._steps = steps
        self._records: list[dict] = []
        self._fault: BaseException | None = None
        self._going = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent = 0.0
        self.on_msg(self._obey)

    def _obey(self, _widget: object, content: dict, _buffers: list) -> None:
        orders = {
            "run": self.start,
            "pause": self.pause,
            "resume": self.start,
            "stop": self.stop,
        }
        orders[content["order"]]()

    def start(self) -> None:
        """Begin, or go on after a pause or a stop."""
        self._going.set()
        if self._thread and self._thread.is_alive():
            self.state = "running"
            return
        self._stopping.clear()
        self._fault, self.message, self.state = None, "", "running"
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Halt after the present step."""
        if self.state == "running":
            self._going.clear()
            self.state = "paused"

    def stop(self) -> None:
        """End after the present step; the model stays as that step leaves it."""
        self._stopping.set()
        self._going.set()

    async def finished(self) -> str:
        """Start if nobody has, and give the state the training ends in.

        Awaited, so that the kernel hears the buttons meanwhile; interrupting the kernel
        stops the training like the Stop button. Raises what the training raised.
        """
        if self._thread is None:
            self.start()
        try:
            while self._thread.is_alive():
                await asyncio.sleep(0.05)
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.stop()
            self._thread.join()
        if self._fault:
            raise self._fault
        return self.state

    def _train(self) -> None:
        try:
            with closing(self._steps()) as steps:
                for record in steps:
                    self._add(record)
                    self._going.wait()
                    if self._stopping.is_set():
                        break
            self._show()
            finished = self._records and self._records[-1]["step"] == self.total
            self.state = "finished" if finished else "stopped"
        except BaseException as fault:
            self._fault, self.message = fault, f"{type(fault).__name__}: {fault}"
            self._show()
            self.state = "failed"

    def _add(self, record: dict) -> None:
        while self._records and self._records[-1]["step"] >= record["step"]:
            self._records.pop()  # a resumed run takes these steps again
        self._records.append(record)
        if "held_out" in record or "sample" in record:
            self._sent = 0.0
        if time.monotonic() - self._sent >= PERIOD:
            self._show()

    def _show(self) -> None:
        records = self._records
        names = ("step", "loss", "learning_rate", "tokens_per_second", "seconds")
        with self.hold_sync():
            self.curve = {name: thin([r[name] for r in records]) for name in names}
            self.latest = {name: records[-1][name] for name in names} if records else {}
            for name, trait in (("held_out", "held_out"), ("sample", "samples")):
                pairs = [[r["step"], r[name]] for r in records if name in r]
                setattr(self, trait, pairs)
        self._sent = time.monotonic()
