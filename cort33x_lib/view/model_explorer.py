"""The model explorer: a pattern string, a budget, and what they cost."""

from dataclasses import replace
from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.cost import COSTS

LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16384]
WINDOWS = [16, 32, 64, 128, 256, 512, 1024]
ROWS = [1, 4, 16, 128]  # of a step


class ModelExplorer(anywidget.AnyWidget):
    """A model spelled by letters under a budget: parameters, FLOPs, state, speed.

    Channels, heads and context are those of `config`; budget, pattern, window,
    vocabulary and the tokens of a step can be changed. `rate` is how many FLOPs per
    second training does on this machine, `update` how many seconds AdamW takes for a
    parameter. The forecast holds forward and backward pass and the update, as
    `step_seconds` of model/cost.py; batches, checks and records come on top. Each
    letter brings its costs as that file computes them; the browser adds them up, so it
    works without a kernel too. `chosen` holds what it computed last.
    """

    _esm = Path(__file__).with_name("model_explorer.js")
    _css = Path(__file__).with_name("model_explorer.css")
    budget = traitlets.Int(35_000_000).tag(sync=True)  # parameters
    pattern = traitlets.Unicode().tag(sync=True)  # one letter a layer
    window = traitlets.Int().tag(sync=True)  # tokens, one of `windows`
    vocabulary = traitlets.Int().tag(sync=True)  # V
    channels = traitlets.Int().tag(sync=True)  # C
    context = traitlets.Int().tag(sync=True)  # tokens, one of `lengths`
    step = traitlets.Int().tag(sync=True)  # tokens, one of `steps`
    rate = traitlets.Float().tag(sync=True)  # FLOPs per second
    update = traitlets.Float().tag(sync=True)  # seconds per parameter
    lengths = traitlets.List().tag(sync=True)
    windows = traitlets.List().tag(sync=True)
    steps = traitlets.List().tag(sync=True)
    letters = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, config: ModelConfig, rate: float, update: float, **shape: int):
        step = shape.setdefault("step", config.context)
        lengths = sorted({*LENGTHS, config.context})
        windows = sorted({*WINDOWS, config.window})
        shapes = [replace(config, window=window) for window in windows]
        letters = {
            letter: {
                "parameters": cost.parameters(config),
                "flops": [[sum(cost.flops(s, n)) for n in lengths] for s in shapes],
                "state": [[cost.state_bytes(s, n, 4) for n in lengths] for s in shapes],
            }
            for letter, cost in COSTS.items()
        }
        super().__init__(
            pattern=config.pattern,
            window=config.window,
            vocabulary=config.vocabulary,
            channels=config.channels,
            context=config.context,
            rate=rate,
            update=update,
            lengths=lengths,
            windows=windows,
            steps=sorted({*(config.context * rows for rows in ROWS), step}),
            letters=letters,
            **shape,
        )
