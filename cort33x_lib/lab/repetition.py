"""What a sample repeats: itself, other samples, or the text that it was trained on.

All three count n-grams, runs of n tokens. Left out: meaning; a story told in other
words counts as new.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from cort33x_lib.text.batches import Tokens


def grams(ids: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Each run of n ids as one 64-bit number: (tokens,) -> (tokens - n + 1,) uint64.

    Different runs get the same number about once in 2**64 pairs: Karp and Rabin (1987).
    """
    ids = np.asarray(ids, dtype=np.uint64) + np.uint64(1)
    count = max(len(ids) - n + 1, 0)
    numbers = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        numbers = numbers * np.uint64(0x9E3779B97F4A7C15) + ids[place : place + count]
        numbers ^= numbers >> np.uint64(29)
    return numbers


def distinct(samples: Iterable[Sequence[int]], n: int) -> float:
    """The share of different n-grams among all n-grams of the samples, from 0 to 1.

    Li et al. (2016), distinct-n. 1 where there is no n-gram.
    """
    numbers = np.concatenate([grams(ids, n) for ids in samples])
    return len(np.unique(numbers)) / len(numbers) if len(numbers) else 1.0


def repeated(samples: Iterable[Sequence[int]], n: int) -> float:
    """The share of n-grams that their own sample has had before, from 0 to 1.

    Welleck et al. (2020), over all samples together; a loop comes near 1.
    """
    numbers = [grams(ids, n) for ids in samples]
    total = sum(map(len, numbers))
    return 1 - sum(len(np.unique(one)) for one in numbers) / total if total else 0.0


class Copies:
    """Finds what samples share with training text, run by run of n tokens.

    Raises ValueError for a training text of fewer tokens.
    """

    def __init__(self, training: Tokens, n: int):
        if not 1 <= n <= len(training.ids):
            raise ValueError(f"n is {n}, expected 1 to {len(training.ids)}, the tokens")
        self.n = n
        self._known = np.unique(grams(training.ids, n))

    def copied(self, ids: Sequence[int]) -> np.ndarray:
        """Which tokens stand in a run of n that the training text has: (tokens,) bool.

        Left out: where the run stood; sources repeat themselves.
        """
        numbers, inside = grams(ids, self.n), np.zeros(len(ids) + 1, dtype=np.int64)
        place = np.searchsorted(self._known, numbers).clip(max=len(self._known) - 1)
        found = np.flatnonzero(self._known[place] == numbers)
        np.add.at(inside, found, 1)
        np.add.at(inside, found + self.n, -1)
        return inside[:-1].cumsum() > 0

    def share(self, samples: Iterable[Sequence[int]]) -> float:
        """The share of tokens in copied runs, over all samples, from 0 to 1."""
        marks = np.concatenate([self.copied(ids) for ids in samples])
        return float(marks.mean()) if len(marks) else 0.0
