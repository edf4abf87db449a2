"""Matrices in a quarter of the bytes: whole numbers from -127 to 127, a scale a row.

Chosen: symmetric, the largest weight of a row becomes 127, rounded to the nearest, as
in Dettmers et al. (2022) without their exceptions. Left out: 4 bits, whole numbers for
what flows through the model.
"""

import torch
from torch import Tensor, nn


def quantise(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers and the scale of each row: (N, K) -> (N, K) int8, (N,) float32.

    Off by at most half a scale. Quantised again, the numbers stay the same.
    """
    scales = weights.detach().float().abs().amax(dim=1) / 127  # (N,)
    scales = torch.where(scales == 0, 1.0, scales)
    numbers = (weights.detach().float() / scales.unsqueeze(1)).round()  # (N, K)
    return numbers.to(torch.int8), scales


def dequantise(numbers: Tensor, scales: Tensor) -> Tensor:
    """The weights that quantised numbers stand for: (N, K), (N,) -> (N, K) float32."""
    return numbers.float() * scales.unsqueeze(1)


def matrix_names(model: nn.Module) -> set[str]:
    """The names of the weights that int8 is for: matrices of linear layers, tables."""
    return {
        f"{name}.weight"
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | nn.Embedding)
    }
