"""Filters for faults that any text may have: encoding, boilerplate, personal data.

Each is a function of one document, or a frozen dataclass that reads the whole corpus
first. Thresholds were chosen on the story world and English books.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ftfy
from ftfy.badness import badness

from cort33x_lib.text.cleaning import Answer, Removed, with_text
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.duplicates import WORD
from cort33x_lib.text.leakage import leaked_shares

# Every part is bounded and begins where a run begins, so that no text takes long.
PERSONAL = re.compile(
    r"(?P<email>(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b)"
    r"|(?P<card>(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]))"
    r"|(?P<address>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w))"
    r"|(?P<phone>(?<![\w.-])(?:\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,4}"
    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\w-]))"
)


def repair_encoding(document: Document) -> Answer:
    """Lines whose UTF-8 was read as something else, repaired by ftfy (Speer, 2019).

    A line is changed only where that lowers what ftfy calls its badness.
    """
    if document.text.isascii():
        return document
    lines = document.text.split("\n")
    return with_text(document, "\n".join(map(repaired_line, lines)))


def repaired_line(line: str) -> str:
    """One line as ftfy would have it, or as it was if that is no better."""
    if line.isascii():
        return line
    better = ftfy.fix_encoding(line)
    return better if badness(better) < badness(line) else line


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the one that Luhn's rule makes of those before it."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def find_personal(text: str) -> list[tuple[str, int, int]]:
    """What looks like an e-mail, card, address (IPv4) or phone: kind, start, end.

    A card number must obey Luhn's rule, an address must have no number above 255.
    """
    found = []
    for match in PERSONAL.finditer(text):
        kind, said = str(match.lastgroup), match.group()
        if kind == "card" and not passes_luhn(re.sub("[ -]", "", said)):
            continue
        if kind == "address" and any(int(part) > 255 for part in said.split(".")):
            continue
        found.append((kind, match.start(), match.end()))
    return found


def redact(document: Document) -> Answer:
    """The document with the kind, in brackets, in the place of personal data."""
    parts, at = [], 0
    for kind, start, end in find_personal(document.text):
        parts += [document.text[at:start], f"[{kind}]"]
        at = end
    return with_text(document, "".join([*parts, document.text[at:]]))


@dataclass(frozen=True)
class Boilerplate:
    """Strikes out lines of a few words or more that many documents share."""

    documents: int = 10
    words: int = 4

    def __call__(self, documents: Sequence[Document]) -> Iterator[Answer]:
        counts: Counter[str] = Counter()
        for document in documents:
            counts.update(set(map(str.strip, document.text.split("\n"))))
        common = {
            line
            for line, count in counts.items()
            if count >= self.documents and len(line.split()) >= self.words
        }
        for document in documents:
            lines = document.text.split("\n")
            kept = [line for line in lines if line.strip() not in common]
            same = len(kept) == len(lines)
            yield document if same else with_text(document, "\n".join(kept).strip())


@dataclass(frozen=True)
class Shuffled:
    """Removes texts in which too few pairs of neighbouring words occur elsewhere.

    The corpus itself says which pairs there are, so it must be large and of one kind.
    """

    least: float = 0.6  # share of a text's different pairs

    def shares(self, documents: Sequence[Document]) -> list[float]:
        """For each document the share of its pairs that another document has."""
        seen: Counter[tuple[str, str]] = Counter()
        for document in documents:
            seen.update(word_pairs(document.text))
        of_each = (word_pairs(document.text) for document in documents)
        return [
            sum(seen[pair] > 1 for pair in pairs) / len(pairs) if pairs else 1.0
            for pairs in of_each
        ]

    def __call__(self, documents: Sequence[Document]) -> Iterator[Answer]:
        for document, share in zip(documents, self.shares(documents), strict=True):
            known = share >= self.least
            yield (
                document if known else Removed("unknown pairs", f"{share:.0%} known")
            )


def word_pairs(text: str) -> set[tuple[str, str]]:
    """All different pairs of neighbouring lower-case words."""
    words = WORD.findall(text.lower())
    return set(zip(words, words[1:], strict=False))


@dataclass(frozen=True)
class Leaked:
    """Removes texts of whose 13-grams held-out texts have more than a share `most`."""

    held_out: tuple[str, ...]
    most: float = 0.5

    def __call__(self, documents: Sequence[Document]) -> Iterator[Answer]:
        texts = [document.text for document in documents]
        shares = leaked_shares(self.held_out, texts)
        for document, share in zip(documents, shares, strict=True):
            fresh = share <= self.most
            yield document if fresh else Removed("held out", f"{share:.0%} shared")
