"""What is looked at before the first update: does the device compute, is the model new?

A run that starts wrongly is stopped at once, not after a night.
"""

from functools import cache
from math import exp, log

import torch
from torch import Tensor

from cort33x_lib.model.config import CONFIGS, ModelConfig
from cort33x_lib.model.transformer import Transformer, embedding_deviation
from cort33x_lib.training.optimizer import Descent
from cort33x_lib.training.step import MicroBatch, take_step

TOLERANCE = 1e-4  # between single precision on a device and double on the CPU
MARGIN = 0.05  # nats, for what the arithmetic of the first loss leaves out


class DeviceError(RuntimeError):
    """A device computes something else than the CPU does in double precision."""


class FirstLossError(ValueError):
    """The first loss is not that of a new model."""


def short_training(device: str, precision: torch.dtype) -> Tensor:
    """All weights of a tiny model after three training steps, in double precision.

    -> (parameters,). Weights and batch are made on the CPU, the same on each device.
    """
    model = Transformer(CONFIGS["tiny"]).to(device, precision)
    descent = Descent(model.parameters())
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        ids = torch.randint(0, 64, (4, 33), generator=generator)  # (B, T + 1)
        ids = ids.to(device)
        take_step(model, descent, [(ids[:, :-1], ids[:, 1:])], rate=0.1, clip=1.0)
    weights = [weights.detach().cpu().double() for weights in model.parameters()]
    return torch.cat([part.flatten() for part in weights])


def device_error(device: str) -> float:
    """The largest difference of any weight from the CPU's in double precision."""
    oracle = short_training("cpu", torch.float64)
    return (short_training(device, torch.float32) - oracle).abs().max().item()


@cache
def check_device(device: str) -> None:
    """Raise DeviceError unless a short training comes out right; once for each device.

    A device that fails is tried again when it is asked for again.
    """
    error = device_error(device)
    if not error <= TOLERANCE:
        raise DeviceError(
            f"three training steps on {device} are off by {error:.1e}, expected at most"
            f" {TOLERANCE:.0e}: it computes something else, do not train on it"
        )


def expected_first_loss(config: ModelConfig, batch: MicroBatch) -> tuple[float, float]:
    """The loss of a new model in nats per token, and its standard error.

    Every block still adds nothing, so a token's logits are its own row of the table,
    normed, times all rows, whose numbers have deviation d: normal with deviation
    s = d C ** 0.5, but d C for the token itself. So the loss is about
    ln(V exp(s ** 2 / 2) + exp(d C)), near ln V, less d C wherever a token follows
    itself. The pairs of a token and its follower are independent; the same pair always
    has the same logit.
    """
    inputs, targets = (ids.flatten().cpu() for ids in batch)
    counted = targets != -100
    inputs, targets = inputs[counted], targets[counted]
    own = embedding_deviation(config) * config.channels
    spread = own / config.channels**0.5
    others = (config.vocabulary - 1) * exp(spread**2 / 2)
    share = exp(own) / (others + exp(own))  # probability of the token itself
    repeated = (inputs == targets).double().mean().item()
    expected = log(others + exp(own)) - repeated * own
    pairs = inputs * config.vocabulary + targets
    squares = [
        deviation**2 * ids.unique(return_counts=True)[1].square().sum().item()
        for ids, deviation in ((pairs, spread), (inputs, share * spread / 2**0.5))
    ]
    return expected, sum(squares) ** 0.5 / len(inputs)


@torch.no_grad()
def check_first_loss(model: Transformer, batch: MicroBatch) -> None:
    """Raise FirstLossError unless a batch has the loss of a new model.

    That is: within 4 standard errors and 0.05 nats of `expected_first_loss`.
    """
    inputs, targets = batch
    if (inputs == targets).double().mean() > 0.5:
        raise FirstLossError(
            "most targets are the inputs themselves, expected the tokens that follow"
        )
    loss = model.loss(inputs, targets).item()
    expected, error = expected_first_loss(model.config, batch)
    width = 4 * error + MARGIN
    if abs(loss - expected) > width:
        reason = (
            "its weights are trained already"
            if loss < expected
            else "its weights are not new, or were trained with another vocabulary"
        )
        raise FirstLossError(
            f"first loss {loss:.3f} nats per token, expected {expected:.3f} +- "
            f"{width:.3f} with a vocabulary of {model.config.vocabulary}: {reason}"
        )
