"""A corpus in several token files, its shards, read as one without joining them.

Each file may have been written by another process or machine. Left out: shards of
different tokenizers, which would not be one corpus.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

from cort33x_lib.text.token_files import Tokens
from cort33x_lib.text.tokenizer import Tokenizer


class ShardedIds:
    """The ids of several token files end to end, each left on the disk."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards, self.dtype = shards, shards[0].dtype
        self._firsts = [*accumulate(map(len, shards), initial=0)]

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, place: int | slice) -> np.ndarray | np.integer:
        """One id, or those of a slice that lies in one file, as each document does.

        Raises IndexError for other slices.
        """
        where = range(len(self))[place]
        first = where if isinstance(where, int) else where.start
        number = min(bisect_right(self._firsts, first), len(self.shards)) - 1
        shard, start = self.shards[number], self._firsts[number]
        if isinstance(where, int):
            return shard[where - start]
        found = shard[first - start : where.stop - start]
        if len(found) != len(where):
            raise IndexError(f"ids {first} to {where.stop}: expected all in one file")
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.concatenate(self.shards, dtype=dtype)


def open_shards(
    paths: Iterable[str | os.PathLike[str]], tokenizer: Tokenizer
) -> Tokens:
    """The token files at `paths` as one corpus, document after document.

    Raises as `Tokens.load`, and ValueError when there are none.
    """
    shards = [Tokens.load(path, tokenizer) for path in paths]
    if not shards:
        raise ValueError("no token files: expected one or more")
    lengths = np.concatenate([np.diff(shard.starts) for shard in shards])
    nbytes = np.concatenate([shard.nbytes for shard in shards])
    starts = np.cumsum([0, *lengths], dtype="<i8")
    ids = ShardedIds([shard.ids for shard in shards])
    return Tokens(ids, starts, nbytes, tokenizer.name)
