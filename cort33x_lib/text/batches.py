"""From token ids to batches, each a pure function of a seed and a step number.

An epoch is a fresh shuffle of all documents; rows are filled from it in order, each row
starts with an end token and then a document, and what overhangs a row is left out until
the next epoch: no document is read from its middle.

Chosen: batches found by counting, so exact resume needs one integer and no state.
Left out: several processes.
"""

from bisect import bisect_right
from functools import lru_cache

import numpy as np
import torch

from cort33x_lib.text.token_files import Tokens, encode_documents

__all__ = ["Batches", "Tokens", "as_batch", "encode_documents", "pack_epoch"]


class Batches:
    """Training batches without end: `batches[step]` is the same whoever asks, when.

    Epochs follow one another without a gap: a row that an epoch cannot fill goes on
    with the first documents of the next, so in each epoch every document starts in
    exactly one row, and every batch is full. Raises ValueError for sizes below 1, a
    negative seed, or a corpus that cannot fill one row.
    """

    def __init__(self, tokens: Tokens, rows: int, length: int, seed: int) -> None:
        if rows < 1 or length < 1 or seed < 0:
            sizes = f"rows {rows}, length {length}, seed {seed}"
            raise ValueError(f"{sizes}: expected at least 1, 1 and 0")
        if len(tokens.ids) < length:
            raise ValueError(
                f"{len(tokens.ids)} tokens in {len(tokens)} documents: expected at"
                f" least {length}, the length of a row"
            )
        self.tokens, self.rows, self.length, self.seed = tokens, rows, length, seed
        self._used = [0]  # for each epoch met: its documents that the last one has used
        self._before = [0]  # for each epoch met: the rows in all epochs before it
        self._epoch = lru_cache(2)(self._pack)

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and, for each, the token that follows it: int64 (B, T) and (B, T)."""
        if step < 0:
            raise ValueError(f"step {step}: expected a whole number from 0")
        return as_batch([self.row(step * self.rows + n) for n in range(self.rows)])

    def row(self, number: int) -> np.ndarray:
        """Row `number` of all the rows of all epochs: ids (T + 1,)."""
        parts = [[self.tokens.end]]
        for document in self.documents(number):
            first, end = self.tokens.starts[document : document + 2]
            parts.append(self.tokens.ids[first : min(end, first + self.length)])
        return np.concatenate(parts)[: self.length + 1]

    def documents(self, number: int) -> np.ndarray:
        """The numbers of the documents that are read in row `number`."""
        while self._before[-1] <= number:
            _, bounds = self._epoch(len(self._before) - 1)
            self._before.append(self._before[-1] + len(bounds) - 1)
            self._used.append(bounds[-1] - len(self.tokens))
        epoch = bisect_right(self._before, number) - 1
        order, bounds = self._epoch(epoch)
        place = number - self._before[epoch]
        return order[bounds[place] : bounds[place + 1]]

    def _pack(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        used = self._used[epoch]
        return pack_epoch(self.tokens, self.length, self.seed, epoch, used)


def pack_epoch(
    tokens: Tokens, length: int, seed: int, epoch: int, used: int
) -> tuple[np.ndarray, list[int]]:
    """The order of an epoch's documents and the next one's, and where rows start.

    Row r holds the documents `order[bounds[r] : bounds[r + 1]]`; the first `used` of
    the order have been read by the epoch before.
    """
    count = len(tokens)
    order = np.concatenate(
        [
            np.random.default_rng([seed, number]).permutation(count)
            for number in (epoch, epoch + 1)
        ]
    )
    lengths = np.diff(tokens.starts)[order]
    ends = np.cumsum(lengths)
    full = (ends - lengths)[:count] + length
    after = (np.searchsorted(ends, full) + 1).tolist()
    bounds = [used]
    while bounds[-1] < count:
        bounds.append(after[bounds[-1]])
    return order, bounds


def as_batch(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of T + 1 ids as inputs and targets, int64 (B, T) and (B, T)."""
    ids = torch.from_numpy(np.stack(rows).astype(np.int64))  # (B, T + 1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
