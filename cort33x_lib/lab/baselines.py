"""Baselines: what counting alone can predict, the ladder under every model.

Uniform knows how many tokens there are, unigram how often each comes, bigram and
trigram what came after the one or two tokens before. Chosen: interpolated Kneser-Ney
smoothing with one discount a level (Kneser and Ney 1995; Chen and Goodman 1999), a
proper distribution for every context. Left out: longer contexts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from cort33x_lib.lab.evaluation import Evaluation, unigram
from cort33x_lib.text.batches import Tokens


@dataclass(frozen=True, eq=False)
class Level:
    """What the contexts of one length say, and what they leave to shorter ones.

    Shapes: grams (G,) int64, sorted, and kept (G,), the probability that each gram's
    last token keeps after its context; contexts (N,) int64, sorted, and left (N,).
    """

    grams: np.ndarray
    kept: np.ndarray
    contexts: np.ndarray
    left: np.ndarray

    @classmethod
    def of_counts(cls, grams: np.ndarray, counts: np.ndarray, V: int) -> "Level":
        """Take a discount from each count, (G,), for tokens not seen in the context.

        The discount is that of Ney, Essen and Kneser (1994), from how many counts are
        1 and 2, moved a little so that it is never 0 or 1.
        """
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = (once + 1) / (once + 2 * twice + 2)
        contexts, place, kinds = np.unique(
            grams // V, return_inverse=True, return_counts=True
        )
        totals = np.bincount(place, counts)  # (N,)
        kept = (counts - discount) / totals[place]
        return cls(grams, kept, contexts, discount * kinds / totals)


@dataclass(frozen=True, eq=False)
class NGrams:
    """A model that predicts each token from the few before it, by counting.

    A gram of n tokens is one number, its tokens the digits in base V.
    """

    vocabulary: int  # V
    levels: tuple[Level, ...]  # the shortest context first

    def probability(self, grams: np.ndarray) -> np.ndarray:
        """The probability of the last token of each gram: (N,) -> (N,)."""
        V, p = self.vocabulary, np.full(len(grams), 1 / self.vocabulary)
        for length, level in enumerate(self.levels, start=1):
            gram = grams % V**length
            left = look_up(level.contexts, level.left, gram // V, 1.0)
            p = look_up(level.grams, level.kept, gram, 0.0) + left * p
        return p

    def surprise(self, tokens: Tokens) -> np.ndarray:
        """-ln p of every token, in nats: (tokens,)."""
        grams = grams_of(tokens, self.vocabulary, len(self.levels))
        return -np.log(self.probability(grams))

    def after(self, context: Sequence[int]) -> np.ndarray:
        """The probability of every token after a context, nearest id last: (V,).

        Raises ValueError for a context that is too short.
        """
        needed = len(self.levels) - 1
        if len(context) < needed:
            raise ValueError(f"{len(context)} ids: expected a context of {needed}")
        V, before = self.vocabulary, 0
        for id in context[len(context) - needed :]:
            before = before * V + int(id)
        return self.probability(before * V + np.arange(V))


def count_ngrams(training: Tokens, vocabulary: int, order: int) -> NGrams:
    """Count every gram of 1 to `order` tokens; a context never leaves its document.

    Only the longest are counted as they come. A shorter one counts in how many
    different longer ones it ends: "York" is frequent, but follows one word only.
    Raises ValueError when the grams do not fit in 63 bits.
    """
    if order < 1 or vocabulary**order >= 1 << 63:
        raise ValueError(
            f"order {order} with {vocabulary} tokens: expected at least 1 and"
            " vocabulary**order below 2**63"
        )
    grams = grams_of(training, vocabulary, order)
    levels = []
    for length in range(order, 0, -1):
        grams, counts = np.unique(grams % vocabulary**length, return_counts=True)
        levels.insert(0, Level.of_counts(grams, counts, vocabulary))
    return NGrams(vocabulary, tuple(levels))


def grams_of(tokens: Tokens, vocabulary: int, order: int) -> np.ndarray:
    """Each token with the `order` - 1 before it as one number: (tokens,) int64.

    Before the start of a document there are end tokens.
    """
    before = tokens.ids.astype(np.int64)
    grams = before.copy()
    for place in range(1, order):
        before = np.roll(before, 1)
        before[tokens.starts[:-1]] = tokens.end
        grams += before * vocabulary**place
    return grams


def look_up(
    keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: float
) -> np.ndarray:
    """The value of each wanted key, or `otherwise`; keys sorted: (N,) -> (N,)."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], otherwise)


def baseline_ladder(
    training: Tokens, held_out: Tokens, vocabulary: int
) -> dict[str, Evaluation]:
    """Uniform, unigram, bigram and trigram on held-out documents, best last.

    Raises ValueError when the two were made by different tokenizers.
    """
    if training.tokenizer != held_out.tokenizer:
        raise ValueError(
            f"held-out ids of tokenizer {held_out.tokenizer}, expected those of"
            f" {training.tokenizer}"
        )
    flat = np.full(len(held_out.ids), log(vocabulary))
    rungs = {
        "uniform": Evaluation.of_tokens(flat, held_out),
        "unigram": unigram(training, held_out, vocabulary),
    }
    for order, name in enumerate(("bigram", "trigram"), start=2):
        counted = count_ngrams(training, vocabulary, order)
        rungs[name] = Evaluation.of_tokens(counted.surprise(held_out), held_out)
    return rungs
