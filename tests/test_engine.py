"""Cleaning and encoding on datatrove: the same bytes as in one process."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cort33x_lib.files import PROJECT
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.cleaning import clean, one_by_one
from cort33x_lib.text.corpus import Document, load_corpus, manifest, save_corpus
from cort33x_lib.text.duplicates import exact_duplicates
from cort33x_lib.text.engine import BUCKETS, shards
from cort33x_lib.text.filters import redact, repair_encoding
from cort33x_lib.text.shards import open_shards
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None,
    reason="the engine is an extra: pip install cort33x[engine]",
)

RUN = """
import sys
from cort33x_lib.text.corpus import load_corpus
from cort33x_lib.text.engine import run_engine
from cort33x_lib.text.filters import redact, repair_encoding

if __name__ == "__main__":
    source, tokenizer, folder = sys.argv[1:]
    rules = [repair_encoding, redact]
    documents = load_corpus(source)
    print(run_engine(documents, rules, tokenizer, folder, size=25, workers=2))
"""


def dirty_documents():
    """Stories, some twice; broken letters; an address."""
    stories = [
        Document(story.text, story.unit, story.origin, story.licence)
        for story in World.load().stories("train", 90)
    ]
    extra = [Document("Zoë was there. " * 20, "a", f"a {n}", "CC0-1.0") for n in "12"]
    broken = "Zoë was there. ".encode().decode("cp1252") * 20
    extra.append(Document(broken, "b", "b", "CC0-1.0"))  # repaired, it is a duplicate
    extra.append(Document("Write to zoe@example.org or not. ", "c", "c", "CC0-1.0"))
    return [*stories[:60], *extra, *stories[20:90], stories[0]]


def run(script, *words):
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_many_workers_leave_what_one_process_leaves(tmp_path):
    documents = dirty_documents()
    save_corpus(tmp_path / "source", documents)
    tokenizer = train_tokenizer((d.text for d in documents), 600)
    tokenizer.save(tmp_path / "tokenizer.json")
    filters = {
        "encoding": one_by_one(repair_encoding),
        "personal": one_by_one(redact),
        "exact": exact_duplicates,
    }
    kept, ledgers = clean(documents, filters)
    assert len(kept) == 92 and ledgers[0].totals and ledgers[1].totals
    save_corpus(tmp_path / "plain", kept)
    plain = encode_documents(tokenizer, kept)
    script = tmp_path / "run.py"
    script.write_text(RUN, encoding="utf-8")
    words = [tmp_path / "source", tmp_path / "tokenizer.json", tmp_path / "engine"]
    fingerprint = run(script, *words)
    assert fingerprint == manifest(kept)["fingerprint"]
    assert load_corpus(tmp_path / "engine") == kept
    for name in ("documents.jsonl", "manifest.json"):
        expected = (tmp_path / "plain" / name).read_bytes()
        assert (tmp_path / "engine" / name).read_bytes() == expected, name
    assert_same(open_shards(shards(tmp_path / "engine"), tokenizer), plain)
    done = sorted((tmp_path / "engine" / "log").glob("*/completions/*"))
    assert len(done) == 6 + BUCKETS + 6

    # A task that was lost is done again, and nothing else is.
    cleaned = tmp_path / "engine" / "clean"
    before = {file.name: file.stat().st_mtime_ns for file in cleaned.iterdir()}
    (tmp_path / "engine" / "log" / "1-clean" / "completions" / "00002").unlink()
    (cleaned / "00002.jsonl").unlink()
    assert run(script, *words) == fingerprint
    again = {file.name: file.stat().st_mtime_ns for file in cleaned.iterdir()}
    assert {name for name in again if again[name] != before[name]} == {"00002.jsonl"}
    assert_same(open_shards(shards(tmp_path / "engine"), tokenizer), plain)


def assert_same(sharded, plain):
    """The same documents, and the same batches across the ends of the files."""
    assert len(sharded.ids.shards) == 6 and len(sharded) == len(plain)
    for name in ("ids", "starts", "nbytes"):
        assert np.array_equal(getattr(sharded, name), getattr(plain, name)), name
    one, other = (Batches(tokens, 4, 64, seed=0) for tokens in (sharded, plain))
    for step in range(40):
        assert torch.equal(one[step][0], other[step][0])
