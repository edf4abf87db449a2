"""The schedule explorer: what warm-up, shape and length make of a learning rate."""

from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.training.recipe import Recipe


class ScheduleExplorer(anywidget.AnyWidget):
    """Both schedules of a recipe by step, whose ends can be moved, and a run cut short.

    The browser computes the rates of `training/schedule.py` itself, so it works without
    a kernel too; `chosen` holds what it computed last: for each schedule its `rates`,
    one a step, and their `mean`, and `at_stop`, the rate where the run is cut.
    """

    _esm = Path(__file__).with_name("schedule_explorer.js")
    _css = Path(__file__).with_name("schedule_explorer.css")
    steps = traitlets.Int().tag(sync=True)
    peak_rate = traitlets.Float().tag(sync=True)
    final_rate = traitlets.Float().tag(sync=True)
    warmup = traitlets.Float().tag(sync=True)  # share of the steps
    cooldown = traitlets.Float().tag(sync=True)  # share of the steps
    stop = traitlets.Float(1.0).tag(sync=True)  # share of the steps that are taken
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, recipe: Recipe):
        super().__init__(
            steps=recipe.steps,
            peak_rate=recipe.peak_rate,
            final_rate=recipe.final_rate,
            warmup=recipe.warmup,
            cooldown=recipe.cooldown,
        )
