"""Byte pair encoding: from text to token ids and back without loss.

Every text is UTF-8 bytes, so 256 tokens can write anything; each merge then adds the
token that joins the most frequent pair of neighbours inside the pieces of a pattern.

Chosen: one file holds all there is, and its hash is the name; patterns are picked by
name, never read from a file; pieces are capped, so time is linear in the text whatever
it is; a special comes from text only where a policy names it. numba makes it fast;
without it the same ids come later. Left out: merges drawn at random (dropout).
"""

import codecs
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import chain
from operator import index
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cort33x_lib.files import digest, write_atomically
from cort33x_lib.text.merging import BYTES, counted_merges, merge_piece
from cort33x_lib.text.patterns import LONGEST, PATTERNS, utf8

END = "<|end|>"
FORMAT = "cort33x-tokenizer-1"
CACHED_PIECES = 1 << 16
BLOCK = 1 << 22  # bytes of training text held at once for each worker


@dataclass(frozen=True)
class SpecialPolicy:
    """What the names of specials mean in a text: nothing, unless they are named here.

    A name in `allow` becomes its id, one in `refuse` raises ValueError; where two could
    start, the longest counts. Raises ValueError when a name is in both.
    """

    allow: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if both := self.allow & self.refuse:
            raise ValueError(f"{sorted(both)}: expected to be allowed or refused")

    def parts(self, text: str) -> Iterator[str]:
        """The text cut at the named specials: text, special, text and so on."""
        names = sorted(self.allow | self.refuse, key=len, reverse=True)
        if not names:
            yield text
            return
        place = 0
        for found in re.finditer("|".join(map(re.escape, names)), text):
            if found[0] in self.refuse:
                raise ValueError(
                    f"special {found[0]!r} at character {found.start()}: expected text"
                    " without it"
                )
            yield from (text[place : found.start()], found[0])
            place = found.end()
        yield text[place:]


AS_TEXT = SpecialPolicy()


