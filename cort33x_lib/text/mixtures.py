"""Several corpora in one stream of batches, in shares that hold at every row.

Chosen: shares are whole parts, and the sources take turns by the rule of the next due
row (Baruah et al. 1996), so that after any number of rows each has given its share to
within one row, and how many it gave follows from the number alone. Every row is full,
so a share of rows is a share of tokens. Left out: shares that change during a run.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cort33x_lib.files import digest
from cort33x_lib.text.batches import Batches, as_batch
from cort33x_lib.text.token_files import Tokens


def take_turns(parts: Sequence[int]) -> list[int]:
    """Who takes each of sum(parts) turns, so that nobody is ever a turn off its share.

    No source runs ahead of its share, and of those that may go, the one whose turn is
    due first goes. After n turns a source has taken less than one more, and less than
    one fewer, than n * part / sum(parts).
    """
    cycle, taken, turns = sum(parts), [0] * len(parts), []
    for turn in range(1, cycle + 1):
        due = [
            (-(-(done + 1) * cycle // part), place)
            for place, (part, done) in enumerate(zip(parts, taken, strict=True))
            if done * cycle < part * turn
        ]
        _, place = min(due)
        taken[place] += 1
        turns.append(place)
    return turns


class Shares:
    """Whose turn every row is, for shares in whole parts, and who has given how many.

    `turns` is one cycle; it comes again and again.
    """

    def __init__(self, parts: Sequence[int]) -> None:
        shared = int(np.gcd.reduce([*parts]))
        self.turns = take_turns([part // shared for part in parts])
        taken = np.eye(len(parts), dtype=int)[self.turns].cumsum(axis=0)
        self._taken = np.vstack([0 * taken[:1], taken])  # (cycle + 1, sources)

    def given(self, row: int) -> list[int]:
        """How many of the rows before this one each source has given."""
        cycles, turn = divmod(row, len(self.turns))
        return (cycles * self._taken[-1] + self._taken[turn]).tolist()


class Mixture:
    """Batches from several sources: `mixture[step]`, the same whoever asks, when.

    `parts` gives each source's share in whole parts, {"stories": 7, "code": 3}. Each
    source is read in an order that depends on seed and name, not on the others or the
    parts. Raises ValueError for sources without parts, parts below 1, sources of
    different tokenizers, and as Batches does.
    """

    def __init__(
        self,
        sources: Mapping[str, Tokens],
        parts: Mapping[str, int],
        rows: int,
        length: int,
        seed: int,
    ) -> None:
        whole = all(type(part) is int and part > 0 for part in parts.values())
        if not parts or sources.keys() != parts.keys() or not whole:
            raise ValueError(
                f"parts {dict(parts)}: expected a whole number from 1 for each of"
                f" {[*sources]}"
            )
        if len(tokenizers := {tokens.tokenizer for tokens in sources.values()}) > 1:
            raise ValueError(f"ids of {len(tokenizers)} tokenizers: expected one")
        self.rows, self.seed = rows, seed
        self._shares = Shares([parts[name] for name in sources])
        self.sources = {
            name: Batches(tokens, rows, length, source_seed(seed, name))
            for name, tokens in sources.items()
        }

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and, for each, the token that follows it: int64 (B, T) and (B, T)."""
        if step < 0:
            raise ValueError(f"step {step}: expected a whole number from 0")
        origins = map(self.origin, range(step * self.rows, (step + 1) * self.rows))
        return as_batch([self.sources[name].row(number) for name, number in origins])

    def origin(self, row: int) -> tuple[str, int]:
        """The source that gives a row, and the row's number among those it gives."""
        turns = self._shares.turns
        place = turns[row % len(turns)]
        return [*self.sources][place], self._shares.given(row)[place]

    def counters(self, step: int) -> dict[str, int]:
        """How many rows each source has given before this step."""
        given = self._shares.given(step * self.rows)
        return dict(zip(self.sources, given, strict=True))


def source_seed(seed: int, name: str) -> int:
    """The seed of one source of a mixture, whatever the others are."""
    return int(digest(json.dumps([seed, name]).encode("utf-8"))[:13], 16)
