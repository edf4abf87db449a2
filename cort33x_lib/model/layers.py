"""What stands around a mixer: the norm, the feed-forward layer, the block."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.mixers import make_mixer


class Norm(nn.Module):
    """Scale each token to root mean square one, then each channel by a learned gain.

    (B, T, C) -> (B, T, C). Zhang and Sennrich (2019), RMSNorm.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.gain.shape, self.gain)


class FeedForward(nn.Module):
    """Widen each token, keep the square of what is positive, narrow it again.

    (B, T, C) -> (B, T, C). Squared ReLU: So et al. (2021), Primer.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.widen = nn.Linear(config.channels, config.feed_forward, bias=False)
        self.narrow = nn.Linear(config.feed_forward, config.channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(x).relu().square())


class Block(nn.Module):
    """One layer: tokens read each other, then each thinks for itself."""

    def __init__(self, letter: str, config: ModelConfig):
        super().__init__()
        self.mixer_norm = Norm(config.channels)
        self.mixer = make_mixer(letter, config)
        self.feed_forward_norm = Norm(config.channels)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, T, C) -> (B, T, C) and the mixer's state after the last token."""
        mixed, state = self.mixer(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), state
