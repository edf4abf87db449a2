"""Every number of the model, and the sizes that the book calls by name.

Letters for sizes, here and in every file of this room:
B batch, T tokens, C channels, H heads, D channels per head, F feed-forward width,
V vocabulary, L layers, G heads of keys and values.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model; frozen, so that a checkpoint means what it says.

    Raises ValueError for numbers that no model can have.
    """

    vocabulary: int  # V: tokens the model can name
    context: int  # the longest sequence it is meant for, in tokens
    channels: int  # C: width of the residual stream
    heads: int  # H
    key_value_heads: int  # G: heads of keys and values, each shared by H / G heads
    head_channels: int  # D: channels per head, even because rotary positions pair them
    feed_forward: int  # F: width inside a feed-forward layer
    pattern: str  # one letter a layer, from the first to the last
    window: int  # tokens that a W layer reads, the present one included
    latent_channels: int = 64  # width of what an L layer keeps of a token
    delta_channels: int = 32  # K: channels of a key in a D layer, whose values have D

    def __post_init__(self):
        for name, value in vars(self).items():
            if name != "pattern" and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a whole number from 1")
        if self.head_channels % 2:
            raise ValueError(f"head_channels is {self.head_channels}, expected even")
        if self.heads % self.key_value_heads:
            shared = f"{self.heads} heads, {self.key_value_heads} of keys and values"
            raise ValueError(f"{shared}: expected one number to divide the other")
        if not self.pattern:
            raise ValueError("pattern is empty, expected one letter a layer")


CONFIGS = {
    # For tests and cells that must answer at once.
    "tiny": ModelConfig(
        vocabulary=64,
        context=64,
        channels=32,
        heads=2,
        key_value_heads=1,
        head_channels=16,
        feed_forward=64,
        pattern="WF",
        window=8,
    ),
    # Chapter 1: trained in two minutes on two cores.
    "tour": ModelConfig(
        vocabulary=2048,
        context=512,
        channels=128,
        heads=4,
        key_value_heads=4,
        head_channels=32,
        feed_forward=512,
        pattern="WFWF",
        window=64,
    ),
    # The reference model of the book, 35M parameters.
    "cort33x": ModelConfig(
        vocabulary=8192,
        context=1024,
        channels=512,
        heads=6,
        key_value_heads=2,
        head_channels=64,
        feed_forward=2000,
        pattern="WWWF" * 3,
        window=256,
    ),
}
# Its control: the same numbers, parameters too, and every layer reads everything.
CONFIGS["uniform"] = replace(CONFIGS["cort33x"], pattern="F" * 12)
