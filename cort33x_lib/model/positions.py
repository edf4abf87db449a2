"""Rotary positions: turn queries and keys by an angle that grows with position.

Chosen: pairs are (i, i + D/2), base 10,000; angles are found once for all layers.
Left out: scaling to longer contexts.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(4)
def rotary_table(starts: tuple[int, ...], tokens: int, head_channels: int) -> Tensor:
    """Cosine and sine of each position's angles, for rows that begin at `starts`.

    -> (B, 2, 1, T, D/2), float64. The last four answers are kept: all layers of a step
    ask for the same one.
    """
    with torch.inference_mode(False):  # whoever asks first, all may take gradients
        pair = torch.arange(head_channels // 2, dtype=torch.float64)
        speeds = 10_000.0 ** (-2 * pair / head_channels)  # (D/2,), radians a token
        positions = torch.tensor(starts).unsqueeze(1) + torch.arange(tokens)  # (B, T)
        angles = positions[:, None, :, None] * speeds  # (B, 1, T, D/2)
        return torch.stack([angles.cos(), angles.sin()], dim=1)  # (B, 2, 1, T, D/2)


def rotary_angles(start: Tensor, tokens: int, head_channels: int) -> Tensor:
    """The angle of each position and channel pair, as its cosine and sine.

    (B,) -> (B, 2, 1, T, D/2), for positions start, start + 1, ... A batch whose rows
    all start at one place gets a single row for all. Su et al. (2021), RoFormer.
    """
    starts = start.tolist()
    if len(set(starts)) == 1:
        del starts[1:]
    return rotary_table(tuple(starts), tokens, head_channels)


class Rotation(torch.autograd.Function):
    """Turns pairs of channels; the gradient is turned back by the same angles."""

    @staticmethod
    def forward(context: Any, x: Tensor, angles: Tensor, way: int) -> Tensor:
        context.save_for_backward(angles)
        context.way = way
        cosine, sine = angles.to(x.device, x.dtype).unbind(1)  # (B, 1, T, D/2) each
        cosine, sine = torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)
        turned = x * cosine
        other = x.roll(x.size(-1) // 2, dims=-1)  # the second of a pair, and the first
        return turned.addcmul_(other, sine, value=way)

    @staticmethod
    def backward(context: Any, given: Tensor) -> tuple[Tensor, None, None]:
        return Rotation.apply(given, *context.saved_tensors, -context.way), None, None


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each channel pair of each token by its angle; lengths stay the same.

    (B, H, T, D), angles of `rotary_angles` -> (B, H, T, D)
    """
    return Rotation.apply(x, angles, 1)
