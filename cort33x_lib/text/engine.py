"""Cleaning and encoding by many workers, on machines that share a folder.

The documents are cut into parts. Three rounds of tasks follow, each on files that the
round before has left: clean the parts and sort their hashes into buckets; find in each
bucket what is there twice; encode what stays. What comes out is what `clean` and
`save_corpus` give, byte for byte, and a token file a part, which `open_shards` reads.

Chosen: datatrove, since a task is a file and a mark that it is done, so a run that died
goes on where it was, and since it needs no server; the same rounds run under its Slurm
and Ray executors. Left out: near duplicates, whose bands would be buckets of the same
kind, with a round of its own for the clusters.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cort33x_lib.files import digest, write_atomically
from cort33x_lib.text.cleaning import Answer, Removed
from cort33x_lib.text.corpus import FIELDS, FORMAT, Document, entry_of
from cort33x_lib.text.token_files import encode_to_file
from cort33x_lib.text.tokenizer import Tokenizer

Rule = Callable[[Document], Answer]
BUCKETS = 16


def cut(documents: Iterable[Document], folder: Path, size: int) -> int:
    """Write documents into parts of `size`, as they come; gives how many parts."""
    documents, number = iter(documents), 0
    while part := list(islice(documents, size)):
        write_part(folder / "cut" / f"{number:05d}.jsonl", part)
        number += 1
    return number


def write_part(path: Path, documents: Iterable[Document]) -> None:
    """One document a line, whole or not at all."""
    lines = (
        json.dumps({name: getattr(document, name) for name in FIELDS})
        for document in documents
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def read_part(path: Path) -> Iterator[Document]:
    """The documents of a part."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield Document(**json.loads(line))


@dataclass(frozen=True)
class Clean:
    """Round 1, a task a part: apply the rules, and sort hashes into buckets."""

    folder: Path
    rules: tuple[Rule, ...]

    def __call__(self, _: object, rank: int, size: int) -> None:
        kept, buckets = [], [[] for _ in range(BUCKETS)]
        for document in read_part(self.folder / "cut" / f"{rank:05d}.jsonl"):
            for rule in self.rules:
                document = rule(document)
                if isinstance(document, Removed):
                    break
            else:
                hashed = document.sha256
                buckets[int(hashed, 16) % BUCKETS].append((hashed, len(kept)))
                kept.append(document)
        write_part(self.folder / "clean" / f"{rank:05d}.jsonl", kept)
        for bucket, hashes in enumerate(buckets):
            place = self.folder / "hashes" / f"{bucket:02d}" / f"{rank:05d}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, json.dumps(hashes))


@dataclass(frozen=True)
class Choose:
    """Round 2, a task a bucket: of each hash the first stays."""

    folder: Path

    def __call__(self, _: object, rank: int, size: int) -> None:
        seen, repeated = set(), {}
        for file in sorted((self.folder / "hashes" / f"{rank:02d}").glob("*.json")):
            for hashed, place in json.loads(file.read_text(encoding="utf-8")):
                if hashed in seen:
                    repeated.setdefault(file.stem, []).append(place)
                seen.add(hashed)
        (self.folder / "repeated").mkdir(exist_ok=True)
        place = self.folder / "repeated" / f"{rank:02d}.json"
        write_atomically(place, json.dumps(repeated))


@dataclass(frozen=True)
class Encode:
    """Round 3, a task a part: write what stays, as documents and as tokens."""

    folder: Path
    tokenizer: Path

    def __call__(self, _: object, rank: int, size: int) -> None:
        name, repeated = f"{rank:05d}", set()
        for file in (self.folder / "repeated").glob("*.json"):
            found = json.loads(file.read_text(encoding="utf-8"))
            repeated |= set(found.get(name, []))
        documents = enumerate(read_part(self.folder / "clean" / f"{name}.jsonl"))
        kept = [document for place, document in documents if place not in repeated]
        write_part(self.folder / "kept" / f"{name}.jsonl", kept)
        tokenizer = Tokenizer.load(self.tokenizer)
        path = self.folder / "kept" / f"{name}.tokens"
        encode_to_file(tokenizer, kept, path, workers=1)


def run_engine(
    documents: Iterable[Document],
    rules: Sequence[Rule],
    tokenizer: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    size: int = 1000,
    workers: int = 2,
) -> str:
    """Clean, deduplicate and encode into `folder`; gives the corpus's fingerprint.

    It leaves documents.jsonl and manifest.json, as `save_corpus` does, and a token file
    a part: see `shards`. Rules are functions at the top of a module, so that workers
    can be told of them. Raises ImportError where datatrove is not installed.
    """
    from datatrove.executor import LocalPipelineExecutor

    folder = Path(folder).resolve()
    parts = cut(documents, folder, size)
    rounds = {
        "1-clean": (Clean(folder, tuple(rules)), parts),
        "2-choose": (Choose(folder), BUCKETS),
        "3-encode": (Encode(folder, Path(tokenizer).resolve()), parts),
    }
    for name, (work, tasks) in rounds.items():
        LocalPipelineExecutor(
            [work], tasks=tasks, workers=workers, logging_dir=str(folder / "log" / name)
        ).run()
    return join_parts(folder)


def shards(folder: Path) -> list[Path]:
    """The token files of the parts, in the order of the documents."""
    return sorted((Path(folder) / "kept").glob("*.tokens"))


def join_parts(folder: Path) -> str:
    """Join the documents that stay into one corpus; gives its fingerprint."""
    files = sorted((folder / "kept").glob("*.jsonl"))
    entries = []

    def lines() -> Iterator[str]:
        for file in files:
            for document in read_part(file):
                entries.append(entry_of(document))
                fields = {name: getattr(document, name) for name in FIELDS}
                yield json.dumps(fields, ensure_ascii=False) + "\n"

    write_atomically(folder / "documents.jsonl", "".join(lines()))
    ordered = sorted(json.dumps(entry, sort_keys=True) for entry in entries)
    fingerprint = digest("\n".join(ordered).encode("utf-8"))
    kept = {"format": FORMAT, "fingerprint": fingerprint, "documents": entries}
    text = json.dumps(kept, ensure_ascii=False, indent=1)
    write_atomically(folder / "manifest.json", text + "\n")
    return fingerprint
