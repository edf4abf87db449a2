"""What stands around a mixer: the norm, the feed-forward layer, the block.

Chosen: a backward pass of our own for the feed-forward layer, which keeps less than the
operations it is made of, and tensors that are made again instead of kept. Left out:
biases, dropout, second derivatives.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.mixers import make_mixer
from cort33x_lib.model.norm import Norm, keeps_little

WORTH_IT = 1 << 20  # bytes of a tensor from which it is made again and not kept


class WeightedSum(torch.autograd.Function):
    """Two tensors of one shape, each times a number of its own, in one sum.

    (..., C), (..., C), (2,) -> (..., C)
    """

    @staticmethod
    def forward(context: Any, x: Tensor, first: Tensor, shares: Tensor) -> Tensor:
        context.save_for_backward(x, first, shares)
        return (shares[0] * x).addcmul_(shares[1], first)

    @staticmethod
    @once_differentiable
    def backward(context: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, first, shares = context.saved_tensors
        along = [given.flatten().dot(one.flatten()) for one in (x, first)]
        return shares[0] * given, shares[1] * given, torch.stack(along)


def mix(x: Tensor, first: Tensor, shares: Tensor) -> Tensor:
    """Two tensors of one shape, each times a number of its own, in one sum.

    (..., C), (..., C), (2,) -> (..., C)
    """
    if keeps_little(x):
        return WeightedSum.apply(x, first, shares)
    return shares[0] * x + shares[1] * first


def made_again(made: Tensor, make: Callable[[], Tensor]) -> AbstractContextManager:
    """A context in which nothing is kept of a tensor, because `make` makes it again.

    What operations in the context put aside of it for their backward passes is only
    where it lay: Chen et al. (2016), for what costs little work and much memory. A
    tensor below `WORTH_IT` is kept.
    """
    if not made.requires_grad or not keeps_little(made) or made.nbytes < WORTH_IT:
        return nullcontext()
    place = made.untyped_storage().data_ptr()

    def pack(kept: Tensor) -> Tensor | tuple:
        if kept.untyped_storage().data_ptr() != place:
            return kept
        return kept.shape, kept.stride(), kept.storage_offset()

    def unpack(kept: Tensor | tuple) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.enable_grad():  # the way that it was made
            return make().detach().as_strided(*kept)

    return saved_tensors_hooks(pack, unpack)


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
        x, widen, narrow, middle = (
            part.flatten(0, -2) for part in context.saved_tensors
        )
        rows, wide = given.flatten(0, -2), middle.square()  # (N, C), (N, F)
        narrow_gradient = rows.T @ wide
        slope = torch.addmm(wide, rows, narrow, beta=0, alpha=2, out=wide).mul_(middle)
        widen_gradient = slope.T @ x
        return (slope @ widen).view_as(given), widen_gradient, narrow_gradient


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

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        first: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """(B, T, C) -> (B, T, C) and the mixer's state after the last token.

        With `shares` (2,), the layer reads a mixture of `x` and `first` instead of `x`.
        """
        before = x

        def mixture() -> Tensor:
            return before if shares is None else mix(before, first, shares)

        x = mixture()
        with made_again(x, mixture):
            normed = self.mixer_norm(x)
        with made_again(normed, lambda: self.mixer_norm(mixture())):
            mixed, state = self.mixer(normed, state)
        x = x + mixed
        normed = self.feed_forward_norm(x)
        with made_again(normed, lambda: self.feed_forward_norm(x)):
            return x + self.feed_forward(normed), state
