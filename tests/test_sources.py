"""Sources: every file is read as it was written, or said to be unreadable."""

import codecs
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pytest
from pyarrow import parquet

from cort33x_lib.files import sha256_of
from cort33x_lib.text.connection import DownloadError, Offline
from cort33x_lib.text.corpus import CorpusError, Document, manifest
from cort33x_lib.text.public import Entry, catalogue, public, without_licence
from cort33x_lib.text.sources import (
    decode,
    docstrings,
    installed_package,
    own_texts,
)
from run import ROOT

FRENCH = "L’été dernier, à la fenêtre, «où» allait-il ?\r\nVers Noël — 3½ €\r\n"
GOOD_BYTES = {
    "nothing": (b"", ""),
    "UTF-8": ("naïve 👍\n".encode(), "naïve 👍\n"),
    "UTF-8 with its mark": ("naïve".encode("utf-8-sig"), "naïve"),
    "UTF-16": ("naïve 👍".encode("utf-16"), "naïve 👍"),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE + "né".encode("utf-16-be"), "né"),
    "UTF-32": ("naïve 👍".encode("utf-32"), "naïve 👍"),
    "UTF-32, big end first": (codecs.BOM_UTF32_BE + "né".encode("utf-32-be"), "né"),
    "cp1252": (FRENCH.encode("cp1252"), FRENCH.replace("\r\n", "\n")),
    "Spanish": ("¿Qué dices? ¡Sí, ya!".encode("cp1252"), "¿Qué dices? ¡Sí, ya!"),
    "line ends": (b"a\r\nb\rc\n\rd\x0be", "a\nb\nc\n\nd\x0be"),
    "colours of a terminal": (b"\x1b[31mred", "\x1b[31mred"),
}
BAD_BYTES = {
    "a program": (b"\x7fELF\x02\x01\x01\0\0", "NUL at character 7: binary, not text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "byte 0 is not UTF-8, and cp1252"),
    "a page": (b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n\x78\x81", "byte 10 is not UTF-8"),
    "UTF-8 cut in a character": ("naïve é".encode()[:-1], "byte 7 is not UTF-8"),
    "UTF-8 cut in its only letter": ("Dear Zoë".encode()[:-1], "byte 7 is not UTF-8"),
    "UTF-8 with a bad byte": (
        "naïve \xff é".encode() + b"\xff",
        "byte 12 is not UTF-8",
    ),
    "UTF-16 without its mark": ("naive".encode("utf-16-le"), "NUL at character 1"),
    "half of UTF-16": ("naïve".encode("utf-16")[:-1], "byte 10 is not UTF-16-LE"),
    "a lone surrogate": (b"\xff\xfe\x00\xd8a\x00", "byte 2 is not UTF-16-LE"),
    "a surrogate in UTF-8": (b"a\xed\xa0\x80", "byte 1 is not UTF-8"),
    "Big5": ("man’s — “x”".encode("big5"), "cp1252 makes no sense"),
    "Russian": ("Привет, мир".encode("cp1251"), "cp1252 makes no sense"),
    "Shift-JIS": ("日本語のテキスト".encode("shift-jis"), "cp1252 makes no sense"),
    "noise": (random.Random(0).randbytes(500), "is not UTF-8"),
}


@pytest.mark.parametrize("name", GOOD_BYTES)
def test_bytes_are_decoded(name: str) -> None:
    data, text = GOOD_BYTES[name]
    assert decode(data) == text


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_are_no_text_are_refused(name: str) -> None:
    data, fault = BAD_BYTES[name]
    with pytest.raises(CorpusError, match=fault):
        decode(data)


def test_any_text_comes_back_from_unicode() -> None:
    chance = random.Random(1)
    letters = "a \n\t\x1b\ufeff\u2028é¡日👍\U0010fffd\x85\xad"
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randrange(20)))
        for encoding in ("utf-8-sig", "utf-16", "utf-32"):
            assert decode(text.encode(encoding)) == text
        if not text.startswith("\ufeff"):
            assert decode(text.encode()) == text


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_a_folder_is_read_whole_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my texts"
    write(
        folder,
        {
            "b.txt": b"\xef\xbb\xbfb\r\n",
            "a/2.txt": b"two",
            "a/10.md": b"ten",
            "a/deep/er/x": b"x",
            "c.txt": FRENCH.encode("cp1252"),
            "empty.txt": b"",
            "blank.txt": b" \r\n",
            ".hidden": b"h",
            ".git/config": b"g",
        },
    )
    documents = list(own_texts(folder, licence="mine"))
    assert [(d.origin, d.unit, d.text[:3]) for d in documents] == [
        ("my texts/b.txt", "b.txt", "b\n"),
        ("my texts/c.txt", "c.txt", "L’é"),
        ("my texts/a/10.md", "a", "ten"),
        ("my texts/a/2.txt", "a", "two"),
        ("my texts/a/deep/er/x", "a", "x"),
    ]
    assert {document.licence for document in documents} == {"mine"}
    moved = folder.rename(tmp_path.joinpath("other")).rename(tmp_path / "my texts")
    assert manifest(own_texts(moved, licence="mine")) == manifest(documents)
    monkeypatch.chdir(folder)
    assert list(own_texts(".", licence="mine")) == documents


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"good.txt": b"good", "sub/good.txt": b"good"})
    write(tmp_path, {"bad.bin": b"\0", "bad.txt": "né".encode()[:-1]})
    os.symlink("loop", tmp_path / "loop")
    os.symlink(tmp_path, tmp_path / "sub" / "up")
    os.symlink("nowhere", tmp_path / "dangling")
    os.symlink("good.txt", tmp_path / "link.txt")
    os.mkfifo(tmp_path / "pipe")
    odd = os.fsdecode(b"odd\xff.txt")
    (tmp_path / odd).write_bytes(b"odd")
    problems: list[str] = []
    documents = list(own_texts(tmp_path, problems=problems))
    names = [document.origin.partition("/")[2] for document in documents]
    assert names == ["good.txt", "link.txt", r"odd\xff.txt", "sub/good.txt"]
    patterns = [
        r"/bad.bin cannot be read as text: NUL",
        r"/bad.txt cannot be read as text: byte 1 is not UTF-8",
        r"/dangling cannot be read as text: No such file",
        r"/loop cannot be read as text: .*symbolic",
        r"/pipe cannot be read as text: not a plain file",
        r"/sub/up is a link to a folder",
    ]
    assert len(problems) == len(patterns)
    for pattern, problem in zip(patterns, sorted(problems), strict=True):
        assert re.search(pattern, problem) and problem.isprintable()
    with pytest.raises(CorpusError, match="`problems` takes a list to go on"):
        list(own_texts(tmp_path))
    with pytest.raises(
        CorpusError, match="is not there, or may not be read: give a folder"
    ):
        list(own_texts(tmp_path / "absent"))


