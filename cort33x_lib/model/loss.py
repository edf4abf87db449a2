"""The loss, computed a few rows of logits at a time: they never exist as a whole.

For 16,384 tokens of vocabulary, the logits are by far the largest tensor of a training
step. Each chunk gives its part of the loss and of both gradients, and is forgotten.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 21  # logits held at once


class ChunkedLoss(torch.autograd.Function):
    """The sum of the losses; both gradients are found beside it."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        total = x.new_zeros((), dtype=precise)
        wanted = context.needs_input_grad
        x_gradient = torch.empty_like(x) if wanted[0] else None
        weight_gradient = torch.zeros_like(weight) if wanted[1] else None
        rows = max(CHUNK // len(weight), 1)
        for start in range(0, len(x), rows):
            part, target = x[start : start + rows], targets[start : start + rows]
            counted = target != -100
            logits = (part @ weight.T).to(precise)  # (rows, V)
            place = target.clamp(min=0).unsqueeze(1)  # (rows, 1)
            right = logits.gather(1, place)
            top = logits.amax(1, keepdim=True)
            mass = logits.sub_(top).exp_().sum(1, keepdim=True)  # (rows, 1)
            total += (mass.log() + top - right).squeeze(1)[counted].sum()
            if not any(wanted):
                continue
            logits *= counted.unsqueeze(1) / mass  # probabilities, then less one
            logits.scatter_add_(1, place, -counted.unsqueeze(1).to(logits.dtype))
            logits = logits.to(x.dtype)
            if wanted[0]:
                torch.mm(logits, weight, out=x_gradient[start : start + rows])
            if wanted[1]:
                weight_gradient.addmm_(logits.T, part)
        context.save_for_backward(x_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(context: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        saved = context.saved_tensors
        return *(None if x is None else x.mul_(given) for x in saved), None


def chunked_loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the targets, in nats per token.

    (N, C), (V, C), (N,) -> (). A target of -100 is not counted. Equal to cross-entropy
    over `x @ weight.T`: Wijmans et al. (2024), Cut Your Losses. Under autocast, the
    matrix products are in half precision and all else in float32.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    count = (targets != -100).sum()
    return ChunkedLoss.apply(x, weight, targets) / count
