"""Weighted tables to choose from, and the plain text lists that they come from."""

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One line of a data file: its text and "file:line"."""

    text: str
    where: str


class Table:
    """Weighted options of one kind of choice.

    texts[i] is what is written, values[i] what the choice returns, nats[i] is
    -ln of its probability. Weights are whole numbers, so that every machine draws
    the same option from the same random number.
    """

    def __init__(self, texts: Sequence[str], weights: Sequence[int], values=None):
        self.texts = list(texts)
        self.weights = list(weights)
        self.values = list(range(len(self.texts)) if values is None else values)
        self.total = sum(self.weights)
        self.cumulative = [mass / self.total for mass in accumulate(self.weights)]
        self.nats = [math.log(self.total / weight) for weight in self.weights]
        self.options = list(zip(self.texts, self.nats, self.values, strict=True))
        self.place = {text: place for place, text in enumerate(self.texts)}
        self.starting: dict[str, list[str]] = {}  # options by their first 4 letters
        for text in filter(None, self.texts):
            self.starting.setdefault(text[:4], []).append(text)
        self.lengths = sorted({len(start) for start in self.starting})


def zipf_weights(count: int, power: float, shift: float) -> list[int]:
    """Whole-number weights that fall as 1 / (rank + shift) ** power."""
    return [max(1, round(1e6 / (rank + shift) ** power)) for rank in range(count)]


def indefinite(words: str) -> str:
    """The words with their article: "drum" -> "a drum", "old drum" -> "an old drum"."""
    vowel = words[0] in "aeiou" and not words.startswith(("use", "uni", "eu", "one"))
    return ("an " if vowel else "a ") + words


def read_sections(path: Path) -> dict[str, list[Entry]]:
    """Entries of a list file by section; lines before any "[name]" are under "".

    Raises ValueError naming file and line for a missing or empty file, an empty
    section and an entry that occurs twice in its section.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a word list here, found no file")
    sections: dict[str, list[Entry]] = {}
    seen: dict[tuple[str, str], int] = {}
    name = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("[") and text.endswith("]"):
            name = text[1:-1]
            sections.setdefault(name, [])
            continue
        if (name, text) in seen:
            first = seen[name, text]
            raise ValueError(f"{path}:{number}: {text!r} is already on line {first}")
        seen[name, text] = number
        sections.setdefault(name, []).append(Entry(text, f"{path}:{number}"))
    empty = [name for name, entries in sections.items() if not entries]
    if empty or not sections:
        part = f" in section [{empty[0]}]" if empty else ""
        raise ValueError(f"{path}: expected at least one entry{part}, found none")
    return sections


def check_prefix_free(entries: Sequence[Entry]) -> None:
    """Raise ValueError if one entry begins, in whole words, like another one."""
    known: dict[str, str] = {}
    for text, where in entries:
        if text in known:
            raise ValueError(f"{where}: {text!r} is also at {known[text]}")
        known[text] = where
    for text, where in entries:
        for cut in range(len(text)):
            inside_a_word = cut and text[cut - 1].isalnum() and text[cut].isalnum()
            if not inside_a_word and text[:cut] in known:
                raise ValueError(
                    f"{where}: {text!r} begins like {text[:cut]!r} at "
                    f"{known[text[:cut]]}: a reader could not tell them apart"
                )