UNREADABLE = """
import os, sys
from cort33x_lib.text.sources import own_texts
if os.geteuid() == 0:
    os.setuid(65534)
problems = []
documents = list(own_texts(sys.argv[1], problems=problems))
print(len(documents), *sorted(problems), sep="\\n")
"""


def test_what_may_not_be_read_is_told() -> None:
    with TemporaryDirectory() as open_to_all:
        folder = Path(open_to_all) / "texts"
        write(folder, {"good": b"good", "closed": b"x", "shut/in": b"x"})
        (folder / "closed").chmod(0)
        (folder / "shut").chmod(0)
        Path(open_to_all).chmod(0o755)
        command = [sys.executable, "-c", UNREADABLE, str(folder)]
        said = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
        Path(open_to_all).chmod(0)
        unseen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        Path(open_to_all).chmod(0o755)
        (folder / "shut").chmod(0o700)
    assert said[0] == "1" and len(said) == 3
    assert said[1] == "texts/closed cannot be read as text: Permission denied"
    assert said[2] == "texts/shut cannot be read as a folder: Permission denied"
    assert "CorpusError" in unseen.stderr and "may not be read" in unseen.stderr


def test_a_file_is_cut_at_its_separator(tmp_path: Path) -> None:
    write(
        tmp_path, {"stories.txt": b"one\n---\n\n---\r\ntwo\n---\n", "x.txt": b"a---b"}
    )
    cut = partial(own_texts, separator="---\n")
    documents = list(cut(tmp_path / "stories.txt"))
    assert [(d.text, d.origin, d.unit) for d in documents] == [
        ("one\n", "stories.txt#1", "stories.txt#1"),
        ("two\n", "stories.txt#3", "stories.txt#3"),
    ]
    assert [d.unit for d in cut(tmp_path)] == ["stories.txt", "stories.txt", "x.txt"]
    (whole,) = own_texts(tmp_path / "x.txt")
    assert (whole.text, whole.unit, whole.origin) == ("a---b", "x.txt", "x.txt")


