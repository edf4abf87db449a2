"""Figures and tables of the book: one look, readable by the colour-blind.

Colours are those of Okabe and Ito. Figures come as SVG with a white ground; the site
turns them dark by CSS. Nothing here touches matplotlib's global state.
"""

from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

import matplotlib
from IPython.display import HTML, SVG
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#8a5a83"
LOOK = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": "#333333",
    "grid.color": "#e3e3e3",
    "font.size": 10.5,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "cort33x",
}


def draw(size: tuple[float, float] = (7.2, 3.4)) -> tuple[Figure, Axes]:
    """An empty figure of the book's look, so many inches wide and high."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.add_subplot()


def show(figure: Figure) -> SVG:
    """The figure as SVG, the same bytes for the same figure."""
    buffer = BytesIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return SVG(buffer.getvalue().decode("utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> HTML:
    """A table whose cells are shown as they are, whatever characters they hold."""

    def line(cells: Sequence[object], tag: str) -> str:
        inside = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inside}</tr>"

    lines = [line(header, "th"), *(line(cells, "td") for cells in rows)]
    return HTML(f'<table class="table">{"".join(lines)}</table>')


def smooth(values: Sequence[float], span: int = 20) -> list[float]:
    """Exponential mean over about `span` values, corrected for its start."""
    mean, weight, smoothed, keep = 0.0, 0.0, [], 1 - 2 / span
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + 1 - keep
        smoothed.append(mean / weight)
    return smoothed


def loss_curves(runs: dict[str, list[dict]], baseline: float, floor: float) -> Figure:
    """Held-out loss of each run by step, between the unigram baseline and the floor.

    `runs` gives each run's metrics by the name it is labelled with.
    """
    figure, axes = draw()
    for colour, (name, metrics) in zip(
        (BLUE, ORANGE, PURPLE), runs.items(), strict=False
    ):
        trained = [m["step"] for m in metrics], smooth([m["loss"] for m in metrics])
        axes.plot(*trained, color=colour, alpha=0.35, linewidth=1)
        points = [(m["step"], m["held_out"]) for m in metrics if "held_out" in m]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=name)
    for level, colour, name in (
        (baseline, "#555555", "unigram baseline"),
        (floor, GREEN, "floor"),
    ):
        axes.axhline(level, color=colour, linestyle="--", label=name)
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    return figure


def level_bars(levels: dict[str, float], unit: str) -> Figure:
    """One bar a name, its value written at its end."""
    figure, axes = draw((7.2, 0.5 + 0.42 * len(levels)))
    bars = axes.barh(list(levels), list(levels.values()), color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.3g", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel=unit)
    axes.grid(visible=False, axis="y")
    return figure
