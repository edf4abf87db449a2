"""Optimizers: from gradients to the next weights.

Chosen: AdamW as in its paper, by PyTorch's fused kernel where the device has one, which
does the same arithmetic in fewer passes; Muon for the matrices of the blocks. Each
group of weights has `rate_scale`: its learning rate is that many times the schedule's.
Left out: other optimizers, and the base class of `torch.optim`, whose first object
loads PyTorch's compiler, and holds its memory until the process ends.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cort33x_lib.training.recipe import Recipe

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the polynomial in `orthogonalise`
STACK = 1 << 21  # numbers of matrices of one shape that are made orthogonal together
FUSED = {"cpu", "cuda", "mps", "xpu"}  # devices that have a fused AdamW


class Optimizer:
    """Groups of weights with their numbers, and what is remembered of each weight.

    Both are named as in `torch.optim`. A group has `params`, a list of weights, and
    maybe numbers of its own; weights alone are one group.
    """

    def __init__(self, groups: Iterable[dict | Tensor], **numbers: Any):
        groups = [*groups]
        if all(isinstance(one, Tensor) for one in groups):
            groups = [{"params": groups}]
        self.param_groups = [numbers | group for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self) -> None:
        """Forget the gradients, and free their memory."""
        for group in self.param_groups:
            for weights in group["params"]:
                weights.grad = None


class Descent(Optimizer):
    """Plain gradient descent: nothing is remembered."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    weights.sub_(weights.grad, alpha=group["lr"])


class AdamW(Optimizer):
    """Steps of about one learning rate for every weight; decay beside the gradient.

    Kingma and Ba (2015), Loshchilov and Hutter (2019). Of each weight it remembers
    `exp_avg` and `exp_avg_sq`, and of each tensor its `step`, as `torch.optim.AdamW`.
    """

    def __init__(
        self,
        groups: Iterable[dict | Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def memory(self, weights: Tensor) -> dict[str, Tensor]:
        """What is remembered of a weight; zeros when it is met first."""
        state = self.state[weights]
        if not state:
            state["step"] = torch.zeros((), device=weights.device)
            state["exp_avg"] = torch.zeros_like(weights)
            state["exp_avg_sq"] = torch.zeros_like(weights)
        return state

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            rate, (keep, keep_square) = group["lr"], group["betas"]
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                state = self.memory(weights)
                state["step"] += 1
                age = state["step"].item()
                mean = state["exp_avg"].lerp_(weights.grad, 1 - keep)
                square = state["exp_avg_sq"].mul_(keep_square)
                square.addcmul_(weights.grad, weights.grad, value=1 - keep_square)
                size = (square / (1 - keep_square**age)).sqrt_().add_(group["eps"])
                weights.mul_(1 - rate * group["weight_decay"])
                weights.addcdiv_(mean, size, value=-rate / (1 - keep**age))


class FusedAdamW(AdamW):
    """The same steps in one pass over the memory, by a kernel of PyTorch."""

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            given = [one for one in group["params"] if one.grad is not None]
            if not given:
                continue
            states = [self.memory(one) for one in given]
            steps, means, squares = (
                [state[name] for state in states]
                for name in ("step", "exp_avg", "exp_avg_sq")
            )
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                given, [one.grad for one in given], means, squares, [], steps,
                lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
                weight_decay=group["weight_decay"], eps=group["eps"],
                amsgrad=False, maximize=False,
            )  # fmt: skip


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """About the nearest matrix whose singular values are all one.

    (..., M, N) -> (..., M, N). Newton-Schulz iteration: Jordan et al. (2024), Muon. All
    rounds happen in the smaller square, so the long side is met only twice. Not so in
    bfloat16: what its square rounds away comes back as huge singular values.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.dtype == torch.bfloat16:
        for _ in range(rounds):
            square = x @ x.mT
            x = a * x + (b * square + c * square @ square) @ x
        return x.mT if tall else x
    square, product = x @ x.mT, None
    for _ in range(rounds):
        factor = b * square + c * square @ square
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        square = factor @ square @ factor
    x = product @ x
    return x.mT if tall else x


def stacks(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The weights that have one shape together, at most STACK numbers at a time."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for one in weights:
        shapes.setdefault(one.shape, []).append(one)
    for alike in shapes.values():
        most = max(STACK // alike[0].numel(), 1)
        for first in range(0, len(alike), most):
            yield alike[first : first + most]


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal before it is taken as the update.

    Jordan et al. (2024). The update of a matrix (M, N) is scaled by
    max(1, M / N) ** 0.5. Decay is that of AdamW. Matrices are made orthogonal in
    `dtype`, or in that of the weights; momentum has the latter.
    """

    def __init__(
        self,
        groups: Iterable[dict | Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ):
        self.dtype = dtype
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            given = [one for one in group["params"] if one.grad is not None]
            rate, keep = group["lr"], group["momentum"]
            for weights in stacks(given):
                ahead = torch.stack([self.look_ahead(one, keep) for one in weights])
                size = max(1.0, ahead.size(-2) / ahead.size(-1)) ** 0.5
                updates = orthogonalise(ahead.to(self.dtype or ahead.dtype))
                for one, update in zip(weights, updates, strict=True):
                    one.mul_(1 - rate * group["weight_decay"])
                    one.add_(update, alpha=-rate * size)

    def look_ahead(self, weights: Tensor, keep: float) -> Tensor:
        """The mean gradient as the next step would see it, if it met the same one."""
        state = self.state[weights]
        if not state:
            state["momentum"] = torch.zeros_like(weights)
        mean = state["momentum"].lerp_(weights.grad, 1 - keep)
        return weights.grad.lerp(mean, keep)


class Together:
    """Several optimizers, each with weights of its own, handled as one."""

    def __init__(self, parts: list[Optimizer]):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict]:
        """The groups of all parts."""
        return list(chain(*(part.param_groups for part in self.parts)))

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()


def states(optimizer: Optimizer | Together) -> dict[Tensor, dict[str, Tensor]]:
    """What is remembered of each weight tensor; to be changed in place."""
    parts = optimizer.parts if isinstance(optimizer, Together) else [optimizer]
    return {
        weights: part.state[weights]
        for part in parts
        for group in part.param_groups
        for weights in group["params"]
    }


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer | Together:
    """The recipe's optimizer, its weights in groups: matrices decay, others do not.

    The embedding is a table, one row a token, and does not decay; nor do the numbers
    that mix the residual stream. Loshchilov and Hutter (2019).
    """
    matrices, others = [], []
    for name, weights in model.named_parameters():
        decays = name.endswith(".weight") and not name.startswith("embedding")
        (matrices if decays else others).append(weights)
    decaying = {"params": matrices, "weight_decay": recipe.decay}
    level = {"params": others, "weight_decay": 0.0, "rate_scale": 1.0}
    if recipe.optimizer == "adamw":
        return adamw([decaying | {"rate_scale": 1.0}, level], recipe)
    scale = recipe.matrix_rate / recipe.peak_rate
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
    muon = Muon([decaying | {"rate_scale": scale}], recipe.matrix_rate, dtype=dtype)
    return Together([muon, adamw([level], recipe)])


def adamw(groups: list[dict], recipe: Recipe) -> AdamW:
    """AdamW over groups, by the fused kernel if the device of every weight has it."""
    devices = {one.device.type for group in groups for one in group["params"]}
    kind = FusedAdamW if devices <= FUSED else AdamW
    return kind(groups, recipe.peak_rate, recipe.betas)