def test_a_package_is_read_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {
        "one": "License-Expression: MIT\nLicense: other",
        "two": "License: BSD\n  Permission is\n  granted",
        "three": "Classifier: Topic :: X\nClassifier: License :: OSI Approved :: Zlib",
        "four": "Summary: nothing is said",
    }
    for name, field in fields.items():
        files = {
            f"pk_{name}/__init__.py": b"",
            f"pk_{name}/b.py": b"# coding: latin-1\r\nx = '\xe9'\n",
            f"pk_{name}/a.py": b"x = '\xff'\n",
            f"pk_{name}/tests/test_b.py": b"y = 1\n",
            f"pk_{name}/gone.py": b"",
            f"pk_{name}/data.txt": b"x",
            f"pk_{name}-1.0.dist-info/METADATA": (
                f"Metadata-Version: 2.1\nName: pk-{name}\nVersion: 1.0\n{field}\n"
            ).encode(),
        }
        names = [*files, "../../bin/tool.py"] if name != "four" else ["pk/x.txt"]
        record = "".join(f"{path},,\n" for path in names)
        files[f"pk_{name}-1.0.dist-info/RECORD"] = record.encode()
        write(tmp_path, files)
        (tmp_path / f"pk_{name}/gone.py").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    licences = []
    for name in ("one", "two", "three"):
        problems: list[str] = []
        (document,) = installed_package(f"pk-{name}", problems)
        assert document.text == "# coding: latin-1\nx = 'é'\n"
        assert document.origin == f"pk-{name}-1.0/pk_{name}/b.py"
        assert document.unit == f"pk-{name}"
        assert "a.py" in problems[0]
        assert all(
            "gone.py" in fault for fault in problems[1:]
        )  # newer Pythons skip it
        licences.append(document.licence)
    assert licences == ["MIT", "BSD", "OSI Approved :: Zlib"]
    with pytest.raises(CorpusError, match="'pk-four' lists no .py files"):
        list(installed_package("pk-four"))
    with pytest.raises(CorpusError, match="a.py cannot be read .*takes a list"):
        list(installed_package("pk-one"))
    for name in ("no-such-package", ""):
        with pytest.raises(CorpusError, match=f"no package {name!r} is installed"):
            list(installed_package(name))


def test_a_real_package_has_sources_and_a_licence() -> None:
    documents = list(installed_package("pytest"))
    assert len(documents) > 30 and {document.licence for document in documents} == {
        "MIT"
    }


SOURCE = '''
"""Module
    text."""
class A:
    """Class."""
    async def f(self):
        """Deep.

        Indented.
        """
        def g():
            "Deepest."
    x = 1
    """No docstring."""
def h():
    return "none"
bad = "\\d"
'''


def test_docstrings_become_documents() -> None:
    document = Document(SOURCE, "unit", "origin", "MIT")
    assert [(d.text, d.origin, d.unit, d.licence) for d in docstrings([document])] == [
        ("Module\ntext.\n", "origin#L2", "unit", "MIT"),
        ("Class.\n", "origin#L5", "unit", "MIT"),
        ("Deep.\n\nIndented.\n", "origin#L7", "unit", "MIT"),
        ("Deepest.\n", "origin#L12", "unit", "MIT"),
    ]


