"""The curves of several runs on one page: live in JupyterLab, recorded on the site."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import anywidget
import traitlets

from cort33x_lib.view.curves import Curves, RecordReader, pack, panels, read_folders

HERE = Path(__file__).parent
PARTS = ("data", "chart", "parts")  # of the front end, before dashboard.js
TOGETHER = 2_000_000  # bytes: panels that take less are sent at once, for the site


class RunsDashboard(anywidget.AnyWidget):
    """The curves of several runs, one panel of telemetry at a time.

        RunsDashboard.of(["runs/tour-001", "runs/tour-002"], floor=1.1).watch()

    `curves` maps a run's name to its curves, `floor` and `baseline` are lines in the
    panel of the loss, in nats per token. Only the panel on show is sent when all
    together are large; on the site, which has no kernel, only what was sent is there.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = HERE / "dashboard.css"
    total = traitlets.Int().tag(sync=True)  # steps of the whole run, 0 if unknown
    floor = traitlets.Float(None, allow_none=True).tag(sync=True)  # nats per token
    baseline = traitlets.Float(None, allow_none=True).tag(sync=True)  # nats per token
    state = traitlets.Unicode("recorded").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    runs = traitlets.List().tag(sync=True)  # names, in order
    panels = traitlets.List().tag(sync=True)  # see curves.panels
    panel = traitlets.Unicode("loss").tag(sync=True)  # on show
    data = traitlets.Dict().tag(sync=True)  # panel: what curves.pack gives
    growing = traitlets.Dict().tag(sync=True)  # the same of runs that have grown
    samples = traitlets.Dict().tag(sync=True)  # run: [step, text] of each sample
    latest = traitlets.Dict().tag(sync=True)  # last numbers of the run in training

    def __init__(
        self,
        curves: Mapping[str, Curves],
        floor: float | None = None,
        baseline: float | None = None,
        **more: Any,
    ):
        self._curves = dict(curves)
        self._readers: dict[str, RecordReader] = {}
        self._grown: set[str] = set()
        self._shown = "loss"  # the panel that was asked for last
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task | None = None
        scripts = [HERE / f"dashboard_{part}.js" for part in PARTS]
        super().__init__(
            _esm="\n".join(
                path.read_text(encoding="utf-8")
                for path in [*scripts, HERE / "dashboard.js"]
            ),
            floor=floor,
            baseline=baseline,
            runs=list(curves),
            **more,
        )
        self._send_all()
        self.observe(
            lambda change: self._obey(self, {"panel": change.new}, []), "panel"
        )
        self.on_msg(self._obey)

    @classmethod
    def of(
        cls,
        folders: Sequence[str | os.PathLike[str]],
        floor: float | None = None,
        baseline: float | None = None,
    ) -> Self:
        """A dashboard of record folders, each called by its last part where that tells
        them apart.

        Raises FileNotFoundError for a folder without a run, and ValueError for a record
        that cannot be read.
        """
        readers = read_folders(folders)
        curves = {name: reader.curves for name, reader in readers.items()}
        made = cls(curves, floor, baseline)
        made._readers = readers
        return made

    def refresh(self) -> bool:
        """Read and show what the records have got since; gives whether they have."""
        grown = {name for name, reader in self._readers.items() if reader.refresh()}
        if grown:
            self._curves |= {name: self._readers[name].curves for name in grown}
            self._grown |= grown
            self._send_growing()
        return bool(grown)

    def watch(self, seconds: float = 2.0) -> Self:
        """Refresh every so often while the notebook lives, or until it is closed.

        A record that cannot be read ends it, and the dashboard says why. Raises
        RuntimeError where no event loop runs, that is, outside a notebook.
        """

        async def keep_refreshing() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    self.refresh()
                except (OSError, ValueError) as fault:
                    self.message = f"{type(fault).__name__}: {fault}"
                    return

        self._loop = asyncio.get_running_loop()
        self._watching = self._loop.create_task(keep_refreshing())
        return self

    def close(self) -> None:
        """Leave the page, and watch no longer."""
        if self._watching:
            self._watching.cancel()
        super().close()

    def _obey(self, _widget: object, content: dict, _buffers: list) -> None:
        """Send a panel that is asked for.

        A message, because JupyterLab holds changes of traits back while a cell runs;
        it may have messages heard in a thread of their own.
        """
        if self._loop and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._show_panel, content["panel"])
        else:
            self._show_panel(content["panel"])

    def _show_panel(self, panel: str) -> None:
        self._shown = panel
        if panel not in self.data or panel not in self.growing:
            self._send_panel()

    def _names(self, panel: str) -> list[str]:
        return next((p["curves"] for p in self.panels if p["name"] == panel), [])

    def _pack(self, panel: str, grown: bool) -> dict[str, Any]:
        curves = {n: c for n, c in self._curves.items() if (n in self._grown) == grown}
        return pack(curves, self._names(panel))

    def _list_panels(self) -> list[str]:
        columns = [column for run in self._curves.values() for column in run.columns]
        self.panels = panels(dict.fromkeys(columns))
        names = [panel["name"] for panel in self.panels]
        if names and self._shown not in names:
            self._shown = self.panel = names[0]
        return names

    def _send_all(self) -> None:
        """Everything, if it is small enough for one message; else the panel on show."""
        names = self._list_panels()
        sent, size = {}, 0
        for name in dict.fromkeys([self._shown, *names]):
            packed = {grown: self._pack(name, grown) for grown in (False, True)}
            size += sum(len(part["values"]) for part in packed.values())
            if sent and size > TOGETHER:
                break
            sent[name] = packed
        with self.hold_sync():
            self.data = {name: packed[False] for name, packed in sent.items()}
            self.growing = {name: packed[True] for name, packed in sent.items()}
            self.samples = {
                name: run.samples for name, run in self._curves.items() if run.samples
            }

    def _send_panel(self) -> None:
        """The panel on show; what is in `growing` is always as it was measured last."""
        with self.hold_sync():
            if self._shown not in self.data:
                self.data = {self._shown: self._pack(self._shown, grown=False)}
            self.growing = {self._shown: self._pack(self._shown, grown=True)}

    def _send_growing(self) -> None:
        self._list_panels()
        self._send_panel()
        self.samples = self.samples | {
            name: self._curves[name].samples
            for name in self._grown
            if self._curves[name].samples
        }
