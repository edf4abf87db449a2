"""A world of short English stories whose exact likelihood is known.

Every random choice adds its own -ln p to the story's nll, and the text fixes all the
choices, so nll is exactly -ln of the probability of the text. No model can have a
smaller mean loss on fresh stories: their mean nll is the floor of every loss curve.
"""

import math
from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from cort33x_lib.files import PROJECT
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.story_plot import Tale
from cort33x_lib.text.story_questions import Question, questions
from cort33x_lib.text.story_slots import SLOTS
from cort33x_lib.text.story_tables import Table
from cort33x_lib.text.story_words import Lexicon

SPLITS = ("train", "validation", "test", "composition")
LICENCE = "CC BY 4.0"
DATA = PROJECT / "data" / "story_world"
LOGARITHMS = [0.0] + [math.log(count) for count in range(1, 100)]


@dataclass(frozen=True)
class Story(Document):
    """A document with its exact -ln p in nats and questions about its end."""

    nll: float
    questions: tuple[Question, ...]


class Reading(NamedTuple):
    """What a text tells about its making: -ln p in nats, and every choice with its."""

    nll: float
    choices: tuple[tuple[str, float], ...]


class Sampler:
    """Makes the choices of a story with random numbers in [0, 1)."""

    def __init__(self, random: Random):
        self.random = random.random
        self.parts: list[str] = []
        self.say = self.parts.append
        self.nll = 0.0

    def choose(self, table: Table) -> Any:
        """Write an option drawn by weight and return its value."""
        text, nats, value = table.options[bisect_right(table.cumulative, self.random())]
        self.say(text)
        self.nll += nats
        return value

    def choose_except(self, table: Table, excluded: Container, mass: float) -> Any:
        """The same without the excluded values, whose weights sum to mass."""
        while True:
            place = bisect_right(table.cumulative, self.random())
            text, nats, value = table.options[place]
            if value not in excluded:
                break
        self.say(text)
        self.nll += nats + math.log1p(-mass / table.total)
        return value

    def pick(self, texts: Sequence[str]) -> int:
        """Write one of some equally likely texts and return its place."""
        count = len(texts)
        place = int(self.random() * count) if count > 1 else 0
        self.say(texts[place])
        self.nll += LOGARITHMS[count]
        return place


class Reader:
    """Recovers the choices of a story from its text alone."""

    def __init__(self, text: str):
        self.text = text
        self.cursor = 0
        self.choices: list[tuple[str, float]] = []

    def refuse(self, expected: str) -> ValueError:
        found = self.text[self.cursor : self.cursor + 30]
        return ValueError(
            f"not a text of this world: at character {self.cursor} expected "
            f"{expected}, found {found!r}"
        )

    def follows(self, option: str) -> bool:
        """Whether the option, in whole words, is what comes next."""
        if not self.text.startswith(option, self.cursor):
            return False
        end = self.cursor + len(option)
        inside_a_word = option[-1:].isalnum() and self.text[end : end + 1].isalnum()
        return not inside_a_word

    def take(self, found: list[str], texts: Sequence[str]) -> str:
        """The one option that follows; the silent one only if no other does."""
        if len(found) > 1 or not (found or "" in texts):
            raise self.refuse(
                f"one of {len(texts)} options like {texts[-1]!r} ({len(found)} fit)"
            )
        option = found[0] if found else ""
        self.cursor += len(option)
        return option

    def choose(self, table: Table) -> Any:
        return self.choose_except(table, (), 0)

    def choose_except(self, table: Table, excluded: Container, mass: float) -> Any:
        found = []
        for length in table.lengths:
            start = self.text[self.cursor : self.cursor + length]
            options = table.starting.get(start, ()) if len(start) == length else ()
            for option in options:
                if table.values[table.place[option]] not in excluded:
                    if self.follows(option):
                        found.append(option)
        option = self.take(found, table.texts)
        place = table.place[option]
        nats = table.nats[place] + math.log1p(-mass / table.total)
        self.choices.append((option, nats))
        return table.values[place]

    def pick(self, texts: Sequence[str]) -> int:
        option = self.take([text for text in texts if self.follows(text)], texts)
        self.choices.append((option, LOGARITHMS[len(texts)]))
        return texts.index(option)

    def say(self, text: str) -> None:
        if not self.text.startswith(text, self.cursor):
            raise self.refuse(repr(text))
        self.cursor += len(text)


class World:
    """The story world that a folder of word lists describes."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon

    @classmethod
    def load(cls, folder: Path | None = None) -> "World":
        """Read the lists; ValueError naming file and line if one cannot be used."""
        return cls(Lexicon(DATA if folder is None else Path(folder), SLOTS))

    def story(self, split: str, index: int, seed: int = 0) -> Story:
        """Story number `index` of a split: the same on every machine.

        Raises ValueError for an unknown split.
        """
        special = self._is_special(split)
        version = self.lexicon.version
        unit = f"story-world-{version}/{split}/{seed}/{index}"
        random = Random(unit)
        sampler = Sampler(random)
        tale = Tale(self.lexicon, sampler, special)
        tale.tell()
        jobs = self.lexicon.slots["job"]
        job = jobs.texts[bisect_right(jobs.cumulative, random.random())]
        return Story(
            text="".join(sampler.parts),
            unit=unit,
            origin=f"story world {version}, split {split}, seed {seed}, index {index}",
            licence=LICENCE,
            nll=sampler.nll,
            questions=questions(tale, random.random, f"the {job}"),
        )

    def stories(self, split: str, count: int, seed: int = 0) -> Iterator[Story]:
        """The first `count` stories of a split."""
        return (self.story(split, index, seed) for index in range(count))

    def read(self, text: str, split: str = "train") -> Reading:
        """The choices behind a text and their -ln p in nats.

        Raises ValueError with the position at which the world cannot have written
        the text as a story of this split.
        """
        reader = Reader(text)
        Tale(self.lexicon, reader, self._is_special(split)).tell()
        if reader.cursor != len(text):
            raise reader.refuse("the end of the text")
        nll = 0.0
        for _, nats in reader.choices:
            nll += nats
        return Reading(nll, tuple(reader.choices))

    def _is_special(self, split: str) -> bool:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {SPLITS}")
        return split == SPLITS[3]