@pytest.mark.parametrize(
    "text", ["print 'old'", "x = '\0'", "(" * 5000 + ")" * 5000, "-" * 100_000 + "1"]
)
def test_what_is_no_python_is_told(text: str) -> None:
    documents = [Document(text, "u", "o", "l"), Document("'Doc.'", "u", "o", "l")]
    problems: list[str] = []
    (found,) = docstrings(documents, problems)
    assert found.text == "Doc.\n"
    assert len(problems) == 1 and problems[0].startswith("o is not Python of today")
    with pytest.raises(CorpusError, match="takes a list to go on"):
        list(docstrings(documents))


def test_the_catalogue_is_exact() -> None:
    table = catalogue()
    assert {
        "tiny-shakespeare",
        "tinystories-train",
        "tinystories-validation",
        "wikitext-2-train",
        "fineweb-edu",
        "gutenberg",
    } <= set(table)
    for entry in table.values():
        assert entry.address.startswith("https://") and entry.licence and entry.title
        assert entry.kind in ("text", "parquet", "gutenberg")
        if entry.kind != "gutenberg":
            assert entry.bytes > 10**5
            assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
            assert bool(entry.column) == (entry.kind == "parquet")
            assert entry.separator or entry.column
        if "huggingface.co" in entry.address:  # the file of one day, not of every day
            assert re.search("/resolve/[0-9a-f]{40}/", entry.address)


def stories(count: int) -> bytes:
    texts = [f"Story {n}.\n\nIt ends’.\n" for n in range(count)]
    return "<|endoftext|>\n".join(texts).encode()


def entry_for(file: Path, **changes: str) -> Entry:
    entry = Entry(
        name="stories",
        title="Stories",
        address="http://127.0.0.1:1/stories.txt",
        kind="text",
        licence="CC0-1.0",
        bytes=file.stat().st_size,
        sha256=sha256_of(file),
        separator="<|endoftext|>",
    )
    return replace(entry, **changes)


