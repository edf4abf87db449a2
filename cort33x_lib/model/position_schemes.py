"""Five ways to tell tokens where they stand, under one signature.

A scheme can speak in three places: it marks the embeddings, turns queries and keys, or
adds a bias to the scores. Chosen: one small class a scheme. Left out: reading on from
a state, which the mixers do with rotary positions.
"""

import torch
from torch import Tensor, nn

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.positions import rotary_angles, rotate

EMBEDDING_SIZE = 0.02  # standard deviation of a new embedding, and so of a new mark


def sinusoids(tokens: int, channels: int) -> Tensor:
    """Waves that run at another speed in each channel pair, read off at each position.

    -> (T, C), between -1 and 1. Vaswani et al. (2017).
    """
    start = torch.zeros(1, dtype=torch.int64)
    angles = rotary_angles(start, tokens, channels)  # (1, 2, 1, T, C/2)
    return angles.flatten(0, 2).flip(0).transpose(0, 1).flatten(1).float()  # (T, C)


def distance_bias(tokens: int, heads: int) -> Tensor:
    """What each head takes off a score for each token that lies between.

    -> (1, H, T, T), minus infinity for what comes later. Press et al. (2022), ALiBi.
    """
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)  # (H,)
    places = torch.arange(tokens)
    distance = places.unsqueeze(1) - places  # (T, T), query minus key
    bias = -slopes.view(1, -1, 1, 1) * distance  # (1, H, T, T)
    return bias.masked_fill(distance < 0, -torch.inf)


class NoPositions(nn.Module):
    """Says nothing; the order shows through the mask alone. Haviv et al. (2022)."""

    def __init__(self, config: ModelConfig):
        super().__init__()

    def mark(self, x: Tensor) -> Tensor:
        """The embeddings as the first layer gets them: (B, T, C) -> (B, T, C)."""
        return x

    def turn(self, x: Tensor) -> Tensor:
        """Queries or keys as they are compared: (B, H, T, D) -> (B, H, T, D)."""
        return x

    def bias(self, tokens: int) -> Tensor | None:
        """What is added to the scores, -> (1, H, T, T), if anything."""
        return None


class SinusoidalMarks(NoPositions):
    """Adds waves to the embeddings, their size learned. Vaswani et al. (2017)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.size = nn.Parameter(torch.tensor(2**0.5 * EMBEDDING_SIZE))

    def mark(self, x: Tensor) -> Tensor:
        return x + self.size * sinusoids(x.size(1), x.size(2)).to(x)


class LearnedMarks(NoPositions):
    """Adds a learned row for each position to the embeddings. Radford et al. (2019).

    Raises ValueError for a sequence longer than the table.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        seeded = torch.Generator().manual_seed(0)
        table = torch.randn(config.context, config.channels, generator=seeded)
        self.table = nn.Parameter(EMBEDDING_SIZE * table)

    def mark(self, x: Tensor) -> Tensor:
        if x.size(1) > len(self.table):
            raise ValueError(
                f"{x.size(1)} tokens, expected at most {len(self.table)}: "
                "the table has no row for the others"
            )
        return x + self.table[: x.size(1)]


class RotaryTurns(NoPositions):
    """Turns queries and keys, as the mixers of the book do. Su et al. (2021)."""

    def turn(self, x: Tensor) -> Tensor:
        start = torch.zeros(1, dtype=torch.int64)
        return rotate(x, rotary_angles(start, x.size(2), x.size(3)))


class DistanceBias(NoPositions):
    """Takes a little off a score for each token between. Press et al. (2022)."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.heads = config.heads

    def bias(self, tokens: int) -> Tensor:
        return distance_bias(tokens, self.heads)


SCHEMES = {
    "none": NoPositions,
    "sinusoidal": SinusoidalMarks,
    "learned": LearnedMarks,
    "rotary": RotaryTurns,
    "distance bias": DistanceBias,
}
