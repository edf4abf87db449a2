"""The training dashboard: a run that is steered from the notebook, beside others."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from cort33x_lib.view.curves import Curves, read_folders
from cort33x_lib.view.dashboard import RunsDashboard

PERIOD = 0.2  # seconds between two messages to the browser
LISTENING = 0.001  # seconds in which the buttons are heard after each step
LIVE = "this run"


class TrainingDashboard(RunsDashboard):
    """A training run to watch and to steer, Run, Pause, Resume, Stop, beside others.

    `steps` is called when Run is pressed and gives the generator of the loop: one
    dictionary a step, with `held_out` (nats per token) and `sample` (text) where
    there are any; every number in it becomes a curve. `beside` are record folders to
    compare with. The steps are taken in the kernel's own event loop, which hears the
    buttons in between: a thread would make PyTorch share the cores with itself.
    Run after Stop calls `steps` again, which may go on from a checkpoint.
    Raises RuntimeError where no event loop runs, that is, outside a notebook.
    """

    def __init__(
        self,
        steps: Callable[[], Iterator[dict]],
        total: int,
        floor: float | None = None,
        baseline: float | None = None,
        beside: Sequence[str | os.PathLike[str]] = (),
    ):
        self._own = Curves()
        readers = read_folders(beside)
        curves = {LIVE: self._own, **{n: r.curves for n, r in readers.items()}}
        super().__init__(curves, floor, baseline, total=total, state="idle")
        self._readers = readers
        self._grown = {LIVE}
        self._loop = asyncio.get_running_loop()
        self._steps = steps
        self._fault: Exception | None = None
        self._going = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task | None = None
        self._sent = 0.0

    def _obey(self, _widget: object, content: dict, _buffers: list) -> None:
        if "order" not in content:
            return super()._obey(_widget, content, _buffers)
        orders = {
            "run": self.start,
            "pause": self.pause,
            "resume": self.start,
            "stop": self.stop,
        }
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
        self.latest = self._newest()
        self._send_all()
        finished = self._own.steps and self._own.steps[-1] == self.total
        self.state = "failed" if self._fault else "finished" if finished else "stopped"

    def _add(self, record: dict) -> None:
        self._own.forget_after(record["step"] - 1)  # a resumed run takes these again
        self._own.extend([record])
        if "held_out" in record or "sample" in record:
            self._sent = 0.0
        if time.monotonic() - self._sent >= PERIOD:
            with self.hold_sync():
                self.latest = self._newest()
                self._send_growing()
            self._sent = time.monotonic()

    def _newest(self) -> dict[str, float]:
        steps = self._own.steps
        return {"step": steps[-1], **self._own.latest()} if steps else {}