def test_a_local_file_stands_in_for_the_network(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(stories(50))
    documents = list(public(entry_for(file), file=file))
    assert [d.origin for d in documents] == [f"stories#{n}" for n in range(1, 51)]
    assert documents[1] == Document(
        "Story 1.\n\nIt ends’.\n", "stories#2", "stories#2", "CC0-1.0"
    )
    some = list(public(entry_for(file), file=file, first=300))
    assert documents[: len(some)] == some and 5 < len(some) < 15
    with pytest.raises(CorpusError, match="no whole document in 5 bytes"):
        list(public(entry_for(file), file=file, first=5))
    with pytest.raises(
        CorpusError, match="expected the SHA-256 .*`first` takes a part"
    ):
        list(public(entry_for(file, sha256="0" * 64), file=file))
    with pytest.raises(CorpusError, match="the file is missing"):
        list(public(entry_for(file), file=tmp_path / "absent"))
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff")
    with pytest.raises(CorpusError, match="bad.txt is not UTF-8"):
        list(public(entry_for(bad), file=bad))


def test_documents_are_the_same_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(stories(50))
    whole = list(public(entry_for(file), file=file))
    for size in (1, 2, 7, 100):
        monkeypatch.setattr("cort33x_lib.text.public.BLOCK", size)
        assert list(public(entry_for(file), file=file)) == whole


class Ranges(SimpleHTTPRequestHandler):
    """Serves a folder, parts of files too, and counts the bytes."""

    def do_GET(self) -> None:
        data = Path(self.directory, self.path[1:]).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = 0, len(data)
        if asked and self.server.ranges:
            start, end = int(asked[1]), min(int(asked[2] or end) + 1, end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{self.server.tag}"')
        self.end_headers()
        self.wfile.write(data[start:end])
        self.server.sent.append(end - start)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    handler = partial(Ranges, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.sent, server.ranges, server.tag = [], True, "one"
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_corpus_is_downloaded_once(tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_bytes(stories(500))
    with serving(tmp_path) as server:
        entry = entry_for(file, address=f"{server.address}/stories.txt")
        kept = tmp_path / "kept"
        for _ in range(2):
            assert len(list(public(entry, folder=kept))) == 500
            assert len(list(public(entry, folder=kept, first=999))) > 20
        assert server.sent == [file.stat().st_size, 999]
    assert len(list(public(entry, folder=kept))) == 500
    with pytest.raises(Offline, match=r"stories.txt cannot be reached .* as `file`"):
        list(public(entry, folder=tmp_path / "other"))


def write_rows(path: Path, texts: list[str | None], group: int) -> None:
    noise = random.Random(0)
    columns = {"text": texts, "noise": [noise.randbytes(4000) for _ in texts]}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=group)


def test_articles_are_put_together_from_rows(tmp_path: Path) -> None:
    rows = ["", " = One = \n", "", " Text . \n", None, " = = Part = = \n", " More . \n"]
    rows += [" = Two ( 2 ) = \n", " a = b = c \n", " = not a title \n"]
    file = tmp_path / "wiki.parquet"
    write_rows(file, rows, group=3)
    made = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    entry = replace(catalogue()["wikitext-2-train"], **made)
    one, two = public(entry, file=file)
    assert one.text == " = One = \n Text . \n = = Part = = \n More . \n"
    assert two.text == " = Two ( 2 ) = \n a = b = c \n = not a title \n"
    assert [d.text for d in public(entry, file=file, first=60)] == [one.text]


def test_only_the_rows_that_are_asked_for_are_fetched(tmp_path: Path) -> None:
    file = tmp_path / "web.parquet"
    texts = [f"Page {n}: " + "word " * 50 + "\n" for n in range(1000)]
    write_rows(file, texts, group=50)
    with serving(tmp_path) as server:
        entry = replace(
            catalogue()["fineweb-edu"],
            address=f"{server.address}/web.parquet",
            bytes=file.stat().st_size,
            sha256=sha256_of(file),
        )
        kept = tmp_path / "kept"
        documents = list(public(entry, first=20_000, folder=kept))
        assert [d.text for d in documents] == texts[: len(documents)]
        assert 19_500 < sum(d.nbytes for d in documents) <= 20_000
        assert sum(server.sent) < 0.1 * entry.bytes
        asked = len(server.sent)
        assert list(public(entry, first=20_000, folder=kept)) == documents
        assert len(server.sent) == asked
        assert len(list(public(entry, folder=kept))) == 1000
        server.ranges = False
        with pytest.raises(DownloadError, match="sends no parts of files"):
            list(public(entry, first=300, folder=kept))
        server.ranges = True
        with pytest.raises(DownloadError, match="expected 5 bytes, the server has"):
            list(public(replace(entry, bytes=5), first=300, folder=kept))
        untouched = sorted(path.name for path in kept.iterdir())
    assert untouched == [
        "fineweb-edu.parquet",
        "fineweb-edu.parquet.json",
        "first-20000-fineweb-edu",
    ]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "web.parquet", ["a page\n"] * 100, group=10)
    with serving(tmp_path) as server:
        address = f"{server.address}/web.parquet"
        entry = replace(catalogue()["fineweb-edu"], address=address, bytes=None)
        documents = public(entry, first=10**6, folder=tmp_path / "kept")
        server.sent = Tags(server)
        with pytest.raises(DownloadError, match="the file changed while it was read"):
            list(documents)
    assert not (tmp_path / "kept").exists()


class Tags(list):
    """After three answers, another file is there."""

    def __init__(self, server: ThreadingHTTPServer):
        super().__init__()
        self.server = server

    def append(self, count: int) -> None:
        super().append(count)
        self.server.tag = "two" if len(self) > 2 else "one"


def test_parquet_that_is_none_or_lacks_the_column_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    for data in (b"", b"PAR1", b"PAR1" + bytes(500) + b"PAR1"):
        file.write_bytes(data)
        with pytest.raises(CorpusError, match="no Parquet with a column 'text'"):
            list(public("fineweb-edu", file=file, first=10))
    parquet.write_table(pyarrow.table({"other": ["a"]}), file)
    with pytest.raises(CorpusError, match="no Parquet with a column 'text'"):
        list(public("fineweb-edu", file=file, first=10))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    script = """
import sys
sys.modules["pyarrow"] = None
from cort33x_lib.text.public import public
try:
    list(public("fineweb-edu", file=sys.argv[1], first=10))
except ValueError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "x.parquet")]
    said = subprocess.check_output(command, cwd=ROOT, text=True)
    assert "needs the package pyarrow: pip install -e '.[parquet]'" in said


BODY = "A Tale\n\nIt was the best of times.\n\nTHE END"
HEADER = "The Project Gutenberg EBook of A Tale, by A. Writer\n\nTitle: A Tale\n\n"
LICENCE = "\n\nProject Gutenberg is a trade mark.\n*** START: FULL LICENSE ***\nText\n"
BOOKS = {
    "new": (
        "*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\n",
        "      *** END OF THE PROJECT GUTENBERG EBOOK A TALE ***",
    ),
    "this": (
        "*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***\n",
        "End of the Project Gutenberg EBook of A Tale, by A. Writer\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***",
    ),
    "no space": (
        "***START OF THE PROJECT GUTENBERG EBOOK A TALE***\n",
        "***END OF THE PROJECT GUTENBERG EBOOK A TALE***",
    ),
    "a long title": (
        "*** START OF THIS PROJECT GUTENBERG EBOOK\nA VERY LONG TALE ***\n",
        "*** END OF THIS PROJECT GUTENBERG EBOOK\nA VERY LONG TALE ***",
    ),
    "no stars at its end": (
        "*** START OF THE PROJECT GUTENBERG EBOOK A TALE\n",
        "*** END OF THE PROJECT GUTENBERG EBOOK A TALE",
    ),
    "etext": (
        "*** START OF THE PROJECT GUTENBERG ETEXT OF A TALE ***\n",
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN EBOOKS**START***",
    ),
    "small print first": (
        "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWords.\n"
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        "End of Project Gutenberg's A Tale, by A. Writer",
    ),
    "no end": ("*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\n", None),
}


@pytest.mark.parametrize("name", BOOKS)
def test_a_book_loses_its_header_and_licence(name: str, tmp_path: Path) -> None:
    start, end = BOOKS[name]
    text = f"{HEADER}{start}\n\n{BODY}\n\n" + (f"{end}{LICENCE}" if end else "")
    assert without_licence(text) == BODY + "\n"
    file = tmp_path / "pg1.txt"
    file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    (document,) = public("gutenberg", file=file, number=1)
    assert document.text == BODY + "\n" and document.unit == "gutenberg/1"
    assert document.licence == "public domain in the United States"


def test_a_book_without_marks_is_not_guessed() -> None:
    assert without_licence(BODY + "\n") == BODY + "\n"
    for text in (HEADER + BODY, f"{BODY}\nEnd of Project Gutenberg's A Tale\n"):
        with pytest.raises(CorpusError, match="no mark says where the header"):
            without_licence(text)
    start = BOOKS["new"][0]
    with pytest.raises(CorpusError, match="under copyright"):
        without_licence(f"This is a COPYRIGHTED Project Gutenberg eBook\n{start}{BODY}")


def test_arguments_that_do_not_fit_are_refused() -> None:
    for arguments, fault in (
        ({"corpus": "none"}, "no corpus 'none'; there are: tiny-shakespeare, "),
        ({"corpus": "gutenberg"}, "a number belongs to a book of Gutenberg, got None"),
        ({"corpus": "fineweb-edu", "number": 3}, "a number belongs to a book"),
        ({"corpus": "gutenberg", "number": 3, "first": 9}, "a book is taken whole"),
    ):
        with pytest.raises(CorpusError, match=fault):
            list(public(**arguments))
