"""From token ids to batches, each a pure function of a seed and a step number.

All documents lie end to end in one array. An epoch is a fresh shuffle of them; rows are
filled from it in order, each row starts with an end token and then a document, and
what overhangs a row is left out until the next epoch: no document is read from its
middle.

Chosen: batches found by counting, so exact resume needs one integer and no state.
Left out: mixtures of corpora, several processes, and arrays larger than memory.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from cort33x_lib.files import digest, write_atomically
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.tokenizer import END, Tokenizer

FORMAT = "cort33x-tokens-1"


@dataclass(frozen=True, eq=False)
class Tokens:
    """The ids of N documents end to end: document n is `ids[starts[n]:starts[n + 1]]`.

    Shapes: ids (tokens,) uint16 or uint32; starts (N + 1,) int64; nbytes (N,) int64,
    the UTF-8 bytes of each text. `tokenizer` is the name of the one that made them.
    """

    ids: np.ndarray
    starts: np.ndarray
    nbytes: np.ndarray
    tokenizer: str

    def __post_init__(self) -> None:
        count, last = len(self.nbytes), len(self.ids)
        if self.starts.shape != (count + 1,) or (*self.starts[[0, -1]],) != (0, last):
            raise ValueError(
                f"starts {self.starts} for {count} documents of {last} ids: expected"
                f" {count + 1} places from 0 to {last}"
            )

    def __len__(self) -> int:
        return len(self.nbytes)

    @property
    def end(self) -> int:
        """The id that closes every document."""
        return int(self.ids[-1])

    def document(self, number: int) -> np.ndarray:
        """The ids of one document, the end token last."""
        return self.ids[self.starts[number] : self.starts[number + 1]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file: a line of JSON about it, the arrays, a SHA-256 of both."""
        head = {
            "format": FORMAT,
            "tokenizer": self.tokenizer,
            "documents": len(self),
            "ids": self.ids.dtype.str,
        }
        arrays = (part.tobytes() for part in (self.starts, self.nbytes, self.ids))
        content = b"".join([json.dumps(head).encode("utf-8"), b"\n", *arrays])
        write_atomically(path, content + digest(content).encode("ascii"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], tokenizer: Tokenizer) -> "Tokens":
        """Read what `save` wrote with this tokenizer, and check every byte of it.

        Raises ValueError naming the file when it is damaged or of another tokenizer.
        """
        data = Path(path).read_bytes()
        content, seal = data[:-64], data[-64:]
        line, _, body = content.partition(b"\n")
        if (
            digest(content).encode("ascii") != seal
            or FORMAT.encode("ascii") not in line
        ):
            raise ValueError(f"{os.fspath(path)} is damaged: encode the corpus again")
        head = json.loads(line)
        if head["tokenizer"] != tokenizer.name:
            raise ValueError(
                f"{os.fspath(path)} has the ids of tokenizer {head['tokenizer']},"
                f" expected {tokenizer.name}: encode the corpus again"
            )
        count = head["documents"]
        starts = np.frombuffer(body, "<i8", count + 1)
        nbytes = np.frombuffer(body, "<i8", count, offset=starts.nbytes)
        ids = np.frombuffer(body, head["ids"], offset=starts.nbytes + nbytes.nbytes)
        return cls(ids, starts, nbytes, tokenizer.name)


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document]) -> Tokens:
    """The documents as tokens, in their order, each closed by the end token.

    Raises ValueError when the tokenizer has no end token.
    """
    if END not in tokenizer.specials:
        raise ValueError(
            f"specials {tokenizer.special_names}: expected {END!r} in them"
        )
    end = tokenizer.specials[END]
    kind = "<u2" if tokenizer.vocabulary <= 1 << 16 else "<u4"
    parts, nbytes = [np.zeros(0, kind)], []
    for document in documents:
        parts.append(np.array([*tokenizer.encode(document.text), end], kind))
        nbytes.append(document.nbytes)
    starts = np.cumsum([len(part) for part in parts], dtype="<i8")
    return Tokens(
        np.concatenate(parts), starts, np.array(nbytes, "<i8"), tokenizer.name
    )


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
        rows = range(step * self.rows, (step + 1) * self.rows)
        ids = np.stack([self._row(row) for row in rows])
        ids = torch.from_numpy(ids.astype(np.int64))  # (B, T + 1)
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def _row(self, row: int) -> np.ndarray:
        while self._before[-1] <= row:
            _, bounds = self._epoch(len(self._before) - 1)
            self._before.append(self._before[-1] + len(bounds) - 1)
            self._used.append(bounds[-1] - len(self.tokens))
        epoch = bisect_right(self._before, row) - 1
        order, bounds = self._epoch(epoch)
        place = row - self._before[epoch]
        parts = [[self.tokens.end]]
        for document in order[bounds[place] : bounds[place + 1]]:
            first, end = self.tokens.starts[document : document + 2]
            parts.append(self.tokens.ids[first : min(end, first + self.length)])
        return np.concatenate(parts)[: self.length + 1]

    def _pack(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The order of an epoch's documents and the next one's, and where rows start.

        Row r holds the documents `order[bounds[r] : bounds[r + 1]]`.
        """
        count = len(self.tokens)
        order = np.concatenate(
            [
                np.random.default_rng([self.seed, number]).permutation(count)
                for number in (epoch, epoch + 1)
            ]
        )
        lengths = np.diff(self.tokens.starts)[order]
        ends = np.cumsum(lengths)
        full = (ends - lengths)[:count] + self.length
        after = (np.searchsorted(ends, full) + 1).tolist()
        bounds = [self._used[epoch]]
        while bounds[-1] < count:
            bounds.append(after[bounds[-1]])
        return order, bounds
