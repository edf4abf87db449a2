"""The corpus: units stay whole, changes are found, and Python's own sources load."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cort33x_lib.files import digest
from cort33x_lib.text.corpus import (
    CorpusError,
    Document,
    MissingSources,
    load_corpus,
    manifest,
    save_corpus,
    split_by_unit,
    standard_library,
)

ROOT = Path(__file__).parents[1]
FRACTIONS = {"train": 0.8, "validation": 0.15, "test": 0.05}


@pytest.fixture(scope="module")
def sources() -> list[Document]:
    problems: list[str] = []
    documents = list(standard_library(problems=problems))
    assert problems == []
    return documents


def some_documents() -> list[Document]:
    texts = [
        "one\n",
        "zwei \u2028 drei\r\n",
        "",
        "\x00\x1b[31m",
        "👩‍🚀 שלום",
        '"\\n"',
        "one\n",
    ]
    return [
        Document(text, f"unit {n // 2}", f"made here/{n}", "MIT")
        for n, text in enumerate(texts)
    ]


def test_a_document_counts_bytes_not_characters() -> None:
    document = Document("naïve 👍", "unit", "origin", "MIT")
    assert document.nbytes == len("naïve 👍".encode()) == 11
    assert document.sha256 == digest("naïve 👍".encode())
    with pytest.raises(AttributeError):
        document.text = "other"


def test_a_document_refuses_what_utf8_cannot_write() -> None:
    with pytest.raises(CorpusError, match=r"'o': text holds .*U\+D83D at character 2"):
        Document("ab\ud83d", "u", "o", "l")
    with pytest.raises(CorpusError, match="origin holds the lone surrogate"):
        Document("ab", "u", "name\udcff", "l")
    with pytest.raises(CorpusError, match="text must be text, got bytes"):
        Document(b"ab", "u", "o", "l")


def test_a_split_keeps_units_whole_and_everything(sources: list[Document]) -> None:
    parts = split_by_unit(sources, FRACTIONS, seed=3)
    assert list(parts) == list(FRACTIONS)
    units = [{document.unit for document in part} for part in parts.values()]
    assert sum(map(len, units)) == len(set.union(*units)) > 100
    together = [document for part in parts.values() for document in part]
    assert sorted(d.origin for d in together) == sorted(d.origin for d in sources)


def test_a_split_has_about_its_fractions_and_another_seed_another_split() -> None:
    documents = [Document("x", f"unit {n}", "o", "l") for n in range(4000)]
    parts = split_by_unit(documents, FRACTIONS, seed=0)
    for name, fraction in FRACTIONS.items():
        five_errors = 5 * (fraction * (1 - fraction) / 4000) ** 0.5
        assert abs(len(parts[name]) / 4000 - fraction) < five_errors
    assert split_by_unit(documents, FRACTIONS, seed=1) != parts
    assert split_by_unit(documents, FRACTIONS, seed=0) == parts


def test_no_document_moves_when_others_come(sources: list[Document]) -> None:
    chance = random.Random(0)
    whole = split_by_unit(sources, FRACTIONS)
    home = {d.origin: name for name, part in whole.items() for d in part}
    for _ in range(5):
        some = chance.sample(sources, 200)
        for name, part in split_by_unit(some, FRACTIONS).items():
            assert all(home[document.origin] == name for document in part)


@pytest.mark.parametrize(
    "fractions",
    [{}, {"a": 0.9}, {"a": 0.9, "b": 0.2}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}],
)
def test_fractions_that_do_not_sum_to_one_are_refused(fractions: dict) -> None:
    with pytest.raises(ValueError, match="expected none below 0, sum 1"):
        split_by_unit([], fractions)
    assert split_by_unit([], {f"{n}": 0.1 for n in range(10)}).keys()


def test_the_fingerprint_knows_content_and_not_order() -> None:
    documents = some_documents()
    kept = manifest(documents)
    shuffled = random.Random(1).sample(documents, len(documents))
    assert manifest(shuffled)["fingerprint"] == kept["fingerprint"]
    assert len(kept["documents"]) == len(documents)
    fingerprints = {kept["fingerprint"], manifest(documents[:-1])["fingerprint"]}
    for field in ("text", "unit", "origin", "licence"):
        changed = [replace(documents[0], **{field: "x"}), *documents[1:]]
        fingerprints.add(manifest(changed)["fingerprint"])
    assert len(fingerprints) == 6


def test_a_saved_corpus_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "a corpus é"
    for documents in (some_documents(), some_documents()[:3], []):
        save_corpus(folder, iter(documents))
        assert load_corpus(folder) == documents
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["documents.jsonl", "manifest.json"]


def test_the_standard_library_comes_back(
    sources: list[Document], tmp_path: Path
) -> None:
    save_corpus(tmp_path, sources)
    assert load_corpus(tmp_path) == sources


def edit(name: str, old: bytes, new: bytes):
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new, 1))

    return change


def cut(name: str, size: int):
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:size])

    return change


DAMAGE = {
    "no folder": (shutil.rmtree, "manifest.json cannot be read"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "manifest.json cannot be read .*make it with save_corpus",
    ),
    "no documents": (
        lambda folder: (folder / "documents.jsonl").unlink(),
        "documents.jsonl cannot be read",
    ),
    "empty manifest": (cut("manifest.json", 0), "manifest.json, line 1: not JSON"),
    "half a manifest": (
        cut("manifest.json", 200),
        r"manifest.json, line \d+: not JSON",
    ),
    "no documents in it": (cut("documents.jsonl", 0), "0 documents, .* has 7"),
    "half a document": (cut("documents.jsonl", 30), "line 1: the last line has no end"),
    "last line end": (cut("documents.jsonl", -1), "line 7: the last line has no end"),
    "edited text": (
        edit("documents.jsonl", b"zwei", b"vier"),
        "line 2: the document di",
    ),
    "edited unit": (
        edit("documents.jsonl", b"unit 1", b"unit 0"),
        "line 3: the documen",
    ),
    "a document twice": (
        edit("documents.jsonl", b"\n", b"\n{}\n"),
        "8 documents, the manifest has 7",
    ),
    "bad JSON": (
        edit("documents.jsonl", b'"zwei', b"zwei"),
        "line 2: not JSON at char",
    ),
    "deeply nested": (
        edit("documents.jsonl", b'{"text"', b"[" * 100_000 + b'"text"'),
        "line 1: not JSON that a corpus has",
    ),
    "a field too few": (
        edit("documents.jsonl", b'"licence"', b'"x"'),
        "expected an obj",
    ),
    "a number as text": (
        edit("documents.jsonl", b'"one\\n"', b"1"),
        "text must be text",
    ),
    "bad UTF-8": (
        edit("documents.jsonl", b"zwei", b"zw\xff"),
        "line 2: byte 12 is not UTF-8",
    ),
    "a lone surrogate": (
        edit("documents.jsonl", b"zwei", b"\\ud800"),
        "line 2: .* lone surrogate",
    ),
    "another format": (edit("manifest.json", b"corpus-1", b"corpus-2"), "the format"),
    "a list": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "expected the format",
    ),
    "edited fingerprint": (
        edit("manifest.json", b'"fingerprint": "', b'"fingerprint": "0'),
        "the fingerprint does not match",
    ),
    "edited entry": (
        edit("manifest.json", b'"bytes": 4', b'"bytes": 5'),
        "line 1: the d",
    ),
    "no entries": (edit("manifest.json", b'"documents"', b'"entries"'), "has no"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_corpus_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    save_corpus(folder, some_documents())
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(folder)
    assert str(folder) in str(caught.value)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    save_corpus(tmp_path, some_documents())
    chance = random.Random(2)
    for name in ("documents.jsonl", "manifest.json"):
        data = (tmp_path / name).read_bytes()
        for _ in range(300):
            changed = bytearray(data)
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            (tmp_path / name).write_bytes(changed)
            try:
                loaded = load_corpus(tmp_path)
            except CorpusError:
                continue
            # White space between the parts of a JSON file may change into other.
            assert loaded == some_documents()
            assert json.loads(changed) == json.loads(data)
        (tmp_path / name).write_bytes(data)


def test_the_standard_library_is_named_and_has_no_tests(
    sources: list[Document],
) -> None:
    version = sys.version.split()[0]
    units = {document.origin: document.unit for document in sources}
    assert units[f"python-{version}/json/decoder.py"] == "json"
    assert units[f"python-{version}/random.py"] == "random"
    assert len(units) == len(sources) > 300
    folders = {part for origin in units for part in origin.split("/")[1:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages"}
    assert {document.licence for document in sources} == {"PSF-2.0"}
    assert all(document.text for document in sources)


def test_sources_are_decoded_as_they_declare(tmp_path: Path) -> None:
    files = {
        "b/latin.py": b"# -*- coding: latin-1 -*-\r\nx = '\xe9'\n",
        "a.py": b"\xef\xbb\xbfx = '\xc3\xa9'\n",
        "b/empty.py": b"",
        "b/wrong.py": b"x = '\xe9'\n",
        "b/unknown.py": b"# coding: no-such-code\n",
        "tests/c.py": b"x = 1\n",
        "site-packages/d.py": b"x = 1\n",
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    problems: list[str] = []
    documents = list(standard_library(tmp_path, problems))
    assert [(document.unit, document.text) for document in documents] == [
        ("a", "x = 'é'\n"),
        ("b", "# -*- coding: latin-1 -*-\nx = 'é'\n"),
    ]
    assert ["unknown.py" in problems[0], "wrong.py" in problems[1]] == [True, True]
    with pytest.raises(CorpusError, match="unknown.py cannot be read"):
        list(standard_library(tmp_path))


def test_a_python_without_sources_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingSources, match="no .py sources in .*install a Python"):
        list(standard_library(tmp_path))
    with pytest.raises(MissingSources):
        list(standard_library(tmp_path / "absent"))


def test_the_split_is_the_same_in_every_process() -> None:
    script = """
from cort33x_lib.text.corpus import Document, split_by_unit
documents = [Document("x", f"unit {n}", "o", "l") for n in range(100)]
parts = split_by_unit(documents, {"a": 0.5, "b": 0.5}, seed=5)
print(*(document.unit for document in parts["a"]))
"""
    found = set()
    for seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        found.add(subprocess.check_output(command, env=environment, cwd=ROOT))
    assert len(found) == 1 and found.pop().count(b"unit") > 30
