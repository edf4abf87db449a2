"""Matrices in a quarter of the bytes: whole numbers from -127 to 127, a scale a row.

Chosen: symmetric, the largest weight of a row becomes 127, rounded to the nearest, as
in Dettmers et al. (2022) without their exceptions; numba multiplies a few rows, and
without it, or for more of them, float32 is made first. Left out: 4 bits, whole numbers
for what flows through the model.
"""

from functools import cache
from threading import Lock
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.transformer import Transformer

FEW = 4  # rows up to which reading int8 is faster than making float32
ONE_AT_A_TIME = Lock()  # some of numba's pools of threads take no second caller


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


@cache
def _kernels() -> ModuleType | None:
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    from cort33x_lib.model import compiled_decoding

    return compiled_decoding


def compiled() -> ModuleType | None:
    """The compiled products, on as many cores as PyTorch uses; None without numba.

    Call them under ONE_AT_A_TIME.
    """
    if _kernels():
        import numba

        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        torch.set_num_threads(threads)  # which numba's start may change
    return _kernels()


class Int8Matrix(nn.Module):
    """The weights of a linear layer or a table, kept as int8 and read as float32."""

    def __init__(self, weights: Tensor):
        super().__init__()
        numbers, scales = quantise(weights)
        self.register_buffer("numbers", numbers)  # (N, K)
        self.register_buffer("scales", scales)  # (N,)

    @property
    def weight(self) -> Tensor:
        """The float32 weights, made anew: (N, K)."""
        return dequantise(self.numbers, self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """The linear layer: (..., K) -> (..., N)."""
        rows = x.reshape(-1, x.size(-1))
        few = len(rows) <= FEW and x.device.type == "cpu" and x.dtype == torch.float32
        kernels = compiled() if few else None
        if kernels is None:
            return F.linear(x, self.weight.to(x.dtype))
        product = torch.empty(len(rows), len(self.scales))
        arrays = (rows.detach().contiguous(), self.numbers, self.scales, product)
        with ONE_AT_A_TIME:
            kernels.multiply_rows(*(array.numpy() for array in arrays))
        return product.view(*x.shape[:-1], -1)


class Int8Table(Int8Matrix):
    """The embedding, tied to the head."""

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of some ids: (B, T) -> (B, T, K)."""
        return self.numbers[ids].float() * self.scales[ids].unsqueeze(-1)


class Int8Transformer(Transformer):
    """A copy of a model that keeps its matrices in int8. It generates, it cannot learn.

    A token reads a quarter of the bytes, and that is what generating costs.
    """

    def __init__(self, model: Transformer):
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.embedding = Int8Table(self.embedding.weight)
        for part in list(self.modules()):
            for name, child in part.named_children():
                if isinstance(child, nn.Linear):
                    setattr(part, name, Int8Matrix(child.weight))

    def head(self, x: Tensor) -> Tensor:
        """Logits for the next token: (..., C) -> (..., V)."""
        return Int8Matrix.forward(self.embedding, x)
