"""What an optimizer remembers of each weight, by the weight's name, to save and recall.

By name and not by number, so that it is found again whatever the order of groups is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cort33x_lib.training.optimizer import Optimizer, Together
from cort33x_lib.training.tensor_file import CheckpointError, describe


def parts_of(optimizer: Optimizer | Together) -> list[Optimizer]:
    """The optimizers that it is made of; one, where it is one."""
    return optimizer.parts if isinstance(optimizer, Together) else [optimizer]


def remembered(model: nn.Module, optimizer: Optimizer | Together) -> dict[str, Tensor]:
    """What is remembered, by weight: "norm.gain/exp_avg" and so on, in this order."""
    names = {weights: name for name, weights in model.named_parameters()}
    found = {
        f"{names[weights]}/{key}": value
        for part in parts_of(optimizer)
        for weights, memory in part.state.items()
        for key, value in memory.items()
    }
    return dict(sorted(found.items()))


def recall(
    model: nn.Module, optimizer: Optimizer | Together, tensors: Mapping[str, Tensor]
) -> None:
    """Make an optimizer remember what `remembered` gave.

    Raises CheckpointError, nothing touched, for tensors that are not of its kind.
    """
    names = {weights: name for name, weights in model.named_parameters()}
    recalled, unknown = [], {*tensors}
    for part in parts_of(optimizer):
        kinds = blank_memory(part)
        for weights in (w for group in part.param_groups for w in group["params"]):
            places = {key: f"{names[weights]}/{key}" for key in kinds}
            if unknown.isdisjoint(places.values()):
                recalled.append((part.state, weights, {}))
                continue  # a frozen weight, or no step was taken yet
            for key, place in places.items():
                like = weights.new_empty(()).float() if kinds[key] else weights
                if place not in tensors or describe(tensors[place]) != describe(like):
                    found = describe(tensors[place]) if place in tensors else "missing"
                    raise CheckpointError(
                        f"{place} is {found}, expected {describe(like)}"
                    )
            unknown -= {*places.values()}
            recalled.append((part.state, weights, places))
    if unknown:
        raise CheckpointError(f"{min(unknown)} is unknown to the optimizer")
    for state, weights, places in recalled:
        state[weights] = {
            key: tensors[place].to(weights.device, copy=True)
            for key, place in places.items()
        }


def blank_memory(part: Optimizer) -> dict[str, bool]:
    """What a kind of optimizer remembers of a matrix: names, and which are one number.

    Found by letting one of its kind take a step that changes nothing.
    """
    weights = torch.zeros(2, 2, requires_grad=True)
    weights.grad = torch.zeros(2, 2)
    twin = type(part)([{"params": [weights]}], lr=0.0)
    twin.step()
    return {key: value.dim() == 0 for key, value in twin.state[weights].items()}
