"""The norm over channels, with a backward pass of our own that keeps little.

Chosen: no mean is taken off, no bias added. Left out: second derivatives.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        product = given * unit
        gain_gradient = product.sum(dim=list(range(x.dim() - 1)))  # (C,)
        along = product.mul_(gain).mean(-1, keepdim=True)  # (..., 1)
        slope = torch.mul(given, gain, out=product)
        return slope.addcmul_(unit, along, value=-1).mul_(scale), gain_gradient


def keeps_little(x: Tensor) -> bool:
    """Whether to take backward passes of our own: there will be one, in one dtype."""
    return torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


def normalise(x: Tensor, gain: Tensor) -> Tensor:
    """Scale each token to root mean square one, then each channel by its gain.

    (..., C), (C,) -> (..., C). Zhang and Sennrich (2019), RMSNorm.
    """
    if keeps_little(x):
        return ScaleToOne.apply(x, gain)
    return F.rms_norm(x, gain.shape, gain)


class Norm(nn.Module):
    """`normalise` with a learned gain: (B, T, C) -> (B, T, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return normalise(x, self.gain)
