"""The budget explorer: what a vocabulary leaves of a model's parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import traitlets


class BudgetExplorer(anywidget.AnyWidget):
    """A budget of parameters shared between embedding, attention and feed-forward.

    `ladder` gives measured bytes per token by vocabulary, `measured` a list of recorded
    models: vocabulary, share of the parameters in the embedding, bits per byte, and the
    ends of its interval. Every layer is of full attention, its heads stay as they are.
    The browser computes everything, so it works without a kernel too; `chosen` holds
    what it computed last. Raises ValueError for a vocabulary the ladder lacks.
    """

    _esm = Path(__file__).with_name("budget.js")
    _css = Path(__file__).with_name("budget.css")
    budget = traitlets.Int(35_000_000).tag(sync=True)  # parameters
    vocabulary = traitlets.Int(8192).tag(sync=True)  # V, one of the ladder's
    channels = traitlets.Int(512).tag(sync=True)  # C
    layers = traitlets.Int(12).tag(sync=True)  # L
    heads = traitlets.Int(6).tag(sync=True)  # H
    key_value_heads = traitlets.Int(2).tag(sync=True)  # G
    head_channels = traitlets.Int(64).tag(sync=True)  # D
    context = traitlets.Int(1024).tag(sync=True)  # positions
    ladder = traitlets.List().tag(sync=True)  # [vocabulary, bytes per token]
    measured = traitlets.List().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        ladder: Mapping[int, float],
        measured: Sequence[Sequence[float]] = (),
        **shape: int,
    ):
        super().__init__(
            ladder=[[size, ladder[size]] for size in sorted(ladder)],
            measured=[list(point) for point in measured],
            **shape,
        )
        if self.vocabulary not in ladder:
            raise ValueError(
                f"vocabulary {self.vocabulary}: expected one of {sorted(ladder)}"
            )
