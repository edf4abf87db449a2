"""Rotary positions: turn queries and keys by an angle that grows with position.

Chosen: pairs are (i, i + D/2), base 10,000. Left out: scaling to longer contexts.
"""

import torch
from torch import Tensor


def rotary_angles(start: Tensor, tokens: int, head_channels: int) -> Tensor:
    """The angle in radians of each position and channel pair.

    (B,) -> (B, T, D/2), for positions start, start + 1, ... Su et al. (2021), RoFormer.
    """
    pair = torch.arange(head_channels // 2, dtype=torch.float64)
    speeds = 10_000.0 ** (-2 * pair / head_channels)  # (D/2,)
    positions = start.unsqueeze(1) + torch.arange(tokens)  # (B, T)
    return positions.unsqueeze(2) * speeds  # (B, T, D/2)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each channel pair of each token by its angle; lengths stay the same.

    (B, H, T, D), (B, T, D/2) -> (B, H, T, D)
    """
    cosine = angles.cos().unsqueeze(1).to(x.device, x.dtype)  # (B, 1, T, D/2)
    sine = angles.sin().unsqueeze(1).to(x.device, x.dtype)  # (B, 1, T, D/2)
    left, right = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
    turned = (left * cosine - right * sine, left * sine + right * cosine)
    return torch.cat(turned, dim=-1)  # (B, H, T, D)
