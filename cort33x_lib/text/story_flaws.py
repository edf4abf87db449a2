"""Flaws planted in stories at exact rates, the truth about them, detectors' scores.

Each flaw is put into `round(rate * number of stories)` stories that have no other. A
copy (duplicates, leaks) is a document of its own after all stories, any other flaw
stands in the place of the story that it spoils. The world itself is not touched.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from cort33x_lib.text.corpus import Document
from cort33x_lib.text.filters import passes_luhn

COPIES = ("exact duplicate", "near duplicate", "leak")
SPOILED = ("boilerplate", "mojibake", "shuffled", "truncated", "foreign", "personal")
NOTICE = "Read more free stories at the story corner. All rights reserved."
WORDS = re.compile(r"[^\W\d_]+")
SWAPS = (1, 2, 3, 4)  # words that a near duplicate has changed


@dataclass(frozen=True)
class Planted(Document):
    """A document and the truth about it.

    `flaw` is its name or empty; `source` the place of the text it was made from, among
    the stories or, for a leak, among the held-out ones; `similarity` the Jaccard index
    of the five-word shingles of both; `repaired` what a perfect repair gives, if any.
    """

    flaw: str
    source: int
    similarity: float
    repaired: str


def plant(
    stories: Sequence[Document],
    rates: Mapping[str, float],
    seed: int = 0,
    held_out: Sequence[Document] = (),
) -> list[Planted]:
    """The stories with flaws at `rates`, by name: those of COPIES and of SPOILED.

    Raises ValueError for an unknown flaw, or when there are too few stories that are
    free and can bear a flaw (mojibake needs a quotation mark).
    """
    random = Random(f"flaws {seed}")
    words = sorted({w.lower() for s in stories for w in WORDS.findall(s.text)})
    language = _language(words, random)
    free = random.sample(range(len(stories)), len(stories))
    planted = [_planted(story, "", n, story.text) for n, story in enumerate(stories)]
    for flaw, rate in rates.items():
        if flaw not in COPIES + SPOILED:
            raise ValueError(f"no flaw {flaw!r}: expected one of {COPIES + SPOILED}")
        texts = held_out if flaw == "leak" else stories
        pool = random.sample(range(len(held_out)), len(held_out))
        pool = pool if flaw == "leak" else free
        able = [n for n in pool if flaw != "mojibake" or '"' in texts[n].text]
        count = round(rate * len(stories))
        if len(able) < count:
            raise ValueError(f"{flaw}: {count} texts needed, {len(able)} can bear it")
        for n in able[:count]:
            new, repaired = _spoil(texts[n].text, flaw, words, language, random)
            document = _planted(texts[n], flaw, n, new, repaired)
            if flaw in COPIES:
                planted.append(document)
            else:
                planted[n] = document
        used = set() if flaw == "leak" else set(able[:count])
        free = [n for n in free if n not in used]
    return planted


def _planted(
    source: Document, flaw: str, place: int, text: str, repaired: str = ""
) -> Planted:
    mark = f" ({flaw})" if flaw else ""
    return Planted(
        text,
        source.unit + mark,
        source.origin + mark,
        source.licence,
        flaw,
        place,
        1.0 if text == source.text else _similarity(text, source.text),
        repaired,
    )


def _similarity(*texts: str) -> float:
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    one, other = ({tuple(w[n : n + 5]) for n in range(len(w) - 4)} for w in words)
    return len(one & other) / max(len(one | other), 1)


def _language(words: Sequence[str], random: Random) -> dict[str, str]:
    """An invented word for each, no two the same: a number spelled in syllables."""
    syllables = [c + v for c in "bdfgjklmnprstvz" for v in "aeiou"]
    names = {}
    for number, word in enumerate(random.sample(words, len(words)), len(syllables)):
        name = ""
        while number:
            number, digit = divmod(number, len(syllables))
            name += syllables[digit]
        names[word] = name
    return names


def _spoil(
    text: str,
    flaw: str,
    words: Sequence[str],
    language: Mapping[str, str],
    random: Random,
) -> tuple[str, str]:
    """The text with the flaw, and what a perfect repair gives or nothing."""
    if flaw == "near duplicate":
        return _swapped(text, random.choice(SWAPS), words, random), ""
    if flaw == "boilerplate":
        return f"{NOTICE}\n\n{text}", text
    if flaw == "mojibake":
        curly = re.sub(r'"([^"]*)"', "“\\1”", text)
        letters = [bytes([byte]) for byte in curly.encode("utf-8")]
        # Five bytes mean nothing in cp1252: some programs keep them as control
        # characters, others drop them, and then half of a quotation mark is lost.
        keep = random.random() < 0.5
        read = [a.decode("cp1252", "ignore") or chr(a[0]) * keep for a in letters]
        return "".join(read), curly
    if flaw == "shuffled":
        pieces = text.split(" ")
        return " ".join(random.sample(pieces, len(pieces))), ""
    if flaw == "truncated":
        return text[: int(len(text) * random.uniform(0.3, 0.9))], ""
    if flaw == "foreign":
        return WORDS.sub(lambda match: _translated(match.group(), language), text), ""
    if flaw == "personal":
        kind, sentence, data = _person(random)
        return f"{text} {sentence} {data}.", f"{text} {sentence} [{kind}]."
    return text, ""  # exact duplicates and leaks


def _swapped(text: str, count: int, words: Sequence[str], random: Random) -> str:
    places = [match.span() for match in WORDS.finditer(text) if match.group().islower()]
    for start, end in sorted(random.sample(places, count), reverse=True):
        other = random.choice(words)
        while other == text[start:end]:
            other = random.choice(words)
        text = text[:start] + other + text[end:]
    return text


def _translated(word: str, language: Mapping[str, str]) -> str:
    other = language[word.lower()]
    return other.capitalize() if word[0].isupper() else other


def _person(random: Random) -> tuple[str, str, str]:
    """A kind of personal data, a sentence for it, and data that belong to nobody."""
    number = random.randrange(1000)
    kind = random.choice(["email", "phone", "card", "address"])
    if kind == "email":
        sign = random.choice(["@", " at "])  # people know what is looked for
        return kind, "Letters reach her at", f"reader{number}{sign}post.example.com"
    if kind == "phone":
        return kind, "You can call", f"+44 7700 900{number:03}"
    if kind == "address":
        return kind, "The notice came from", f"192.0.2.{number % 256}"
    start = f"{random.randrange(10**14, 10**15)}"
    whole = next(start + d for d in "0123456789" if passes_luhn(start + d))
    return kind, "It was paid with", " ".join(re.findall("....", whole))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a share after so many trials (Wilson, 1927).

    (0, 1) where there was no trial.
    """
    if not trials:
        return 0.0, 1.0
    z = 1.959964
    middle = (hits + z * z / 2) / (trials + z * z)
    half = z * math.sqrt(hits * (trials - hits) / trials + z * z / 4) / (trials + z * z)
    return max(middle - half, 0.0), min(middle + half, 1.0)
