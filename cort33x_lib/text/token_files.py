"""Token files: the ids of a corpus on the disk, read in place.

A file is 512 bytes of head, the ids, and the index of the documents: where each starts
and how many bytes of text it stands for. The head is a line of JSON and its SHA-256;
among other things it has the name of the tokenizer and the SHA-256 of all that follows.

Chosen: opening reads the head and the ends of the index, so it takes as long for a
gigabyte as for a page; `verify` reads every byte. For a corpus in several files see
`shards`.
"""

import hashlib
import json
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tqdm import tqdm

from cort33x_lib.files import digest, open_atomically
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.tokenizer import END, Tokenizer

FORMAT = "cort33x-tokens-2"
HEAD = 512  # bytes
BLOCK = 1 << 18  # characters of text that a worker takes at once
Block = tuple[np.ndarray, list[int], list[int]]  # ids, tokens and bytes a document


@dataclass(frozen=True, eq=False)
class Tokens:
    """The ids of N documents end to end: document n is `ids[starts[n]:starts[n + 1]]`.

    Shapes: ids (tokens,) uint16 or uint32, in several files a `shards.ShardedIds`;
    starts (N + 1,) int64; nbytes (N,) int64, the UTF-8 bytes of each text. `tokenizer`
    is the name of the one that made them.
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

    def save(self, path: str | os.PathLike[str], corpus: str = "") -> None:
        """Write a token file, whole or not at all; raises OSError.

        `corpus` is the fingerprint of the documents, for the head.
        """
        block = self.ids, np.diff(self.starts).tolist(), self.nbytes.tolist()
        write_tokens(path, self.tokenizer, self.ids.dtype.str, [block], corpus)

    @classmethod
    def load(cls, path: str | os.PathLike[str], tokenizer: Tokenizer) -> "Tokens":
        """The token file at `path`, mapped into memory and read when it is looked at.

        Checked: the head, the size of the file, the tokenizer. Not checked: what only
        reading all of it shows; `verify` does. Raises ValueError naming the file and
        what is wrong, and OSError.
        """
        head = read_head(path)
        if head["tokenizer"] != tokenizer.name:
            raise ValueError(
                f"{os.fspath(path)} has the ids of tokenizer {head['tokenizer']},"
                f" expected {tokenizer.name}: encode the corpus again"
            )
        try:
            return cls(*map_arrays(path, head), tokenizer.name)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} is damaged: {error}") from None


def map_arrays(
    path: str | os.PathLike[str], head: dict
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids, starts and nbytes of a token file, left on the disk until looked at."""
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    kind, documents = np.dtype(head["ids"]), head["documents"]
    ids = data[HEAD : HEAD + head["tokens"] * kind.itemsize].view(kind)
    index = data[len(data) - 8 - 16 * documents :].view("<i8")
    return ids, index[: documents + 1], index[documents + 1 :]


def read_head(path: str | os.PathLike[str]) -> dict:
    """What a token file says about itself, once its size agrees.

    Raises ValueError for another format, a damaged head or a file that was cut.
    """
    with open(path, "rb") as file:
        line, seal = [*file.read(HEAD).split(b"\n"), b"", b""][:2]
        size = file.seek(0, os.SEEK_END)
    again = "encode the corpus again"
    if not line.startswith(b'{"format": "%s"' % FORMAT.encode("ascii")):
        raise ValueError(f"{os.fspath(path)} is no {FORMAT} file: {again}")
    if digest(line).encode("ascii") != seal:
        raise ValueError(f"{os.fspath(path)} is damaged in its head: {again}")
    head = json.loads(line)
    body = -(-head["tokens"] * np.dtype(head["ids"]).itemsize // 8) * 8
    expected = HEAD + body + 8 + 16 * head["documents"]
    if size != expected:
        raise ValueError(
            f"{os.fspath(path)} has {size} bytes, expected {expected}: it was cut or"
            f" written to; {again}"
        )
    return head


def verify(path: str | os.PathLike[str]) -> None:
    """Read a token file from end to end; raises ValueError if a bit of it changed."""
    expected = read_head(path)["sha256"]
    with open(path, "rb") as file:
        file.seek(HEAD)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{os.fspath(path)} is damaged: the SHA-256 of its content is {found},"
            f" expected {expected}; encode the corpus again"
        )


