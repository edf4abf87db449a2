"""What is kept for the backward pass: as little as can be.

Chosen: what is made by little work is made again. Left out: whole layers made again.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def keeps_little(x: Tensor) -> bool:
    """Whether to take backward passes of our own: there will be one, in one dtype."""
    return torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


def made_again(*ways: tuple[Tensor, Callable[[], Tensor]]) -> AbstractContextManager:
    """A context in which nothing is kept of tensors that have a way to be made again.

    What operations in the context put aside of such a tensor for their backward passes
    is only where it lay, so it has to live as long as the context. Chen et al. (2016),
    for what costs little work and much memory.
    """
    if not all(made.requires_grad and keeps_little(made) for made, _ in ways):
        return nullcontext()
    makers = {made.untyped_storage().data_ptr(): make for made, make in ways}

    def pack(kept: Tensor) -> Tensor | tuple:
        make = makers.get(kept.untyped_storage().data_ptr())
        if make is None:
            return kept
        return make, kept.shape, kept.stride(), kept.storage_offset()

    def unpack(kept: Tensor | tuple) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        make, *view = kept
        with torch.enable_grad():  # the way that it was made
            return make().detach().as_strided(*view)

    return saved_tensors_hooks(pack, unpack)
