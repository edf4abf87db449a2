"""Where the four random generators of a process stand, as tensors.

The book's own batches and models draw from generators of their own, made from a seed.
These four are what everything else in a process draws from: dropout, a shuffle, a
sample. Left out: a generator that somebody made and kept.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def random_states() -> dict[str, Tensor]:
    """The states of Python's, NumPy's and PyTorch's generators, and of each GPU's.

    "cuda/0" and on are there where this process uses a GPU.
    """
    _, numbers, spare = random.getstate()
    _, keys, place, has_normal, normal = np.random.get_state()
    states = {
        "python": torch.tensor(numbers),  # 624 numbers and the place among them
        "python/spare": torch.tensor(
            [] if spare is None else [spare], dtype=torch.float64
        ),
        "numpy": torch.tensor([*keys.tolist(), place, has_normal]),
        "numpy/spare": torch.tensor([normal], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda/{number}"] = state
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put the generators where `random_states` found them; those of GPUs that are here.

    Raises KeyError, TypeError, ValueError or RuntimeError for what are no such states.
    """
    spare = states["python/spare"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), spare[0] if spare else None))
    *keys, place, has_normal = states["numpy"].tolist()
    normal = states["numpy/spare"].item()
    np.random.set_state(("MT19937", keys, place, has_normal, normal))
    torch.set_rng_state(states["torch"].clone())
    if torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            if f"cuda/{number}" in states:
                torch.cuda.set_rng_state(states[f"cuda/{number}"].clone(), number)


@contextmanager
def undrawn_on_failure() -> Iterator[None]:
    """Put the generators back when the block fails, as if it had drawn nothing."""
    python, numpy, torch_state = (
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
    )
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    except BaseException:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
        torch.cuda.set_rng_state_all(gpus)
        raise