def write_tokens(
    path: str | os.PathLike[str],
    tokenizer: str,
    kind: str,
    blocks: Iterable[Block],
    corpus: str = "",
) -> None:
    """Write blocks of documents as one token file; 16 bytes a document stay in memory.

    `kind` is the type of the ids, "<u2" or "<u4". Raises OSError; then no half file
    has the name `path`.
    """
    lengths, nbytes, check = array("q"), array("q"), hashlib.sha256()
    with open_atomically(path) as file:

        def write(part: np.ndarray | bytes) -> None:
            file.write(part)
            check.update(part)

        file.write(bytes(HEAD))
        for ids, block_lengths, block_nbytes in blocks:
            write(np.ascontiguousarray(ids, kind))
            lengths.extend(block_lengths)
            nbytes.extend(block_nbytes)
        starts = np.cumsum([0, *lengths], dtype="<i8")
        write(bytes(-int(starts[-1]) * np.dtype(kind).itemsize % 8))
        write(starts)
        write(np.array(nbytes, "<i8"))
        head = {
            "format": FORMAT,
            "tokenizer": tokenizer,
            "corpus": corpus,
            "ids": kind,
            "tokens": int(starts[-1]),
            "documents": len(nbytes),
            "nbytes": sum(nbytes),
            "sha256": check.hexdigest(),
        }
        line = json.dumps(head).encode("ascii")
        file.seek(0)
        file.write((line + b"\n" + digest(line).encode("ascii") + b"\n").ljust(HEAD))


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document]) -> Tokens:
    """The documents as tokens, in their order, each closed by the end token.

    Raises ValueError when the tokenizer has no end token.
    """
    empty = np.zeros(0, kind_of(tokenizer)), [], []
    with encoding_bar(documents) as documents:
        blocks = [empty, *_encoded(tokenizer, documents, None)]
    ids, lengths, nbytes = zip(*blocks, strict=True)
    starts = np.cumsum([0, *sum(lengths, [])], dtype="<i8")
    nbytes = np.array(sum(nbytes, []), "<i8")
    return Tokens(np.concatenate(ids), starts, nbytes, tokenizer.name)


def encode_to_file(
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    path: str | os.PathLike[str],
    workers: int | None = None,
) -> Tokens:
    """Encode documents as they come into a token file, and open it.

    At most two blocks of text a worker are in memory; `workers` threads, as many as
    there are cores when None, give the same bytes as one. Raises ValueError
    when the tokenizer has no end token, and OSError; then `path` is as it was.
    """
    kind = kind_of(tokenizer)
    documents = encoding_bar(documents)
    with documents, closing(_encoded(tokenizer, documents, workers)) as blocks:
        write_tokens(path, tokenizer.name, kind, blocks)
    return Tokens.load(path, tokenizer)


def encoding_bar(documents: Iterable[Document]) -> tqdm:
    """The documents; in a terminal, a bar if they take more than a second."""
    return tqdm(
        documents, "encode", unit=" documents", delay=1, leave=False, disable=None
    )


def kind_of(tokenizer: Tokenizer) -> str:
    """The smallest type that has room for every id of a tokenizer, as NumPy names it.

    Raises ValueError when the tokenizer has no end token.
    """
    if END not in tokenizer.specials:
        raise ValueError(
            f"specials {tokenizer.special_names}: expected {END!r} in them"
        )
    return "<u2" if tokenizer.vocabulary <= 1 << 16 else "<u4"


def _encoded(
    tokenizer: Tokenizer, documents: Iterable[Document], workers: int | None
) -> Iterator[Block]:
    """The blocks in their order, at most two a worker in the making."""
    workers = workers or os.cpu_count() or 1
    blocks, waiting = _blocks(documents), deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for block in islice(blocks, 2 * workers - len(waiting)):
                waiting.append(pool.submit(_encode_block, tokenizer, block))
            if not waiting:
                return
            yield waiting.popleft().result()


def _blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    block, size = [], 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _encode_block(tokenizer: Tokenizer, block: list[Document]) -> Block:
    end, parts = np.array([tokenizer.specials[END]], np.uint32), []
    for document in block:
        parts += [tokenizer.encode_array(document.text), end]
    lengths = [len(part) + 1 for part in parts[::2]]
    ids = np.concatenate(parts).astype(kind_of(tokenizer))
    return ids, lengths, [document.nbytes for document in block]