@dataclass(frozen=True)
class Tokenizer:
    """Encodes text as token ids and decodes ids as text; fixed once made.

    Ids: the 256 bytes, then a token for each merge (a pair of earlier ids) in the order
    learnt, then the specials. Raises ValueError for merges, specials or a pattern name
    that make no tokenizer.
    """

    merges: tuple[tuple[int, int], ...] = field(repr=False)
    special_names: tuple[str, ...] = (END,)
    pattern: str = "prose-2"

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern {self.pattern!r}: expected one of {[*PATTERNS]}")
        if len({"", *self.special_names}) <= len(self.special_names):
            raise ValueError(f"specials {self.special_names}: expected distinct names")
        self._tokens  # noqa: B018  (made now, so that a wrong merge is refused now)

    @cached_property
    def _tokens(self) -> list[bytes]:
        tokens = list(BYTES)
        for merge in self.merges:
            if not all(type(id) is int and 0 <= id < len(tokens) for id in merge):
                raise ValueError(f"merge {merge}: expected ids below {len(tokens)}")
            tokens.append(b"".join(tokens[id] for id in merge))
            if len(merge) != 2 or len(tokens[-1]) > LONGEST:
                raise ValueError(f"merge {merge}: expected a pair of short tokens")
        if len(set(tokens)) < len(tokens):
            raise ValueError("two merges make one token: expected distinct tokens")
        return tokens + [utf8(name) for name in self.special_names]

    @cached_property
    def _engine(self) -> Any:
        """The compiled encoder, or None without numba."""
        if compiled := _compiled():
            return compiled.Encoder(PATTERNS[self.pattern], self.merges, self._tokens)
        return None

    @cached_property
    def _encode(self) -> Callable[[bytes], np.ndarray]:
        """Encodes bytes; compiled where numba is, else piece by piece with a cache."""
        if self._engine:
            return self._engine.encode
        pattern = PATTERNS[self.pattern]
        ranks = {pair: new for new, pair in enumerate(self.merges, 256)}
        cached = lru_cache(CACHED_PIECES)(lambda piece: merge_piece(piece, ranks))
        return lambda data: np.fromiter(
            chain.from_iterable(map(cached, pattern.pieces(data))), np.uint32
        )

    @property
    def vocabulary(self) -> int:
        """How many ids there are: 256 bytes, the merges and the specials."""
        return 256 + len(self.merges) + len(self.special_names)

    @property
    def specials(self) -> dict[str, int]:
        """The id of each special by its name; they are the last ids."""
        first = 256 + len(self.merges)
        return {name: first + place for place, name in enumerate(self.special_names)}

    @cached_property
    def name(self) -> str:
        """The SHA-256 of the tokenizer's file, known before it is saved."""
        return digest(self._file().encode("utf-8"))

    def encode(
        self, text: str, errors: str = "strict", policy: SpecialPolicy = AS_TEXT
    ) -> list[int]:
        """The ids of `text`; the name of a special is text unless the policy names it.

        A lone surrogate cannot be written as UTF-8: it raises ValueError with its
        place, or becomes U+FFFD with `errors="replace"`. So does a policy that names
        no special of this tokenizer, or refuses one that the text has.
        """
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors={errors!r}: expected 'strict' or 'replace'")
        if unknown := (policy.allow | policy.refuse) - {*self.special_names}:
            named = f"policy names {sorted(unknown)}"
            raise ValueError(f"{named}: expected some of {self.special_names}")
        data, ids = utf8(text, errors), []
        if policy == AS_TEXT:
            return self._encode(data).tolist()
        for place, part in enumerate(policy.parts(data.decode("utf-8"))):
            if place % 2:
                ids.append(self.specials[part])
            else:
                ids += self._encode(part.encode("utf-8")).tolist()
        return ids

    def encode_array(self, text: str | bytes) -> np.ndarray:
        """The ids of a text, or of any bytes, as uint32 (tokens,); no specials."""
        return self._encode(text if isinstance(text, bytes) else utf8(text))

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; those of valid UTF-8 are the ids of its text."""
        return self._encode(data).tolist()

    def token_bytes(self, id: int) -> bytes:
        """The bytes one id stands for; raises ValueError when there is no such id."""
        try:
            place = -1 if isinstance(id, bool) else index(id)
        except TypeError:
            place = -1
        if not 0 <= place < self.vocabulary:
            raise ValueError(f"token {id!r}: expected 0 to {self.vocabulary - 1}")
        return self._tokens[place]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, exactly those that were encoded; fast for arrays."""
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and self._engine:
            if ids.size == 0 or (0 <= ids.min() and ids.max() < self.vocabulary):
                return self._engine.decode(ids.astype(np.uint32, copy=False))
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_stream(self, ids: Iterable[int], cut: bool = False) -> Iterator[str]:
        """The text of `ids` as they come, never half a character; joined: `decode`.

        Of ids that were `cut` off, a character that lacks its end is left out.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for id in ids:
            if text := decoder.decode(self.token_bytes(id)):
                yield text
        if text := decoder.decode(b"", final=not cut):
            yield text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one readable JSON file, a merge a line with the token it makes."""
        write_atomically(path, self._file())

    def _file(self) -> str:
        head = dict(format=FORMAT, pattern=self.pattern, specials=self.special_names)
        shown = [token.decode("utf-8", "backslashreplace") for token in self._tokens]
        lines = [
            json.dumps([*pair, text], ensure_ascii=False)
            for pair, text in zip(self.merges, shown[256:], strict=False)
        ]
        body = ', "merges": [\n' + ",\n".join(lines) + "\n]}\n"
        return json.dumps(head, ensure_ascii=False)[:-1] + body

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read what `save` wrote; raises ValueError naming the file and the fault."""
        try:
            return _parsed(Path(path).read_bytes())
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            fault = f"{os.fspath(path)} is no tokenizer"
            raise ValueError(f"{fault} ({type(error).__name__}: {error})") from error


def _parsed(data: bytes) -> Tokenizer:
    content = json.loads(data.decode("utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"expected an object with the format {FORMAT!r}")
    merges = tuple((left, right) for left, right, _ in content["merges"])
    tokenizer = Tokenizer(merges, tuple(content["specials"]), content["pattern"])
    if tokenizer._file().encode("utf-8") != data:
        raise ValueError("it was changed after it was saved: copy or train it again")
    return tokenizer


@cache
def _compiled() -> ModuleType | None:
    """The compiled encoder and trainer; None, said once, where numba is missing."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        said = f"no numba ({error}): the tokenizer gives the same ids, more slowly"
        warnings.warn(said, RuntimeWarning, stacklevel=2)
        return None
    from cort33x_lib.text import compiled_training

    return compiled_training


def train_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    specials: Iterable[str] = (END,),
    pattern: str = "prose-2",
    workers: int | None = None,
) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` ids, its merges learnt from `texts`.

    The texts are read once, in blocks; `workers` threads (all cores by default) change
    the time, never the merges. Raises ValueError when the texts hold too few pairs,
    saying how many ids they support, and for a lone surrogate in a text.
    """
    start = Tokenizer((), tuple(specials), pattern)
    if vocabulary < (least := start.vocabulary):
        raise ValueError(f"vocabulary {vocabulary}: expected at least {least}")
    if isinstance(texts, str):
        raise ValueError("got one text: expected a list of texts")
    count, cut = vocabulary - least, PATTERNS[pattern]
    if compiled := _compiled():
        workers = workers or os.cpu_count() or 1
        merges = compiled.train(_blocks(texts), count, cut, workers)
    else:
        pieces = Counter(chain.from_iterable(map(cut.pieces, _blocks(texts))))
        merges = counted_merges(pieces, count)
    if len(merges) < count:
        most = least + len(merges)
        raise ValueError(f"vocabulary {vocabulary}: the texts support at most {most}")
    return Tokenizer(tuple(merges), start.special_names, pattern)


def _blocks(texts: Iterable[str]) -> Iterator[bytes]:
    """The texts as UTF-8, many in a block; a byte that no text has keeps them apart."""
    block, size = [], 0
    for text in texts:
        block.append(utf8(text))
        size += len(block[-1])
        if size > BLOCK:
            yield b"\xff".join(block)
            block, size = [], 0
    yield b"\xff".join(block)
