"""Where documents come from on the reader's own machine.

Every source is a generator of documents, each with its unit, origin and licence. What
cannot be read is told: it raises CorpusError, or is added as a sentence to `problems`
when a list is given, and the source goes on. The story world (story_world.py), the
standard library (corpus.py) and public corpora (public.py) are sources of the same
kind. Left out: formats other than plain text, and guessing languages' encodings.
"""

import ast
import codecs
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from cort33x_lib.text.corpus import TEST_FOLDERS, CorpusError, Document

MARKS = {  # those of UTF-32 first: one begins as the mark of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
UTF8_PAIR = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")
CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x9f]")
BEYOND_ASCII = re.compile(r"[^\0-\x7f]")
ORDINARY = re.compile(r"[^\W\d_]|[‘’“”„–—…•«»°£€¢©®™½¼¾·¿]")
NOT_STATED = "not stated"


def decode(data: bytes, fallback: str = "cp1252") -> str:
    """Text from bytes: by its byte order mark, else UTF-8, else `fallback`.

    The fallback counts only where its result looks like text of a western language.
    All line ends become line feeds. Raises CorpusError for anything else, such as NUL
    or half a character.
    """
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        fault = f"byte {error.start + len(mark)} is not {encoding.upper()}"
        cut = error.reason == "unexpected end of data"
        if mark or cut or not (text := plausible(data, fallback)):
            raise CorpusError(
                f"{fault}{'' if mark else f', and {fallback} makes no sense'}"
            ) from None
    if "\0" in text:
        raise CorpusError(f"NUL at character {text.index(chr(0))}: binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plausible(data: bytes, encoding: str) -> str:
    """The text in `encoding`, or nothing where that is unlikely to be what it was."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return ""
    if UTF8_PAIR.search(data) or CONTROL.search(text):
        return ""  # UTF-8 with a fault in it, or no text at all
    foreign, ordinary = len(BEYOND_ASCII.findall(text)), len(ORDINARY.findall(text))
    few = foreign <= 0.25 * len(text)  # other alphabets have more
    return text if few and ordinary >= 0.9 * foreign else ""


def own_texts(
    path: str | os.PathLike[str],
    licence: str = NOT_STATED,
    separator: str = "",
    problems: list[str] | None = None,
) -> Iterator[Document]:
    """The text files in a folder and below it, or the one file, in a fixed order.

    Each unit is an entry of the folder. Names that begin with a dot are left out, links
    to folders are not followed. `separator` cuts files into documents; those of a
    single file are units of their own. Empty documents are left out.
    """
    root = Path(path)
    if not os.path.exists(root):
        fault = "is not there, or may not be read"
        raise CorpusError(f"{root} {fault}: give a folder or a file of texts")
    single = not root.is_dir()
    for file in [root] if single else _files(root, problems):
        origin = _origin(root, file)
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise CorpusError("not a plain file")
            text = decode(file.read_bytes())
        except (OSError, CorpusError) as error:
            fault = getattr(error, "strerror", None) or error
            tell(f"{origin} cannot be read as text: {fault}", problems)
            continue
        pieces = text.split(separator) if separator else [text]
        for number, piece in enumerate(pieces, 1):
            place = f"{origin}#{number}" if separator else origin
            if piece.strip():
                unit = place if single else origin.split("/")[1]
                yield Document(piece, unit, place, licence)


def _files(root: Path, problems: list[str] | None) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        place = _origin(root, Path(error.filename))
        tell(f"{place} cannot be read as a folder: {error.strerror}", problems)

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                place = _origin(root, Path(folder, name))
                tell(f"{place} is a link to a folder, which is not followed", problems)
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def _origin(root: Path, file: Path) -> str:
    """Where a file is, from the root's name on, whatever bytes the disk has for it."""
    place = Path(root.resolve().name, file.relative_to(root)).as_posix()
    return os.fsencode(place).decode("utf-8", "backslashreplace")


def tell(fault: str, problems: list[str] | None) -> None:
    """Add a sentence to the list, or raise it as CorpusError where there is none."""
    if problems is None:
        raise CorpusError(f"{fault}; `problems` takes a list to go on")
    problems.append(fault)


def installed_package(
    name: str, problems: list[str] | None = None
) -> Iterator[Document]:
    """The `.py` files of one installed package, tests left out, as one unit.

    The licence is what the package's metadata says. Raises CorpusError for a package
    that is not installed or has no sources.
    """
    try:
        package = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        raise CorpusError(f"no package {name!r} is installed here") from None
    about = package.metadata
    said = [
        about.get("License-Expression"),
        (about.get("License") or "").split("\n")[0].strip(),
    ]
    said += [
        kind[11:] for kind in about.get_all("Classifier") or [] if "License ::" in kind
    ]
    licence = next(filter(None, said), NOT_STATED)
    files = [file for file in package.files or [] if file.suffix == ".py"]
    files = [file for file in files if not {"..", *TEST_FOLDERS} & set(file.parts[:-1])]
    if not files:
        raise CorpusError(f"the package {name!r} lists no .py files")
    for file in sorted(files):
        origin = f"{about['Name']}-{package.version}/{file.as_posix()}"
        try:
            with tokenize.open(file.locate()) as source:
                text = source.read()
        except (OSError, SyntaxError, ValueError) as error:
            tell(f"{origin} cannot be read as Python source: {error}", problems)
            continue
        if text:
            yield Document(text, about["Name"], origin, licence)


def docstrings(
    documents: Iterable[Document], problems: list[str] | None = None
) -> Iterator[Document]:
    """The docstrings of Python sources, each one a document of the same unit."""
    for document in documents:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old escapes in other people's code
                tree = ast.parse(document.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            tell(f"{document.origin} is not Python of today: {error}", problems)
            continue
        for node in ast.walk(tree):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                origin = f"{document.origin}#L{node.body[0].lineno}"
                yield Document(text + "\n", document.unit, origin, document.licence)
