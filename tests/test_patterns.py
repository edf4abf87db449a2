"""Patterns: every text is cut whole, in the same places by every engine."""

import random
import re
from collections import Counter

import pytest
import tokenizers

from cort33x_lib.text.compiled_encoding import PieceTable
from cort33x_lib.text.patterns import LONGEST, PATTERNS, Pattern
from cort33x_lib.text.story_world import World

# The pattern of the first release, in Python's own classes.
FIRST = re.compile(
    r"'(?:[sdmt]|ll|re|ve)\b| ?[^\W\d_]{1,64}|\d{1,2}| ?(?:[^\s\w]|_){1,64}"
    r"|\s{1,64}(?!\S)|\s{1,64}"
)
PARTS = ["'s", "'", "'ll", "it's", "DON'T", "_", "__", "x_y", "1", "12345", "٣", "½"]
PARTS += [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\x85", "\x1c"]
PARTS += ["é", "e\u0301", "ß", "今日は", "。", "👍🏽", "\u200d", "\ufeff", "\u2026"]
PARTS += ["a" * 63, "z" * 65, "." * 63, " " * 63, "7" * 64, "\n" * 17, "\t" * 49]


def every_code_point() -> str:
    return "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


def random_text(chance: random.Random, size: int) -> str:
    parts = [chance.choice(PARTS) for _ in range(size)]
    parts[::5] = [chr(chance.randrange(0xD800)) for _ in parts[::5]]
    return "".join(parts)


@pytest.mark.parametrize("name", PATTERNS)
def test_pieces_joined_are_the_text(name: str) -> None:
    points = every_code_point()
    for text in (points, "a 'a".join(points[:70_000]), " ".join(points[::16])):
        pieces = PATTERNS[name].regex.findall(text)
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= 65
        assert max(len(piece.encode()) for piece in pieces) <= LONGEST


@pytest.mark.parametrize("name", PATTERNS)
def test_hugging_face_cuts_in_the_same_places(name: str) -> None:
    pattern, chance = PATTERNS[name], random.Random(1)
    expression = tokenizers.Regex(pattern.expression)
    split = tokenizers.pre_tokenizers.Split(expression, "removed", invert=True)
    texts = [every_code_point()] + [random_text(chance, 20) for _ in range(1000)]
    for text in texts:
        theirs = [piece for piece, _ in split.pre_tokenize_str(text)]
        assert theirs == pattern.regex.findall(text)


def scanned(pattern: Pattern, data: bytes) -> dict[bytes, int]:
    """How often the compiled scanner finds each piece of two bytes or more."""
    table = PieceTable(pattern, 12)
    table.count(data)
    laid, counts = table.spread()
    laid, found = laid.tobytes(), {}
    starts = (counts[:-1] == 0) & (counts[1:] > 0)
    ends = (counts[:-1] > 0) & (counts[1:] == 0)
    for start, end in zip(starts.nonzero()[0] + 1, ends.nonzero()[0] + 1, strict=True):
        found[laid[start:end]] = int(counts[start])
    return found


@pytest.mark.parametrize("name", PATTERNS)
def test_the_compiled_scanner_finds_the_same_pieces(name: str) -> None:
    pattern, chance = PATTERNS[name], random.Random(2)
    points = every_code_point()
    texts = [points.encode(), "a 'a".join(points[:70_000]).encode()]
    texts += [" \n".join(points[n::999]).encode() for n in range(5)]
    texts += [random_text(chance, chance.randrange(30)).encode() for _ in range(3000)]
    texts += [chance.randbytes(chance.randrange(40)) for _ in range(1000)]
    odd = b"a '\xc3\xa9\xe2\x80\xa9\xed\xa0\xf0\x9f\x91\xf4\x90\xff.\n1s_ "
    texts += [bytes(chance.choices(odd, k=20)) for _ in range(2000)]
    texts += [b"x y'z\n" * 40_000, b" " * 20_000, "é ".encode() * 20_000]
    for text in texts:
        pieces = Counter(piece for piece in pattern.pieces(text) if len(piece) > 1)
        assert scanned(pattern, text) == pieces


def test_stories_are_cut_as_before() -> None:
    for story in World.load().stories("train", 300):
        assert PATTERNS["prose-2"].regex.findall(story.text) == FIRST.findall(
            story.text
        )


PROSE = [
    ("Mia doesn't go.", "Mia| doesn|'t| go|."),
    ("she'll  say", "she|'ll| | say"),
    ("'then'", "'|then|'"),
    ("12345 apples 7", "12|34|5| apples| |7"),
    ("snake_case", "snake|_|case"),
    ("end.\n\n  Next", "end|.|\n\n | Next"),
    ('said: "No!"', 'said|:| "|No|!"'),
    ("x" * 100, "x" * 64 + "|" + "x" * 36),
    ("é à e\u0301", "é| à| e\u0301"),
    ("日本。 x²", "日本|。| x|²"),
    ("tail  ", "tail|  "),
]
CODE = [
    ("def go(x_y):", "def| go|(|x|_y|):"),
    ("__init__", "__|init|__"),
    ("\tx = 12345", "\t|x| =| |123|45"),
    ("don't", "don|'|t"),
    ("# --", "#| --"),
    ("  x", " | x"),
]
GPT_2 = [
    ("Mia's 12345 'then'", "Mia|'s| 12345| '|then|'"),
    ("x² ٣٤ '", "x|²| ٣٤| '"),
    ("a  b", "a| | b"),
]


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [(name, *case) for name, cases in [("prose-2", PROSE), ("code-1", CODE)]
     for case in cases] + [("gpt-2", *case) for case in GPT_2],
)  # fmt: skip
def test_the_pattern_cuts_as_it_says(name: str, text: str, pieces: str) -> None:
    assert PATTERNS[name].regex.findall(text) == pieces.split("|")


def test_bytes_that_are_not_text_are_pieces_of_their_own() -> None:
    cut = PATTERNS["prose-2"].pieces
    assert [*cut(b"ab\xff cd\xe2\x82 ")] == [
        b"ab",
        b"\xff",
        b" cd",
        b"\xe2",
        b"\x82",
        b" ",
    ]
    assert [*cut(b"a  \x80b")] == [b"a", b"  ", b"\x80", b"b"]
    assert [*cut(b"a\xed\xa0\x80")] == [b"a", b"\xed", b"\xa0", b"\x80"]
