"""A corpus is a list of documents that says where each came from.

Chosen: one small class for a document; a split that never divides a unit and never
moves one when documents are added; a manifest with a SHA-256 per document and one
fingerprint for the whole; and a corpus everybody has, the sources of the reader's own
Python. Left out: cleaning, downloads, and corpora larger than memory.
"""

import json
import math
import os
import platform
import sysconfig
import tokenize
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tqdm import tqdm

from cort33x_lib.files import digest, write_atomically

FORMAT = "cort33x-corpus-1"
FIELDS = ["text", "unit", "origin", "licence"]
TEST_FOLDERS = {"test", "tests", "idle_test"}
OTHERS_FOLDERS = {"site-packages", "dist-packages"}


class CorpusError(ValueError):
    """A corpus that cannot be used: what is wrong, where, and what to do."""


class MissingSources(CorpusError):
    """No sources of Python are installed here."""


@dataclass(frozen=True)
class Document:
    """One text, with the unit that no split may divide, its origin and its licence.

    Raises CorpusError for a field that is not text or that UTF-8 cannot write.
    """

    text: str
    unit: str
    origin: str
    licence: str

    def __post_init__(self) -> None:
        for name in FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str):
                raise CorpusError(f"{name} must be text, got {type(value).__name__}")
            if not value.isascii():
                refuse_surrogates(name, value, self.origin)

    @property
    def data(self) -> bytes:
        """The text as UTF-8 bytes."""
        return self.text.encode("utf-8")

    @property
    def nbytes(self) -> int:
        """The length of the text in UTF-8 bytes."""
        return len(self.data)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the text as UTF-8 bytes."""
        return digest(self.data)


def refuse_surrogates(name: str, value: str, origin: str) -> None:
    """Raise CorpusError for half of a pair of UTF-16, which is no character."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"U+{ord(value[error.start]):04X} at character {error.start}"
        raise CorpusError(
            f"{ascii(origin)}: {name} holds the lone surrogate {found};"
            " decode the source again with the right encoding"
        ) from None


def split_by_unit(
    documents: Iterable[Document], fractions: Mapping[str, float], seed: int = 0
) -> dict[str, list[Document]]:
    """The documents under the names of `fractions`, in their order, no unit divided.

    The SHA-256 of seed and unit decides, so that a unit stays where it is when others
    come or go, and each split gets its fraction of the units only nearly. Raises
    ValueError unless the fractions are at least 0 and sum to 1.
    """
    total = math.fsum(fractions.values())
    if not (abs(total - 1) <= 1e-9 and all(part >= 0 for part in fractions.values())):
        raise ValueError(
            f"fractions {dict(fractions)} sum to {total}: expected none below 0, sum 1"
        )
    parts: dict[str, list[Document]] = {name: [] for name in fractions}
    names, limits = list(fractions), list(accumulate(fractions.values()))[:-1]
    for document in documents:
        key = json.dumps([seed, document.unit]).encode("utf-8")
        draw = int(digest(key)[:13], 16) / 16**13  # in [0, 1), exact in a float
        parts[names[bisect_right(limits, draw)]].append(document)
    return parts


def entry_of(document: Document) -> dict[str, str | int]:
    """What the manifest says about one document."""
    return {
        "origin": document.origin,
        "unit": document.unit,
        "licence": document.licence,
        "bytes": document.nbytes,
        "sha256": document.sha256,
    }


def manifest(documents: Iterable[Document]) -> dict:
    """One entry a document and their fingerprint, the same in any order of them."""
    entries = [entry_of(document) for document in documents]
    lines = sorted(json.dumps(entry, sort_keys=True) for entry in entries)
    return {
        "format": FORMAT,
        "fingerprint": digest("\n".join(lines).encode("utf-8")),
        "documents": entries,
    }


def save_corpus(folder: str | os.PathLike[str], documents: Iterable[Document]) -> None:
    """Write `documents.jsonl` (one a line) and `manifest.json` into `folder`.

    What a subclass of Document adds is not kept. Raises OSError.
    """
    documents = list(documents)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {name: getattr(document, name) for name in FIELDS}, ensure_ascii=False
        )
        for document in documents
    ]
    write_atomically(folder / "documents.jsonl", "".join(f"{line}\n" for line in lines))
    text = json.dumps(manifest(documents), ensure_ascii=False, indent=1)
    write_atomically(folder / "manifest.json", text + "\n")


