"""The attention viewer: what each token of a text reads, by layer and head, and masks.

Chosen: maps are recorded once as bytes, so that a page needs no model. Left out: maps
of layers D: what a state gives is no mean, and its shares are negative too.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import torch
import traitlets
from torch import Tensor

from cort33x_lib.model.delta import GatedDelta
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.telemetry import listening, softmax_weights


@torch.no_grad()
def attention_weights(model: Transformer, ids: Sequence[int]) -> dict[int, Tensor]:
    """What each token reads of each other, for every layer but those of letter D.

    T ids -> for a layer's number (H, T, T): rows are readers and sum to 1, or to less
    where a sink takes the rest.
    """
    inputs: dict[int, Tensor] = {}
    with listening(model, inputs, outputs={}):
        model.read(torch.tensor([ids]))
    mixers = [block.mixer for block in model.blocks]
    return {
        number: softmax_weights(mixers[number], x)[0, :, :, : len(ids)]
        for number, x in inputs.items()
        if not isinstance(mixers[number], GatedDelta)
    }


def pack_maps(weights: Tensor) -> str:
    """Maps as text: a byte a weight, in steps of 1/255, for what a token may read.

    (H, T, T) -> base64 of H * T * (T + 1) / 2 bytes
    """
    rows, columns = torch.tril_indices(*weights.shape[1:])
    steps = (255 * weights[:, rows, columns]).round().to(torch.uint8)
    return b64encode(bytes(steps.flatten().tolist())).decode()


def unpack_maps(packed: str, heads: int, tokens: int) -> Tensor:
    """The maps that `pack_maps` made into text: (H, T, T), each weight within 1/510.

    Raises ValueError for a text that does not hold as many maps of as many tokens.
    """
    steps = torch.tensor(list(b64decode(packed)))
    if len(steps) != heads * tokens * (tokens + 1) // 2:
        raise ValueError(
            f"{len(steps)} weights, expected {heads} maps of {tokens} tokens"
        )
    weights = torch.zeros(heads, tokens, tokens)
    rows, columns = torch.tril_indices(tokens, tokens)
    weights[:, rows, columns] = steps.view(heads, -1) / 255
    return weights


class AttentionViewer(anywidget.AnyWidget):
    """Maps of a trained model and masks of every kind of layer, one row at a time.

    `record` has the tokens of a text, the pattern, heads and window of a model, and its
    packed maps by layer, as `benchmarks/record_attention_maps.py` writes them. The
    browser computes everything, so it works without a kernel too; `chosen` holds what
    is on show. Raises ValueError for maps that do not fit the tokens.
    """

    _esm = Path(__file__).with_name("attention_maps.js")
    _css = Path(__file__).with_name("attention_maps.css")
    tokens = traitlets.List().tag(sync=True)
    pattern = traitlets.Unicode().tag(sync=True)
    heads = traitlets.Int().tag(sync=True)  # H
    window = traitlets.Int().tag(sync=True)  # W, tokens that a W layer reads
    maps = traitlets.Dict().tag(sync=True)  # layer's number, as text: packed maps
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, record: Mapping):
        names = ("tokens", "pattern", "heads", "window", "maps")
        super().__init__(**{name: record[name] for name in names})
        for packed in self.maps.values():
            unpack_maps(packed, self.heads, len(self.tokens))
