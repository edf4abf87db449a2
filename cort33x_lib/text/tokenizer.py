"""Byte pair encoding: from text to token ids and back without loss.

Every text is UTF-8 bytes, so 256 tokens can write anything; each merge then adds the
token that joins the most frequent pair of neighbours (Sennrich, Haddow and Birch 2016,
on bytes as in Radford et al. 2019). Text is first cut into pieces that no merge
crosses.

Chosen: ties go to the pair whose bytes come first, so the result depends on nothing but
how often each piece occurs; patterns are picked by name, never read from a file; pieces
are capped, so time is linear in the text whatever it is; specials exist only as ids, so
no text can forge one. Left out: speed beyond what a small corpus needs.
"""

import codecs
import heapq
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from operator import index
from pathlib import Path

from cort33x_lib.files import digest, write_atomically

END = "<|end|>"
FORMAT = "cort33x-tokenizer-1"
CACHED_PIECES = 1 << 16
BYTES = tuple(bytes([value]) for value in range(256))
LONGEST = 257  # bytes of a piece: 64 characters and a space
PATTERNS = {
    # In this order: the end of a contraction; a word with the space before it; digits
    # by twos; symbols with the space before them; white space, leaving its last
    # character to the next word.
    "prose-1": re.compile(
        r"'(?:[sdmt]|ll|re|ve)\b"
        r"| ?[^\W\d_]{1,64}"
        r"|\d{1,2}"
        r"| ?(?:[^\s\w]|_){1,64}"
        r"|\s{1,64}(?!\S)"
        r"|\s{1,64}"
    ),
}


@dataclass(frozen=True)
class Tokenizer:
    """Encodes text as token ids and decodes ids as text; fixed once made.

    Ids: the 256 bytes, then a token for each merge (a pair of earlier ids) in the order
    learnt, then the specials. Raises ValueError for merges, specials or a pattern name
    that make no tokenizer.
    """

    merges: tuple[tuple[int, int], ...] = field(repr=False)
    special_names: tuple[str, ...] = (END,)
    pattern: str = "prose-1"

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
        return tokens + [_checked(name).encode("utf-8") for name in self.special_names]

    @cached_property
    def _encode_piece(self) -> Callable[[str], list[int]]:
        ranks = {pair: new for new, pair in enumerate(self.merges, 256)}
        return lru_cache(CACHED_PIECES)(
            lambda piece: merge_piece(piece.encode("utf-8", "surrogateescape"), ranks)
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

    def encode(self, text: str, errors: str = "strict") -> list[int]:
        """The ids of `text`; the name of a special in it is text like any other.

        A lone surrogate cannot be written as UTF-8: it raises ValueError with its
        place, or becomes U+FFFD with `errors="replace"`.
        """
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors={errors!r}: expected 'strict' or 'replace'")
        return self._encode(_checked(text, errors))

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; those of valid UTF-8 are the ids of its text."""
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def _encode(self, text: str) -> list[int]:
        pieces = PATTERNS[self.pattern].findall(text)
        return list(chain.from_iterable(map(self._encode_piece, pieces)))

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
        """The bytes of `ids`, exactly those that were encoded."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `ids` as they come, never half a character; joined: `decode`."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for id in ids:
            if text := decoder.decode(self.token_bytes(id)):
                yield text
        if text := decoder.decode(b"", final=True):
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


def _checked(text: str, errors: str = "strict") -> str:
    """The text itself, when UTF-8 can write it."""
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {type(text).__name__}: {text!r:.80}")
    if text.isascii():
        return text
    if errors == "replace":
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}:"
            " expected text that UTF-8 can write, or errors='replace'"
        ) from None
    return text


def merge_piece(piece: bytes, ranks: dict[tuple[int, int], int]) -> list[int]:
    """The ids of one piece: always join the pair learnt first, leftmost first.

    `ranks` gives the id that a pair makes; earlier merges have smaller ids.
    """
    never = 256 + len(ranks)
    ids = list(piece)
    made = [ranks.get(pair, never) for pair in pairwise(ids)]
    while made and (new := min(made)) < never:
        at = made.index(new)
        ids[at : at + 2] = [new]
        del made[at]
        if at > 0:
            made[at - 1] = ranks.get((ids[at - 1], new), never)
        if at < len(made):
            made[at] = ranks.get((new, ids[at + 1]), never)
    return ids


def train_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    specials: Iterable[str] = (END,),
    pattern: str = "prose-1",
) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` ids, its merges learnt from `texts`.

    Raises ValueError when the texts hold too few pairs for it, saying how many ids
    they support, and for a lone surrogate in a text.
    """
    start = Tokenizer((), tuple(specials), pattern)
    if vocabulary < (least := start.vocabulary):
        raise ValueError(f"vocabulary {vocabulary}: expected at least {least}")
    if isinstance(texts, str):
        raise ValueError("got one text: expected a list of texts")
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(PATTERNS[pattern].findall(_checked(text)))
    merges = tuple(_learn(pieces, vocabulary - least))
    if least + len(merges) < vocabulary:
        most = least + len(merges)
        raise ValueError(f"vocabulary {vocabulary}: the texts support at most {most}")
    return Tokenizer(merges, start.special_names, pattern)


def _learn(pieces: Counter[str], count: int) -> Iterator[tuple[int, int]]:
    """At most `count` merges, each the most frequent pair of neighbours of its moment.

    The heap keeps old entries; one whose count has fallen goes back with the true one.
    """
    tokens = list(BYTES)
    words = [list(piece.encode("utf-8")) for piece in pieces]
    times = list(pieces.values())
    counts: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for place, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += times[place]
            places[pair].add(place)

    def entry(pair: tuple[int, int]) -> tuple[int, bytes, bytes, tuple[int, int]]:
        return -counts[pair], tokens[pair[0]], tokens[pair[1]], pair

    heap = [entry(pair) for pair in counts]
    heapq.heapify(heap)
    while heap and len(tokens) < 256 + count:
        known, _, _, best = heapq.heappop(heap)
        if -known != counts[best]:
            if counts[best]:
                heapq.heappush(heap, entry(best))
            continue
        new = len(tokens)
        tokens.append(tokens[best[0]] + tokens[best[1]])
        born = set()
        for place in places.pop(best):
            before, after = words[place], _joined(words[place], best, new)
            words[place] = after
            for pair in pairwise(before):
                counts[pair] -= times[place]
            for pair in pairwise(after):
                counts[pair] += times[place]
                if new in pair:
                    places[pair].add(place)
                    born.add(pair)
        for pair in born:
            heapq.heappush(heap, entry(pair))
        yield best


def _joined(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    joined: list[int] = []
    for id in word:
        if joined and (joined[-1], id) == pair:
            joined[-1] = new
        else:
            joined.append(id)
    return joined
