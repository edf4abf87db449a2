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
    nats, nbytes = redraw(by_document(score), draws, seed).T
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(nats / log(2) / nbytes, ends).tolist()
    return low, high


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
    first, second, nbytes = redraw(by_document(one, other), draws, seed).T
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile((first - second) / log(2) / nbytes, ends).tolist()
    return one.bits_per_byte - other.bits_per_byte, low, high


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
    first, second, nbytes = by_document(one, other).T
    bits = (first - second) / log(2)
    rest = bits - bits.sum() / nbytes.sum() * nbytes
    spread = rest.std(ddof=1) / nbytes.mean()
    normal = NormalDist()
    errors = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return float(errors * spread / (documents or len(bits)) ** 0.5)


def student_quantile(freedom: int, level: float) -> float:
    """How far from 0 the middle `level` of Student's t reaches, to about 4 digits.

    With t = freedom ** 0.5 * tan(angle), the angles have a density of cos(angle) to the
    power freedom - 1.
    """
    angles = np.linspace(0, np.pi / 2, 100_001)
    heights = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0], np.cumsum(heights[1:] + heights[:-1])])
    angle = np.interp(level, mass / mass[-1], angles)
    return float(freedom**0.5 * np.tan(angle))


def redraw(rows: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums of N rows drawn with replacement, so many times: (N, K) -> (draws, K)."""
    random = np.random.default_rng(seed)
    return np.array(
        [rows[random.integers(len(rows), size=len(rows))].sum(0) for _ in range(draws)]
    )


def by_document(*scores: Evaluation) -> np.ndarray:
    """The nats of each document under each of K scores, then its bytes: (N, K + 1)."""
    kept = [score.by_document for score in scores]
    if any(rows is None for rows in kept):
        raise ValueError(f"{scores}: expected evaluations that keep nats by document")
    sizes = kept[0][:, 1]
    if not all(np.array_equal(rows[:, 1], sizes) for rows in kept):
        raise ValueError(
            f"{[len(rows) for rows in kept]} documents, or of other sizes: expected"
            " evaluations of the same documents"
        )
    return np.column_stack([*(rows[:, 0] for rows in kept), sizes])
