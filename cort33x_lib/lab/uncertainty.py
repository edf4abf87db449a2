"""Uncertainty: how far a score would move had other documents been held out.

Documents are drawn again with replacement (Efron 1979), because tokens of one document
are alike and documents are not. This is the noise of the examination alone; a model
trained again, with another seed, differs for reasons of its own.
"""

from math import log
from statistics import NormalDist

import numpy as np

from cort33x_lib.lab.evaluation import Evaluation


def score_interval(
    score: Evaluation, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Where the bits per byte lie in the middle `level` of all draws of documents."""
    nats, nbytes = redraw(_documents(score), draws, seed).T
    return _middle(nats / log(2) / nbytes, level)


def score_difference(
    one: Evaluation,
    other: Evaluation,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How many bits per byte `one` needs more than `other`, and the interval of that.

    Each draw takes the same documents for both: what makes a document hard for both
    cancels. Raises ValueError for evaluations of different documents.
    """
    nats, nbytes = redraw(_paired(one, other), draws, seed).T
    found = one.bits_per_byte - other.bits_per_byte
    return found, *_middle(nats / log(2) / nbytes, level)


def detectable_difference(
    one: Evaluation,
    other: Evaluation,
    documents: int | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """The smallest true difference in bits per byte that so many documents show.

    Shown means: the paired interval leaves out 0 in a share `power` of all cases.
    The spread of the differences is taken from two evaluations of like models.
    """
    pairs = _paired(one, other) / [log(2), 1]
    bits, nbytes = pairs.T
    spread = (bits - bits.sum() / nbytes.sum() * nbytes).std(ddof=1) / nbytes.mean()
    normal = NormalDist()
    errors = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return float(errors * spread / (documents or len(pairs)) ** 0.5)


def redraw(rows: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums of N rows drawn with replacement, so many times: (N, K) -> (draws, K)."""
    random = np.random.default_rng(seed)
    return np.array(
        [rows[random.integers(len(rows), size=len(rows))].sum(0) for _ in range(draws)]
    )


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _documents(score: Evaluation) -> np.ndarray:
    if score.by_document is None:
        raise ValueError(f"{score}: expected one that keeps nats by document")
    return score.by_document


def _paired(one: Evaluation, other: Evaluation) -> np.ndarray:
    first, second = _documents(one), _documents(other)
    if not np.array_equal(first[:, 1], second[:, 1]):
        raise ValueError(
            f"{len(first)} and {len(second)} documents, or of other sizes: expected"
            " two evaluations of the same documents"
        )
    return np.column_stack([first[:, 0] - second[:, 0], first[:, 1]])
