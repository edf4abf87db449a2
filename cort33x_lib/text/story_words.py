"""The lexicon of the story world: its word lists, names, numbers and sentences."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cort33x_lib.text.story_tables import (
    Entry,
    Table,
    check_prefix_free,
    indefinite,
    read_sections,
    zipf_weights,
)

# Sections of phrases.txt that compete with each other: one bit each.
LEADS = "bare then first_beat day_1 day_2 day_3 scenery closing end".split()
ASKS = "who where seen how_many sum first last".split()
ACTIONS = "go give steal put take find get gain lose see".split()
BIT = {kind: 1 << place for place, kind in enumerate(LEADS + ASKS + ACTIONS)}
PLOT = "opening ground box own meal start".split()
WORDS = (
    "things places foods containers adjectives colours materials animals plants "
    "weather feelings traits verbs adverbs jobs activities moods"
).split()
SLOT_OF = {"weather": "weather", "activities": "activity"}  # else: without the s


class Lexicon:
    """Everything that the data folder says, as tables ready to choose from.

    `acts` maps the name of a slot such as "thing" to the plot's function that fills
    it. Raises ValueError naming file and line for data that cannot be used.
    """

    def __init__(self, folder: Path, acts: dict[str, Callable]):
        self.folder = folder
        self.acts = acts
        path = folder / "world.toml"
        try:
            self.numbers: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
            self.version = int(self.numbers["version"])
            self.limits = self.numbers["limits"]
            self.pairs = int(self.numbers["reserved"]["pairs"])
            self.sums = int(self.numbers["reserved"]["sums"])
            self.zipf = {
                key: (float(law["power"]), float(law["shift"]))
                for key, law in self.numbers["zipf"].items()
            }
            self.kinds = {kind: float(self.numbers["kinds"][kind]) for kind in BIT}
        except KeyError as error:
            raise ValueError(f"{path}: expected the key {error}") from error
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error
        needed = ("bare", "closing", "end", "go")
        if (
            not all(self.kinds[kind] > 0 for kind in needed)
            or min(self.limits["places"], *map(int, self.limits["people"])) < 2
        ):
            raise ValueError(
                f"{path}: expected weights above 0 for {needed}, at least 2 places and "
                f"at least 2 people"
            )
        self.active = sum(BIT[kind] for kind in BIT if self.kinds[kind] > 0)
        self.slots: dict[str, Table] = {}
        self._read_words()
        self._read_names()
        self._read_numbers()
        self._read_phrases()

    def _zipf(self, law: str, count: int) -> list[int]:
        return zipf_weights(count, *self.zipf[law])

    def _fields(self, name: str) -> list[list[str]]:
        """The fields "a | b" of every entry of a list, checked."""
        entries = read_sections(self.folder / f"{name}.txt")[""]
        width = 2 if name in ("places", "foods") else 1
        rows = [[part.strip() for part in text.split("|")] for text, _ in entries]
        for row, (text, where) in zip(rows, entries, strict=True):
            if len(row) != width or not all(row) or not row[0][-1].isalpha():
                raise ValueError(f"{where}: expected {width} field(s), got {text!r}")
        for column in range(width if name == "foods" else 1):
            column_of = zip(rows, entries, strict=True)
            check_prefix_free([Entry(row[column], e.where) for row, e in column_of])
        return rows

    def _read_words(self) -> None:
        self.rows = {name: self._fields(name) for name in WORDS}
        for name, rows in self.rows.items():
            words = [row[0] for row in rows]
            weights = self._zipf("words", len(words))
            slot = SLOT_OF.get(name, name[:-1])
            self.slots[slot] = Table(words, weights)
            self.slots["an " + slot] = Table([indefinite(w) for w in words], weights)
        self.plurals = Table(
            [row[1] for row in self.rows["foods"]], self.slots["food"].weights
        )
        boxes = {row[0] for row in self.rows["containers"]}
        both = boxes.intersection(row[0] for row in self.rows["things"])
        if both:
            raise ValueError(
                f"{self.folder / 'containers.txt'}: {min(both)!r} is also in things.txt"
            )

    def _product(self, name: str) -> Table:
        """Names made of every onset with every ending."""
        path = self.folder / f"{name}.txt"
        parts = read_sections(path)
        if set(parts) != {"onsets", "endings"}:
            raise ValueError(f"{path}: expected the sections [onsets] and [endings]")
        onsets, endings = parts["onsets"], parts["endings"]
        entries = [Entry(a.text + b.text, a.where) for a in onsets for b in endings]
        check_prefix_free(entries)
        left = self._zipf(name, len(onsets))
        right = self._zipf(name, len(endings))
        weights = [max(1, a * b // 1000) for a in left for b in right]
        return Table([entry.text for entry in entries], weights)

    def _read_names(self) -> None:
        girls, boys = self._names("girls"), self._names("boys")
        pronouns = [Entry(word, "the pronouns") for word in ("She", "He")]
        self.starts = girls + boys + pronouns  # how a sentence may begin
        check_prefix_free(self.starts)
        weights = self._zipf("names", len(girls)) + self._zipf("names", len(boys))
        self.names = Table([entry.text for entry in girls + boys], weights)
        self.girls = len(girls)  # names[: girls] are girls
        self.villages = self.slots["far_village"] = self._product("villages")
        self.slots["surname"] = self._product("surnames")
        self.pronouns = {
            word: Table(["", word], [2, 3]) for word in ("she", "he", "She", "He")
        }
        things, self.kept = self.slots["thing"], []
        people = max(map(int, self.limits["people"]))
        needed = people + 1 + self.limits["finds"]
        for part in range(self.pairs):
            members = range(part, len(things.texts), self.pairs)
            texts = [things.texts[member] for member in members]
            weights = [things.weights[member] for member in members]
            if len(texts) < needed:
                raise ValueError(
                    f"{self.folder / 'things.txt'}: expected at least "
                    f"{needed * self.pairs} things to reserve one pair in "
                    f"{self.pairs}, found {len(things.texts)}"
                )
            self.kept.append(Table(texts, weights, members))
        self.kept_things = [set(table.values) for table in self.kept]

    def _names(self, name: str) -> list[Entry]:
        entries = read_sections(self.folder / f"{name}.txt")[""]
        for text, where in entries:
            if not (text.isalpha() and text[0].isupper()):
                raise ValueError(f"{where}: expected a capitalised name, got {text!r}")
        return entries

    def is_reserved_sum(self, a: int, b: int) -> bool:
        """Whether a + b (and b + a) is told in the split "composition" only."""
        return (a + 1) * (b + 1) % self.sums == 5

    def _read_numbers(self) -> None:
        """amounts[special] and gains[special][a]: the numbers that may be told."""
        first, last = self.limits["amounts"]
        low, high = self.limits["gains"]
        largest = self.limits["largest"]
        self.amounts, self.gains = [], []
        for special in (False, True):
            gains: list[Table | None] = []
            for a in range(largest + 1):
                allowed = [
                    b
                    for b in range(low, high + 1)
                    if a + b <= largest and self.is_reserved_sum(a, b) == special
                ]
                gains.append(self._digits(allowed) if a and allowed else None)
            starts = [a for a in range(first, last + 1) if gains[a]]
            if not starts:
                raise ValueError(f"{self.folder / 'world.toml'}: no sums left to tell")
            self.gains.append(gains)
            self.amounts.append(self._digits(starts))

    def _digits(self, numbers: list[int]) -> Table:
        weights = self._zipf("numbers", len(numbers))
        return Table([str(number) for number in numbers], weights, numbers)

    def _read_phrases(self) -> None:
        self.path = self.folder / "phrases.txt"
        self.sections = read_sections(self.path)
        self.sections["bare"] = self.sections["end"] = [Entry("", "")]
        for group in (LEADS[:-1] + ASKS, ACTIONS):
            entries = [e for kind in group for e in self._section(kind)]
            heads = [e._replace(text=_head(e.text)) for e in entries if e.text]
            starts = self.starts if group is not ACTIONS else []
            check_prefix_free(heads + starts)
        self._parts: dict[str, Table] = {}
        self._mixed: dict[int, Table] = {}
        self.plot = {name: self._patterns(name) for name in (*PLOT, *BIT)}
        self.asks = {name: self._prompts(name) for name in ASKS}
        people = {int(n): weight for n, weight in self.limits["people"].items()}
        self.joins = []
        for count in range(2, max(people) + 1):
            more = sum(weight for n, weight in people.items() if n > count)
            options = [(" and ", people.get(count, 0), True), (", ", more, False)]
            options = [option for option in options if option[1]]
            self.joins.append(Table(*zip(*options, strict=True)))

    def _section(self, name: str) -> list[Entry]:
        if name not in self.sections:
            raise ValueError(f"{self.path}: expected a section [{name}]")
        after = " " if name in LEADS[1:6] else ""
        before = " " if name in ("own", "meal", *ACTIONS) else ""
        entries = self.sections[name]
        return [e._replace(text=before + e.text + after) for e in entries]

    def _patterns(self, name: str) -> Table:
        """A section as a table of heads; each value is (section, steps)."""
        if name in self._parts:
            return self._parts[name]
        entries = self._section(name)
        heads = [entry._replace(text=_head(entry.text)) for entry in entries]
        check_prefix_free(heads)
        values = [(name, self._steps(entry)) for entry in entries]
        weights = self._zipf("phrases", len(entries))
        self._parts[name] = Table([head.text for head in heads], weights, values)
        return self._parts[name]

    def _steps(self, entry: Entry) -> tuple:
        """What follows the head: (table or None, function or None, literal) a slot."""
        pieces = re.split(r"\{([^}]*)\}", entry.text)
        steps = []
        for slot, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            if slot.startswith(":"):
                steps.append((self._patterns(slot[1:]), self.acts[":"], literal))
            elif slot in self.acts:
                steps.append((None, self.acts[slot], literal))
            elif slot in self.slots:
                steps.append((self.slots[slot], None, literal))
            else:
                raise ValueError(f"{entry.where}: nothing is called {{{slot}}}")
            if literal[:1].isalnum():
                raise ValueError(f"{entry.where}: a letter follows {{{slot}}}")
        return tuple(steps)

    def _prompts(self, name: str) -> list[str]:
        """Questions of a section up to their answer, to be filled with % {slots}."""
        prompts = []
        for text, where in self._section(name):
            if " {answer}" not in text:
                raise ValueError(f"{where}: expected ' {{answer}}' in a question")
            prompt = text.partition(" {answer}")[0].replace("%", "%%")
            prompts.append(" " + re.sub(r"\{:?([^}]*)\}", r"%(\1)s", prompt))
        return prompts

    def mixed(self, mask: int) -> Table:
        """The table of all sentences of the kinds whose bits are set in mask."""
        table = self._mixed.get(mask)
        if table is None:
            texts, weights, values = [], [], []
            for kind in BIT:
                if not mask & self.active & BIT[kind]:
                    continue
                part = self._patterns(kind)
                scale = 1e6 * self.kinds[kind] / part.total
                gap = " " if mask & BIT["end"] and kind != "end" else ""
                texts += [gap + text for text in part.texts]
                weights += [max(1, round(scale * weight)) for weight in part.weights]
                values += part.values
            table = self._mixed[mask] = Table(texts, weights, values)
        return table


def _head(text: str) -> str:
    return text.partition("{")[0]
