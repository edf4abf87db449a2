"""How a text is cut into the pieces that no merge crosses.

Every pattern is one record. From it come a regular expression, which is the definition,
and the table and numbers that the compiled scanner reads; a test holds them together.

Chosen: characters are named by code point, so the cut depends on no version of Unicode
and means the same in Python, tiktoken and Hugging Face tokenizers; every piece is
capped, so no text makes one piece long. Left out: words of scripts without spaces.
"""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

NO_CLASS, LETTER, DIGIT, SPACE, SYMBOL = range(5)
INVALID = re.compile("([\udc80-\udcff])")  # as Python decodes a byte that is not UTF-8
LONGEST = 257  # bytes of a piece: 64 characters and a space
SPACES = "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"
DIGITS = "30-39"
SYMBOLS = (
    "0-8 e-1f 21-2f 3a-40 5b-60 7b-84 86-9f a1-a9 ab-b4 b6-b9 bb-bf d7 f7"  # Latin
    " 589-58a 5be 5c0 5c3 5f3-5f4 60c-60d 61b-61f 66a-66d 6d4 964-965"  # other scripts
    " 200b 200d-2027 202a-202e 2030-205e 2060-218f 2190-2bff 2e00-2e7f"  # signs
    " 2ff0-2fff 3001-3004 3008-3020 3030 e000-f8ff fe00-fe1f fe30-fe6f feff"
    " ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffff"  # wide forms
    " 1f000-1faff e0000-e0fff f0000-10ffff"  # emoji, tags, private use
)


@dataclass(frozen=True)
class Pattern:
    """A named way to cut any text into pieces, which join to the same text.

    A piece is the end of a contraction ('s, 'll), a word, a number, symbols, or white
    space; at most 64 characters and a space. Words and symbols take the space before
    them: white space leaves its last character to what follows.
    """

    name: str
    contractions: bool = False
    digits: int = 2  # the longest run of digits in one piece
    underscores: bool = False  # a word takes an underscore before it as it does a space
    indentation: bool = False  # the end of a line and the next indent are one piece
    published: bool = False  # GPT-2's own: Unicode's classes, a space before a number

    @cached_property
    def classes(self) -> bytes:
        """The class of each code point; surrogates, which no text has, have none."""
        if self.published:
            kinds = defaultdict(lambda: SYMBOL, L=LETTER, N=DIGIT)
            points = map(chr, range(0x40000))  # no letters, no numbers above
            table = bytearray(kinds[unicodedata.category(point)[0]] for point in points)
            table += bytearray([SYMBOL]) * (sys.maxunicode + 1 - len(table))
            listed = {SPACE: SPACES}
        else:
            table = bytearray([LETTER]) * (sys.maxunicode + 1)
            listed = {SYMBOL: SYMBOLS, DIGIT: DIGITS, SPACE: SPACES}
        for kind, ranges in {**listed, NO_CLASS: "d800-dfff"}.items():
            for ends in ranges.split():
                first, *last = [int(end, 16) for end in ends.split("-")]
                end = last[0] + 1 if last else first + 1
                table[first:end] = bytes([kind]) * (end - first)
        return bytes(table)

    @cached_property
    def expression(self) -> str:
        """The regular expression of the pieces, tried in this order at each place."""
        members = defaultdict(str)
        for run in re.finditer(b"\1+|\2+|\3+|\4+", self.classes):
            first, last = map(_escaped, (run.start(), run.end() - 1))
            members[run[0][0]] += first if first == last else f"{first}-{last}"
        letter = f"[^{members[DIGIT]}{members[SPACE]}{members[SYMBOL]}]"
        digit, symbol = f"[{members[DIGIT]}]", f"[{members[SYMBOL]}]"
        line = r"[\r\n]{1,16}[ \t]{0,48}"
        parts = [
            f"{'[ _]' if self.underscores else ' '}?{letter}{{1,64}}",
            f" ?{digit}{{1,64}}" if self.published else f"{digit}{{1,{self.digits}}}",
            f" ?{symbol}{{1,64}}",
            f"[{members[SPACE]}]{{1,64}}(?![^{members[SPACE]}])",
            f"[{members[SPACE]}]",
        ]
        if self.indentation:
            parts.insert(3, line)
        if self.contractions:
            end = "" if self.published else f"(?!{letter})"
            parts.insert(0, f"'(?:[sdmt]|ll|re|ve){end}")
        return "|".join(parts)

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The expression as Python reads it: `findall` gives the pieces."""
        return re.compile(self.expression)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The pieces of any bytes, in order.

        A byte that is not UTF-8 is a piece, and ends the text before it.
        """
        for part in INVALID.split(data.decode("utf-8", "surrogateescape")):
            if INVALID.match(part):
                yield part.encode("utf-8", "surrogateescape")
            else:
                yield from (piece[0].encode() for piece in self.regex.finditer(part))


def _escaped(point: int) -> str:
    return chr(point) if point > 127 else f"\\x{point:02x}"


PATTERNS = {
    pattern.name: pattern
    for pattern in (
        Pattern("prose-2", contractions=True),
        Pattern("code-1", digits=3, underscores=True, indentation=True),
        Pattern("gpt-2", contractions=True, published=True),
    )
}


def utf8(text: str, errors: str = "strict") -> bytes:
    """The text as UTF-8; a lone surrogate raises ValueError, or becomes U+FFFD."""
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {type(text).__name__}: {text!r:.80}")
    if errors == "replace" and not text.isascii():
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}:"
            " expected text that UTF-8 can write, or errors='replace'"
        ) from None
