"""What a vocabulary of a given size does to a text, and what it leaves unused.

Merges are learnt one after another, so the first merges of one training are the
tokenizer of a smaller vocabulary: one training gives the whole ladder. Left out: pieces
chosen by a likelihood (Kudo 2018), whose vocabularies are not nested.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cort33x_lib.text.tokenizer import Tokenizer


def truncated(tokenizer: Tokenizer, vocabulary: int) -> Tokenizer:
    """The tokenizer that training with this smaller `vocabulary` would have given.

    Raises ValueError for a vocabulary that the tokenizer does not hold.
    """
    least = tokenizer.vocabulary - len(tokenizer.merges)
    if not least <= vocabulary <= tokenizer.vocabulary:
        raise ValueError(
            f"vocabulary {vocabulary}: expected {least} to {tokenizer.vocabulary}"
        )
    merges = tokenizer.merges[: vocabulary - least]
    return Tokenizer(merges, tokenizer.special_names, tokenizer.pattern)


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """The mean length of a token in bytes of UTF-8, over all the texts together.

    No end tokens are counted. Raises ValueError when the texts hold nothing.
    """
    count = nbytes = 0
    for text in texts:
        count += len(tokenizer.encode_array(text))
        nbytes += len(text.encode("utf-8"))
    if not count:
        raise ValueError("the texts hold no token: expected at least one letter")
    return nbytes / count


@dataclass(frozen=True, eq=False)
class Health:
    """How often each token occurs in some text, and which rows that leaves idle.

    Shapes: counts (V,) int64; joined (V,) bool, true where a longer token is made of
    this one. A token is hardly seen when it occurs, but fewer than `least` times.
    """

    counts: np.ndarray
    joined: np.ndarray
    least: int

    @property
    def never(self) -> np.ndarray:
        """The ids that do not occur: (N,)."""
        return np.flatnonzero(self.counts == 0)

    @property
    def hardly(self) -> np.ndarray:
        """The ids that occur, but fewer than `least` times: (N,)."""
        return np.flatnonzero((self.counts > 0) & (self.counts < self.least))

    @property
    def steps(self) -> np.ndarray:
        """Learnt ids, never or hardly seen, that are parts of longer tokens: (N,)."""
        rare = (self.counts < self.least) & self.joined
        return np.flatnonzero(rare & (np.arange(len(rare)) >= 256))

    def idle_parameters(self, channels: int) -> int:
        """Numbers in the rows of an embedding table that this text never reads."""
        return len(self.never) * channels


def token_health(tokenizer: Tokenizer, ids: np.ndarray, least: int = 100) -> Health:
    """Count each token of `ids`, (T,) as the tokenizer gave them.

    Counts alone; Land and Bartolo (2024) look for under-trained tokens by weights.
    Raises ValueError for ids that the tokenizer does not have.
    """
    ids = np.asarray(ids)
    if ids.size and not 0 <= ids.min() <= ids.max() < tokenizer.vocabulary:
        raise ValueError(
            f"ids from {ids.min()} to {ids.max()}: expected 0 to"
            f" {tokenizer.vocabulary - 1}"
        )
    counts = np.bincount(ids, minlength=tokenizer.vocabulary)
    joined = np.zeros(tokenizer.vocabulary, bool)
    joined[np.array(tokenizer.merges, np.int64).ravel()] = True
    return Health(counts, joined, least)


def longest_tokens(tokenizer: Tokenizer, count: int = 10) -> list[int]:
    """The ids of the longest tokens, the longest first; specials left out."""
    ids = range(tokenizer.vocabulary - len(tokenizer.special_names))
    return sorted(ids, key=lambda id: -len(tokenizer.token_bytes(id)))[:count]
