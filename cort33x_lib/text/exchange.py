"""The tokenizer in the file formats of Hugging Face tokenizers and tiktoken.

Both then give our ids. The name of a special in a text is the exception: Hugging Face
makes the special's id of it, unless `encode_special_tokens` is set to True there, and
tiktoken's `encode` raises, while its `encode_ordinary` does as ours. Neither library
is imported.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from cort33x_lib.files import write_atomically
from cort33x_lib.text.merging import BYTES
from cort33x_lib.text.patterns import LONGEST, PATTERNS
from cort33x_lib.text.tokenizer import END, Tokenizer


def byte_alphabet() -> list[str]:
    """A printable letter for each byte, as GPT-2's vocabulary file writes bytes.

    Bytes that print stand for themselves, the others in order for U+0100 onwards
    (Radford et al. 2019).
    """
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in printing else next(others)) for value in range(256)]


def to_huggingface(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write the `tokenizer.json` that Hugging Face tokenizers load; ids are equal.

    Raises ValueError when a special has the name of another token's letters, since one
    name has one id there.
    """
    alphabet = byte_alphabet()
    tokens = [
        "".join(alphabet[value] for value in tokenizer.token_bytes(id))
        for id in range(256 + len(tokenizer.merges))
    ]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    for name in tokenizer.specials:
        if name in vocabulary:
            raise ValueError(f"special {name!r}: expected no other token's letters")
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    level["trim_offsets"] = True
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[tokenizer.pattern].expression},
        "behavior": "Isolated",
        "invert": False,
    }
    added = {"single_word": False, "lstrip": False, "rstrip": False}
    added |= {"normalized": False, "special": True}
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": name, **added}
            for name, id in tokenizer.specials.items()
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [[tokens[id] for id in merge] for merge in tokenizer.merges],
        },
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1))


def to_tiktoken(tokenizer: Tokenizer) -> dict:
    """The arguments of `tiktoken.Encoding`, which then gives our ids.

    tiktoken joins any two tokens whose joined bytes are a token, ours only the pair
    that was learnt. For merges learnt from text that is the same; raises ValueError
    for others.
    """
    return {
        "name": f"cort33x-{tokenizer.name[:12]}",
        "pat_str": PATTERNS[tokenizer.pattern].expression,
        "mergeable_ranks": _ranks(tokenizer),
        "special_tokens": tokenizer.specials,
    }


def to_ranks(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write a `.tiktoken` file: a token in base64 and its id a line; no specials.

    Raises ValueError like `to_tiktoken`.
    """
    lines = [
        f"{base64.b64encode(token).decode('ascii')} {id}\n"
        for token, id in _ranks(tokenizer).items()
    ]
    write_atomically(path, "".join(lines))


def from_ranks(
    path: str | os.PathLike[str],
    pattern: str = "gpt-2",
    specials: Iterable[str] = (END,),
) -> Tokenizer:
    """The tokenizer of a ranks file such as GPT-2's; the merges follow from the ranks.

    A byte's id becomes its value, whatever its rank was; the other tokens keep their
    order, so they keep their ranks too when the bytes come first and no rank is left
    out. Raises ValueError with the file and the line when it is damaged.
    """
    try:
        ranks = _read_ranks(Path(path).read_bytes())
        for value in BYTES:
            if value not in ranks:
                raise ValueError(f"byte {value!r} has no rank: expected all 256")
        merged = sorted(ranks.keys() - set(BYTES), key=ranks.__getitem__)
        ids = {token: id for id, token in enumerate([*BYTES, *merged])}
        merges = [tuple(ids[part] for part in _parts(token, ids)) for token in merged]
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is no ranks file ({error})") from error
    return Tokenizer(tuple(merges), tuple(specials), pattern)


def _read_ranks(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        token, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(token, validate=True)
        except binascii.Error:
            token = b""
        short = 0 < len(token) <= LONGEST and len(rank) < 10
        if not short or token in ranks or not rank.isdigit():
            raise ValueError(f"line {number}: expected a new short token and its rank")
        ranks[token] = int(rank)
    if len(set(ranks.values())) < len(ranks):
        raise ValueError("two tokens have one rank: expected distinct ranks")
    return ranks


def _ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The id of each token that is no special, once tiktoken's rule gives our merges.

    If it splits every token as our merges do, it joins nothing else in any text: what
    happens inside a token's bytes does not depend on what stands around them.
    """
    count = 256 + len(tokenizer.merges)
    ranks = {tokenizer.token_bytes(id): id for id in range(count)}
    for id, merge in enumerate(tokenizer.merges, 256):
        token = tokenizer.token_bytes(id)
        if tuple(ranks[part] for part in _parts(token, ranks)) != merge:
            raise ValueError(f"merge {merge} of {token!r}: expected learnt merges")
    return ranks


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that `token` is joined from, by the ranks below its own."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, ranks[token]) for a, b in pairwise(parts)]
        if (least := min(joined)) >= ranks[token]:
            raise ValueError(f"token {token!r}: expected two tokens that make it")
        at = joined.index(least)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
