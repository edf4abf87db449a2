"""A letter for each mixer: a layer pattern such as "WFWF" spells a model.

Every mixer has one interface: forward(x: (B, T, C), state=None) -> (y: (B, T, C),
state). The state knows its own position, `nbytes` and `clone()`.
"""

from torch import nn

from cort33x_lib.model.attention import FullAttention
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.delta import GatedDelta
from cort33x_lib.model.latent import LatentAttention
from cort33x_lib.model.window import SinkAttention, WindowAttention

MIXERS = {
    "F": FullAttention,
    "W": WindowAttention,
    "D": GatedDelta,
    "L": LatentAttention,
    "S": SinkAttention,
}


def make_mixer(letter: str, config: ModelConfig) -> nn.Module:
    """The mixer that a letter of the pattern stands for.

    Raises ValueError for a letter that no mixer has.
    """
    if letter not in MIXERS:
        known = ", ".join(MIXERS)
        raise ValueError(f"pattern has the letter {letter!r}, expected one of {known}")
    return MIXERS[letter](config)
