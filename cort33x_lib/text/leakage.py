"""How much of a held-out text can be read in the training text already.

Two texts that share 13 words in a row share them because one was copied from the other
or both from a third; by chance it hardly ever happens. Thirteen is the length that
Brown et al. (2020) took for GPT-3. Left out: copies with words changed, which near
duplicates are looked for by other means.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

WORD_OR_SYMBOL = re.compile(r"\w+|[^\w\s]")
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


def leaked_shares(
    training: Iterable[str], held_out: Sequence[str], n: int = 13
) -> np.ndarray:
    """The share of the n-grams of each held-out text that occur in a training text.

    (N,) float64 for N held-out texts. An n-gram is n words and symbols in a row, spaces
    between them left out; a text with fewer is one n-gram, an empty one leaks nothing.
    n-grams are compared by 64-bit hashes. Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    known = [hashed_n_grams(text, n) for text in training]
    seen = np.sort(np.concatenate([np.empty(0, np.uint64), *known]))
    shares = np.zeros(len(held_out))  # (N,)
    for place, text in enumerate(held_out):
        wanted = np.sort(hashed_n_grams(text, n))  # quicker to look up
        if len(wanted) and len(seen):
            nearest = np.searchsorted(seen, wanted).clip(max=len(seen) - 1)
            shares[place] = (seen[nearest] == wanted).mean()
    return shares


def hashed_n_grams(text: str, n: int) -> np.ndarray:
    """One number for each n words and symbols in a row: (count,) uint64."""
    words = np.array(list(map(hash, WORD_OR_SYMBOL.findall(text))), np.int64)
    words = words.view(np.uint64)
    count = max(len(words) - n + 1, min(len(words), 1))
    total = np.zeros(count, np.uint64)
    for start in range(min(n, len(words))):
        total = total * FACTOR + words[start : start + count]  # modulo 2**64
    return total * FACTOR + np.uint64(min(n, len(words)))
