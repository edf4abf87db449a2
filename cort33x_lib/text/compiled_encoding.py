"""The compiled encoder and decoder, and the table of pieces that they share.

Every piece met is kept with its ids, so text is merged once and looked up after that.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from cort33x_lib.text.compiled_memory import kernel, load_word, store_word
from cort33x_lib.text.compiled_pieces import (
    BLOCK,
    END_MARK,
    count_pieces,
    encode_pieces,
    scanner_of,
)
from cort33x_lib.text.compiled_table import fill_ranks, move, spread
from cort33x_lib.text.merging import Pair
from cort33x_lib.text.patterns import LONGEST, Pattern

FIRST_BITS, MOST_BITS = 15, 20  # an encoder's table is forgotten when it is full


class PieceTable:
    """Counts or encodes the pieces of text; for one thread at a time."""

    def __init__(self, pattern: Pattern, bits: int) -> None:
        self.scanner, self.arrays = scanner_of(pattern)
        self.marks = np.empty(BLOCK + 128, np.uint8)
        self.scratch = np.empty((2, LONGEST + 1), np.int64)
        self.clear(bits)

    def clear(self, bits: int) -> None:
        """Forget all pieces, and make room for some of 2 ** bits."""
        self.slots = np.zeros((1 << bits, 4), np.uint64)
        self.texts = np.empty(8 << bits, np.uint8)
        self.kept = np.empty(4 << bits, np.uint32)
        self.used = np.zeros(3, np.int64)  # slots, bytes of texts, ids kept
        room = [3 << bits >> 2, len(self.texts) - LONGEST - 8, len(self.kept) - LONGEST]
        self.most = np.array(room)
        self.table = (self.slots.ctypes.data, bits, self.texts.ctypes.data)

    def count(self, data: bytes) -> None:
        """Count the pieces of some bytes."""
        text = np.frombuffer(data + END_MARK, np.uint8)
        at, end = text.ctypes.data, text.ctypes.data + len(data)
        while at < end:
            at = count_pieces(
                self.scanner, text, self.marks, at, end,
                self.table, self.used, self.most,
            )  # fmt: skip
            if at < end:
                self.grow()

    def grow(self) -> None:
        """Make room for as many pieces again."""
        kept, old = (self.slots, self.texts), self.table
        self.clear(old[1] + 1)
        move(old, self.table, self.used)
        del kept

    def add(self, other: "PieceTable") -> None:
        """Add the counts of another table."""
        while (self.used + other.used >= self.most).any():
            self.grow()
        move(other.table, self.table, self.used)

    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes 0 to 255, then every piece: bytes and counts, one of 0 between."""
        size = spread(self.table, np.empty(0, np.uint8), np.empty(0, np.int64))
        data, weights = np.empty(size, np.uint8), np.zeros(size, np.int64)
        data[:256] = range(256)
        spread(self.table, data, weights)
        return data, weights


@kernel
def copy_tokens(ids, starts, tokens, out):
    """Copy the bytes of each token to an address, eight at a time; gives the end."""
    for place in range(len(ids)):
        first, end = starts[ids[place]], starts[ids[place] + 1]
        for step in range(0, end - first, 8):
            store_word(out + step, load_word(tokens + first + step))
        out += end - first
    return out


class Encoder:
    """Encodes and decodes bytes; for any number of threads at a time."""

    def __init__(
        self, pattern: Pattern, merges: Sequence[Pair], tokens: Sequence[bytes]
    ) -> None:
        bits = (4 * len(merges) + 4).bit_length()
        self.slots = np.zeros((1 << bits, 2), np.uint64)
        fill_ranks(self.slots, np.array(merges, np.int64).reshape(-1, 2))
        self.ranks = (self.slots.ctypes.data, bits)
        self.starts = np.cumsum([0, *map(len, tokens)])
        self.tokens = np.frombuffer(b"".join(tokens) + END_MARK, np.uint8)
        self.pattern, self.free = pattern, deque[PieceTable]()

    def encode(self, data: bytes) -> np.ndarray:
        """The ids of some bytes, uint32."""
        try:
            table = self.free.pop()  # no other thread has it now
        except IndexError:
            table = PieceTable(self.pattern, FIRST_BITS)
        ids = np.empty(len(data) + 1, np.uint32)
        out, done = ids.ctypes.data, 0
        if (body := len(data) - 2 * LONGEST) > 0:
            done, out = self._encode(table, data, body, out)
        tail = data[done:]
        _, out = self._encode(table, tail + END_MARK, len(tail), out)
        self.free.append(table)
        ids.resize((out - ids.ctypes.data) // 4, refcheck=False)
        return ids

    def _encode(
        self, table: PieceTable, data: bytes, stop: int, out: int
    ) -> tuple[int, int]:
        """Encode the pieces that start before `stop`; where they end, and the ids."""
        text = np.frombuffer(data, np.uint8)
        at = first = text.ctypes.data
        while at < first + stop:
            at, out = encode_pieces(
                table.scanner, text, table.marks, at, first + stop,
                table.table, self.ranks, table.kept.ctypes.data, table.scratch,
                table.used, table.most, out,
            )  # fmt: skip
            if at < first + stop:
                table.clear(min(table.table[1] + 1, MOST_BITS))
        return at - first, out

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes of ids, uint32, each of a token."""
        size = int(np.diff(self.starts).take(ids).sum())
        data = np.empty(size + 8, np.uint8)
        copy_tokens(ids, self.starts, self.tokens.ctypes.data, data.ctypes.data)
        return data[:size].tobytes()
