"""The model explorer: a pattern string, a budget, and what they cost."""

from dataclasses import replace
from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.cost import COSTS

LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16384]
WINDOWS = [16, 32, 64, 128, 256, 512, 1024]


class ModelExplorer(anywidget.AnyWidget):
    """A model spelled by letters under a budget: parameters, FLOPs, state, speed.

    Channels, heads and context are those of `config`; budget, pattern, window and
    vocabulary can be changed. `rate` is how many FLOPs per second training does on
    this machine. Each letter brings its costs as model/cost.py computes them; the
    browser adds them up, so it works without a kernel too. `chosen` holds what it
    computed last.
    """

    _esm = Path(__file__).with_name("model_explorer.js")
    _css = Path(__file__).with_name("model_explorer.css")
    budget = traitlets.Int(35_000_000).tag(sync=True)  # parameters
    pattern = traitlets.Unicode().tag(sync=True)  # one letter a layer
    window = traitlets.Int().tag(sync=True)  # tokens, one of `windows`
    vocabulary = traitlets.Int().tag(sync=True)  # V
    channels = traitlets.Int().tag(sync=True)  # C
    context = traitlets.Int().tag(sync=True)  # tokens, one of `lengths`
    rate = traitlets.Float().tag(sync=True)  # FLOPs per second
    lengths = traitlets.List().tag(sync=True)
    windows = traitlets.List().tag(sync=True)
    letters = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, config: ModelConfig, rate: float, **shape: int):
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
            lengths=lengths,
            windows=windows,
            letters=letters,
            **shape,
        )
