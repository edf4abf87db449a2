"""Widgets: live in JupyterLab, and on the site from what they last showed."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anywidget
import traitlets

POINTS = 400  # of a curve that are sent to the browser; all are kept on disk
PERIOD = 0.2  # seconds between two messages to the browser
LISTENING = 0.001  # seconds in which the buttons are heard after each step


def thin(values: list[float], points: int = POINTS) -> list[float]:
    """At most `points` means of neighbouring values, for display."""
    size = -(-len(values) // points) or 1
    groups = (values[i : i + size] for i in range(0, len(values), size))
    return [round(sum(group) / len(group), 6) for group in groups]


class TrainingDashboard(anywidget.AnyWidget):
    """A training run to watch and to steer: Run, Pause, Resume, Stop.

    `steps` is called when Run is pressed and gives the generator of the loop: one
    dictionary a step, with `held_out` (nats per token) and `sample` (text) where
    there are any. The steps are taken in the kernel's own event loop, which hears the
    buttons in between: a thread would make PyTorch share the cores with itself.
    Run after Stop calls `steps` again, which may go on from a checkpoint.
    Raises RuntimeError where no event loop runs, that is, outside a notebook.
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
        self._loop = asyncio.get_running_loop()
        self._steps = steps
        self._records: list[dict] = []
        self._fault: Exception | None = None
        self._going = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task | None = None
        self._sent = 0.0
        self.on_msg(self._obey)

    def _obey(self, _widget: object, content: dict, _buffers: list) -> None:
        orders = {
            "run": self.start,
            "pause": self.pause,
            "resume": self.start,
            "stop": self.stop,
        }
        # JupyterLab may have the messages heard in a thread of their own.
        self._loop.call_soon_threadsafe(orders[content["order"]])

    def start(self) -> None:
        """Begin, or go on after a pause or a stop."""
        self._going.set()
        self.state = "running"
        if self._task is None or self._task.done():
            self._stopping, self._fault, self.message = False, None, ""
            self._task = self._loop.create_task(self._train())

    def pause(self) -> None:
        """Halt after the present step."""
        if self.state == "running":
            self._going.clear()
            self.state = "paused"

    def stop(self) -> None:
        """End after the present step; the model stays as that step leaves it."""
        self._stopping = True
        self._going.set()

    async def finished(self) -> str:
        """Start if nobody has, and give the state the training ends in.

        Interrupting the kernel stops the training like the Stop button. Raises what
        the training raised.
        """
        if self._task is None:
            self.start()
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self.stop()
            await self._task
        if self._fault:
            raise self._fault
        return self.state

    async def _train(self) -> None:
        try:
            with closing(self._steps()) as steps:
                for record in steps:
                    self._add(record)
                    await asyncio.sleep(LISTENING)
                    await self._going.wait()
                    if self._stopping:
                        break
        except KeyboardInterrupt:
            pass  # the loop has ended its step first, as it does for Stop
        except Exception as fault:
            self._fault, self.message = fault, f"{type(fault).__name__}: {fault}"
        self._show()
        finished = self._records and self._records[-1]["step"] == self.total
        self.state = "failed" if self._fault else "finished" if finished else "stopped"

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
