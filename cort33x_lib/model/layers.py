"""What stands around a mixer: the norm, the feed-forward layer, the block.

Chosen: backward passes of our own for norm and feed-forward, which keep less for later
than the operations they are made of. Left out: biases, dropout, second derivatives.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.mixers import make_mixer


class ScaleToOne(torch.autograd.Function):
    """Each token divided by its root mean square, then times a gain for each channel.

    (..., C), (C,) -> (..., C). Keeps the input and one number a token.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, gain: Tensor) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
        scale = (square / x.size(-1) + torch.finfo(x.dtype).eps).rsqrt()  # (..., 1)
        context.save_for_backward(x, gain, scale)
        return (x * scale).mul_(gain)

    @staticmethod
    @once_differentiable
    def backward(context: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        x, gain, scale = context.saved_tensors
        unit = x * scale  # (..., C)
        gain_gradient = (given * unit).flatten(0, -2).sum(0)  # (C,)
        slope = given * gain
        along = (slope * unit).mean(-1, keepdim=True)  # (..., 1)
        return slope.sub_(unit.mul_(along)).mul_(scale), gain_gradient


class SquaredReLU(torch.autograd.Function):
    """Widen each token, keep the square of what is positive, narrow it again.

    (..., C), (F, C), (C, F) -> (..., C). Keeps the wide middle once, not twice.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, widen: Tensor, narrow: Tensor) -> Tensor:
        middle = (x @ widen.T).relu_()  # (..., F)
        context.save_for_backward(x, widen, narrow, middle)
        return middle.square() @ narrow.T

    @staticmethod
    @once_differentiable
    def backward(context: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, widen, narrow, middle = context.saved_tensors
        slope = (given @ narrow).mul_(middle).mul_(2)  # (..., F)
        rows = given.flatten(0, -2)  # (N, C)
        narrow_gradient = rows.T @ middle.square().flatten(0, -2)
        widen_gradient = slope.flatten(0, -2).T @ x.flatten(0, -2)
        return slope @ widen, widen_gradient, narrow_gradient


def keeps_little(x: Tensor) -> bool:
    """Whether to take the backward passes above: there will be one, in one dtype."""
    return torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


class Norm(nn.Module):
    """Scale each token to root mean square one, then each channel by a learned gain.

    (B, T, C) -> (B, T, C). Zhang and Sennrich (2019), RMSNorm.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if keeps_little(x):
            return ScaleToOne.apply(x, self.gain)
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
        if keeps_little(x):
            return SquaredReLU.apply(x, self.widen.weight, self.narrow.weight)
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
