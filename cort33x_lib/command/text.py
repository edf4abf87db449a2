"""`corpus build` and `tokenizer train | encode`: from sources to files of tokens."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain

from tqdm import tqdm

from cort33x_lib.files import write_atomically
from cort33x_lib.text.cleaning import clean
from cort33x_lib.text.corpus import (
    Document,
    load_corpus,
    manifest,
    save_corpus,
    standard_library,
)
from cort33x_lib.text.duplicates import NearDuplicates, exact_duplicates
from cort33x_lib.text.public import public
from cort33x_lib.text.sources import installed_package, own_texts
from cort33x_lib.text.story_world import World
from cort33x_lib.text.token_files import encode_to_file
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer

SOURCES = "stories:COUNT standard-library folder:PATH package:NAME public:NAME"


def whole_number(text: str, source: str) -> int:
    """A number in a source. Raises ValueError."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"source {source!r}: expected a whole number, got {text!r}")
    return int(text)


def documents_of(source: str, problems: list[str]) -> Iterable[Document]:
    """The documents of one source, spelled as the help says. Raises ValueError."""
    kind, _, rest = source.partition(":")
    name, _, more = rest.partition(":")
    if kind == "stories" and rest:
        return World.load().stories(more or "train", whole_number(name, source))
    if kind == "standard-library" and not rest:
        return standard_library(problems=problems)
    if kind == "folder" and rest:
        return own_texts(rest, problems=problems)
    if kind == "package" and rest:
        return installed_package(rest, problems=problems)
    if kind == "public" and rest:
        return public(name, first=whole_number(more, source) if more else None)
    raise ValueError(f"source {source!r}: expected one of {SOURCES}")


def build_command(asked: argparse.Namespace) -> None:
    """Collect documents into the folder of a corpus, cleaned when that is asked."""
    problems: list[str] = []
    sources = [documents_of(source, problems) for source in asked.sources]
    kept = list(tqdm(chain(*sources), "collect", unit=" documents", delay=1))
    for problem in problems:
        tqdm.write(f"left out: {problem}", file=asked.errors)
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.deduplicate:
        filters = {"exact": exact_duplicates, "near": NearDuplicates()}
        kept, ledgers = clean(kept, filters)
        entries = [asdict(ledger) for ledger in ledgers]
        write_atomically(
            asked.folder / "ledger.json",
            json.dumps(entries, ensure_ascii=False, indent=1) + "\n",
        )
        for ledger in ledgers:
            before, after = ledger.documents
            print(f"{ledger.step} duplicates: {before:,} documents, {after:,} stay")
    if not kept:
        raise ValueError(f"no documents in {', '.join(asked.sources)}")
    save_corpus(asked.folder, kept)
    size = sum(document.nbytes for document in kept)
    print(f"{len(kept):,} documents, {size:,} bytes in {asked.folder}")
    print(f"fingerprint {manifest(kept)['fingerprint']}")


def tokenizer_command(asked: argparse.Namespace) -> None:
    """Learn a tokenizer from a corpus and write it as one file."""
    documents = load_corpus(asked.corpus)
    bar = tqdm(documents, "read", unit=" documents", delay=1)
    texts: Iterator[str] = (document.text for document in bar)
    tokenizer = train_tokenizer(texts, asked.vocabulary, pattern=asked.pattern)
    tokenizer.save(asked.out)
    print(f"{tokenizer.vocabulary:,} ids in {asked.out}\nname {tokenizer.name}")


def encode_command(asked: argparse.Namespace) -> None:
    """Encode a corpus as a file of tokens."""
    tokenizer = Tokenizer.load(asked.tokenizer)
    tokens = encode_to_file(tokenizer, load_corpus(asked.corpus), asked.out)
    size = int(tokens.nbytes.sum())
    print(
        f"{len(tokens.ids):,} tokens of {len(tokens):,} documents in {asked.out},"
        f" {size / len(tokens.ids):.2f} bytes a token"
    )