def load_corpus(folder: str | os.PathLike[str]) -> list[Document]:
    """The documents that `save_corpus` wrote, each checked against the manifest.

    Raises CorpusError naming the file and the line for anything missing or changed.
    """
    folder = Path(folder)
    listed = _read(folder / "manifest.json")
    kept = _parsed(folder / "manifest.json", listed)
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise _broken(folder / "manifest.json", f"expected the format {FORMAT!r}")
    file = folder / "documents.jsonl"
    lines = _read(file).split(b"\n")
    if lines.pop() != b"":
        raise _broken(file, "the last line has no end", len(lines) + 1)
    entries = kept.get("documents")
    if not isinstance(entries, list) or len(entries) != len(lines):
        count = len(entries) if isinstance(entries, list) else "no"
        raise _broken(file, f"{len(lines)} documents, the manifest has {count}")
    documents = []
    shown = dict(unit=" documents", delay=1, leave=False, disable=None)  # in a terminal
    pairs = zip(tqdm(lines, "load", **shown), entries, strict=True)
    for number, (line, entry) in enumerate(pairs, 1):
        fields = _parsed(file, line, number)
        if not isinstance(fields, dict) or sorted(fields) != sorted(FIELDS):
            raise _broken(file, f"expected an object with the keys {FIELDS}", number)
        try:
            document = Document(**fields)
        except CorpusError as error:
            raise _broken(file, str(error), number) from error
        if entry_of(document) != entry:
            raise _broken(file, "the document differs from its manifest entry", number)
        documents.append(document)
    if manifest(documents)["fingerprint"] != kept.get("fingerprint"):
        raise _broken(folder / "manifest.json", "the fingerprint does not match")
    return documents


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"{path} cannot be read ({error.strerror}): give the folder of a corpus,"
            " or make it with save_corpus"
        ) from error


def _parsed(path: Path, data: bytes, line: int = 1) -> object:
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _broken(path, f"byte {error.start} is not UTF-8", line) from error
    except json.JSONDecodeError as error:
        fault = f"not JSON at character {error.colno} ({error.msg})"
        raise _broken(path, fault, line + error.lineno - 1) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"not JSON that a corpus has ({error})", line) from error


def _broken(path: Path, fault: str, line: int | None = None) -> CorpusError:
    where = str(path) if line is None else f"{path}, line {line}"
    return CorpusError(f"{where}: {fault}; copy the corpus or make it again")


def standard_library(
    folder: str | os.PathLike[str] | None = None, problems: list[str] | None = None
) -> Iterator[Document]:
    """The `.py` files of the running Python (or of `folder`), by path, tests left out.

    Each unit is a top-level module or package; files are decoded as PEP 263 says, line
    ends become `\\n`, empty files have no document. A file that cannot be read raises
    CorpusError, or adds a sentence to `problems` when a list is given. Raises
    MissingSources where there are no sources.
    """
    root = Path(folder or sysconfig.get_path("stdlib"))
    left_out = TEST_FOLDERS | OTHERS_FOLDERS
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    paths = [path for path in paths if not left_out.intersection(path.parts[:-1])]
    if not paths:
        raise MissingSources(
            f"no .py sources in {root}: install a Python that comes with its standard"
            " library as files, or use the story world"
        )
    for path in paths:
        try:
            with tokenize.open(root / path) as file:
                document = Document(
                    text=file.read(),
                    unit=path.parts[0].removesuffix(".py"),
                    origin=f"python-{platform.python_version()}/{path.as_posix()}",
                    licence="PSF-2.0",
                )
        except (OSError, SyntaxError, ValueError) as error:
            fault = f"{root / path} cannot be read as Python source: {error}"
            if problems is None:
                raise CorpusError(
                    f"{fault}; `problems` takes a list to go on"
                ) from error
            problems.append(fault)
        else:
            if document.text:
                yield document
