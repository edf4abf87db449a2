"""Public corpora: where they are, what they were on the day, and how to read them.

The table data/catalog.toml has an exact address for each, its size, its SHA-256 and its
licence. A file of the reader's own can stand in for the network. Parquet needs the
optional extra `parquet`; of a large Parquet file only the row groups that are asked for
are fetched. Left out: anything that would run code of the corpus.
"""

import io
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cort33x_lib.files import PROJECT
from cort33x_lib.text.connection import DownloadError, asked
from cort33x_lib.text.corpus import CorpusError, Document, load_corpus, save_corpus
from cort33x_lib.text.download import DOWNLOADS, fault_of, fetch
from cort33x_lib.text.sources import decode

CATALOG = PROJECT / "data" / "catalog.toml"
BLOCK = 1 << 24  # characters
GUTENBERG_START = re.compile(
    r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)"
    r"(?:(?:(?!\n *\n)[^*]){0,300}\*\*\*)?[^\n]*\n"
    r"|\*END\*? ?THE SMALL PRINT![^\n]*\n"
)
GUTENBERG_END = re.compile(
    r"^ *(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|\*\*\* ?START\*\*THE SMALL PRINT"
    r"|End of (?:The |This )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Entry:
    """One corpus of the catalogue: a line of its table, as explained there."""

    name: str
    title: str
    address: str
    kind: str
    licence: str
    bytes: int | None = None
    sha256: str = ""
    separator: str = ""
    heading: str = ""
    column: str = ""


def catalogue(path: str | os.PathLike[str] = CATALOG) -> dict[str, Entry]:
    """The public corpora by name, in the order of the table."""
    with open(path, "rb") as file:
        table = tomllib.load(file)
    return {name: Entry(name=name, **fields) for name, fields in table.items()}


def public(
    corpus: str | Entry,
    file: str | os.PathLike[str] | None = None,
    first: int | None = None,
    number: int | None = None,
    folder: str | os.PathLike[str] = DOWNLOADS,
) -> Iterator[Document]:
    """The documents of a corpus, named as in the catalogue, each a unit of its own.

    Read from `file` where one is given, else downloaded to `folder` and kept there.
    `first` takes only that many bytes, to the last document that is whole; without it,
    a file must have the size and hash of the catalogue. `number` is that of a book of
    Project Gutenberg. Raises CorpusError, DownloadError, OSError.
    """
    entry = corpus if isinstance(corpus, Entry) else catalogue().get(corpus)
    if entry is None:
        raise CorpusError(f"no corpus {corpus!r}; there are: {', '.join(catalogue())}")
    name = entry.name
    if entry.kind == "gutenberg" and first is not None:
        raise CorpusError(f"{name}: a book is taken whole, without `first`")
    if (entry.kind == "gutenberg") != (number is not None):
        raise CorpusError(
            f"{name}: a number belongs to a book of Gutenberg, got {number}"
        )
    address = entry.address.format(number=number)
    if file is not None and first is None and (entry.bytes or entry.sha256):
        if fault := fault_of(Path(file), entry.bytes, entry.sha256):
            raise CorpusError(f"{file}: {fault}; `first` takes a part without a check")
    if entry.kind == "parquet" and first is not None and file is None:
        yield from _first_rows(entry, address, first, Path(folder))
        return
    if file is None:
        ending = address.rpartition(".")[2]
        file = fetch(
            address,
            folder,
            f"{name}{'' if number is None else f'-{number}'}.{ending}",
            size=entry.bytes,
            sha256=entry.sha256,
            first=first,
            separator=entry.separator or "\n",
        )
    if entry.kind == "gutenberg":
        text = without_licence(decode(Path(file).read_bytes()))
        yield Document(text, f"{name}/{number}", f"{name}/{number}", entry.licence)
    else:
        with open(file, "rb") as source:
            yield from _documents(entry, source, first)


def _documents(
    entry: Entry, source: io.RawIOBase | io.BufferedIOBase, first: int | None
) -> Iterator[Document]:
    if entry.kind == "parquet":
        texts = _rows(source, entry.column)
    else:
        texts = _blocks(source)
    had = 0
    for number, text in enumerate(_pieces(entry, texts), 1):
        had += len(text.encode("utf-8"))
        if first is not None and had > first:
            if number == 1:
                raise CorpusError(f"{entry.name}: no whole document in {first} bytes")
            break
        if text.strip():
            origin = f"{entry.name}#{number}"
            yield Document(text.strip("\n") + "\n", origin, origin, entry.licence)


def _blocks(source: io.RawIOBase | io.BufferedIOBase) -> Iterator[str]:
    try:
        with io.TextIOWrapper(source, encoding="utf-8-sig") as text:
            while block := text.read(BLOCK):
                yield block
    except UnicodeDecodeError as error:
        raise CorpusError(f"{source.name} is not UTF-8: {error}") from error


def _pieces(entry: Entry, texts: Iterable[str]) -> Iterator[str]:
    """Documents from texts: cut at separators, or before headings, or as they are."""
    if entry.heading:
        whole = "".join(texts)
        starts = [found.start() for found in re.finditer(entry.heading, whole, re.M)]
        for start, end in pairwise([0, *starts, len(whole)]):
            yield whole[start:end]
    elif entry.separator:
        rest = ""
        for text in texts:
            *whole, rest = (rest + text).split(entry.separator)
            yield from whole
        yield rest
    else:
        yield from texts


def _rows(source: io.RawIOBase | io.BufferedIOBase, column: str) -> Iterator[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise CorpusError(
            "Parquet needs the package pyarrow: pip install -e '.[parquet]'"
        ) from None
    try:
        table = parquet.ParquetFile(source, pre_buffer=False)
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, columns=[column])
            yield from (text or "" for text in rows[column].to_pylist())
    except (ArrowException, KeyError, OSError) as error:
        raise CorpusError(f"no Parquet with a column {column!r}: {error}") from error


def _first_rows(
    entry: Entry, address: str, first: int, folder: Path
) -> Iterator[Document]:
    """The first rows of a Parquet file, fetched once and kept as a corpus."""
    kept = folder / f"first-{first}-{entry.name}"
    if not (kept / "manifest.json").exists():
        source = RemoteFile(address)
        if entry.bytes not in (None, source.size):
            raise DownloadError(
                f"{address}: expected {entry.bytes} bytes, the server has {source.size}"
            )
        save_corpus(kept, _documents(entry, source, first))
    yield from load_corpus(kept)


class RemoteFile(io.RawIOBase):
    """A file at an address, of which only what is read is fetched."""

    def __init__(self, address: str, timeout: float = 30.0):
        self.address, self.timeout, self.position = address, timeout, 0
        self.mark: tuple[str, int] | None = None
        self._part(0, 1)
        self.size = self.mark[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = (0, self.position, self.size)[whence] + offset
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        end = min(self.position + len(buffer), self.size)
        if end <= self.position:
            return 0
        data = self._part(self.position, end)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def _part(self, start: int, end: int) -> bytes:
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        with asked(self.address, wanted, self.timeout) as answer:
            if not answer.partial or answer.start != start:
                raise DownloadError(
                    f"{self.address}: this server sends no parts of files"
                )
            mark = answer.validator, answer.total
            self.mark = self.mark or mark
            if mark != self.mark:
                raise DownloadError(
                    f"{self.address}: the file changed while it was read"
                )
            data = bytearray()
            for block in answer.blocks():
                data += block
                if len(data) >= end - start:
                    break
        if len(data) < end - start:
            raise DownloadError(f"{self.address}: a part is too short")
        return bytes(data[: end - start])


def without_licence(text: str) -> str:
    """A book of Project Gutenberg without the header and licence around it.

    Raises CorpusError where their marks are missing, and for a book under copyright.
    """
    start, end = GUTENBERG_START.search(text), None
    body = text[start.end() :] if start else text
    end = GUTENBERG_END.search(body)
    if "COPYRIGHTED Project Gutenberg" in text:
        raise CorpusError(
            "this book is under copyright: Project Gutenberg may give it on"
        )
    if not start and (end or "Project Gutenberg" in text):
        raise CorpusError("no mark says where the header of Project Gutenberg ends")
    return body[: end.start() if end else None].strip("\n") + "\n"
