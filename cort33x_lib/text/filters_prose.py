"""Filters for prose: rules of our own, and the published ones of three web corpora.

The published rules keep the thresholds of their papers; what a word and a sentence is
they leave open, and here words are what white space separates. Left out of Gopher's:
paragraphs and repeated runs of five words and more. None of them was made for code.
"""

import re
from collections import Counter

from cort33x_lib.text.cleaning import Answer, Removed, with_text
from cort33x_lib.text.corpus import Document

ENGLISH = frozenset(
    "the be to of and that have with a in is was it he she for on as his her you at by"
    " this had not are but from or they were which all there their one what if we when"
    " who so said has i my no an then now".split()
)
GOPHER_WORDS = frozenset("the be to of and that have with".split())
TOP_SHARES = {2: 0.20, 3: 0.18, 4: 0.16}  # of the characters, by the words of a run
ENDS = (".", "!", "?", '"', "'")
CLOSED = re.compile(r"[.!?…][\"'”’»)\]*_]*\s*\Z")
SENTENCE_END = re.compile(r"[.!?][\"'”’)]*(?:\s|\Z)")


def english_share(text: str) -> float:
    """The share of words that are among some sixty frequent ones of English."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return sum(word in ENGLISH for word in words) / max(len(words), 1)


def english(document: Document) -> Answer:
    """Removed where fewer than one word in seven is a frequent one of English."""
    share = english_share(document.text)
    if share < 1 / 7:
        return Removed("not English", f"{share:.0%} frequent words")
    return document


def ended(document: Document) -> Answer:
    """Removed where the text does not end as a sentence does."""
    return document if CLOSED.search(document.text[-80:]) else Removed("cut off")


def prose(document: Document) -> Answer:
    """Removed where a text is too short or too little of it is words."""
    text = document.text
    words = text.split()
    visible = sum(map(len, words))
    letters = sum(map(str.isalpha, text)) / max(visible, 1)
    lengths = visible / max(len(words), 1)
    if len(words) < 25:
        return Removed("short", f"{len(words)} words")
    if letters < 0.75:
        return Removed("few letters", f"{letters:.0%} letters")
    if not 2.5 <= lengths <= 10:
        return Removed("strange words", f"{lengths:.1f} letters a word")
    return document


def gopher(document: Document) -> Answer:
    """The rules for quality and repetition of MassiveText (Rae et al., 2021)."""
    text = document.text
    words = text.split()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    count = len(words)
    if not 50 <= count <= 100_000:
        return Removed("gopher: number of words", f"{count}")
    if not 3 <= sum(map(len, words)) / count <= 10:
        return Removed("gopher: length of words")
    if max(text.count("#"), text.count("...") + text.count("…")) > 0.1 * count:
        return Removed("gopher: symbols")
    if sum(line[0] in "•-*" for line in lines) > 0.9 * len(lines):
        return Removed("gopher: bullets")
    if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        return Removed("gopher: ellipses")
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * count:
        return Removed("gopher: words without letters")
    if sum(word.lower().strip(".,;:!?\"'") in GOPHER_WORDS for word in words) < 2:
        return Removed("gopher: stop words")
    if len(lines) - len(set(lines)) > 0.3 * len(lines):
        return Removed("gopher: repeated lines")
    for length, most in TOP_SHARES.items():
        runs = zip(*(words[start:] for start in range(length)), strict=False)
        run, times = Counter(runs).most_common(1)[0]
        if times > 1 and times * (sum(map(len, run)) + length - 1) > most * len(text):
            return Removed(f"gopher: frequent {length}-gram", " ".join(run)[:80])
    return document


def c4(document: Document) -> Answer:
    """The rules of C4 (Raffel et al., 2020) without its list of bad words."""
    kept = []
    for line in map(str.strip, document.text.splitlines()):
        lower = line.lower()
        if "lorem ipsum" in lower:
            return Removed("c4: lorem ipsum")
        if "{" in line:
            return Removed("c4: curly bracket")
        sentence = line.endswith(ENDS) and not line.endswith("...")
        if sentence and len(line.split()) >= 3 and "javascript" not in lower:
            kept.append(line)
    text = "\n".join(kept)
    sentences = len(SENTENCE_END.findall(text))
    if sentences < 5:
        return Removed("c4: fewer than five sentences", f"{sentences}")
    return with_text(document, text)


def fineweb(document: Document) -> Answer:
    """The rules that FineWeb added to those of others (Penedo et al., 2024)."""
    lines = document.text.split("\n")
    filled = [line for line in lines if line.strip()]
    if sum(line.endswith(ENDS) for line in lines) <= 0.12 * len(lines):
        return Removed("fineweb: lines without an end")
    if sum(len(line) <= 30 for line in lines) >= 0.67 * len(lines):
        return Removed("fineweb: short lines")
    repeated = sum(map(len, filled)) - sum(map(len, set(filled)))
    if repeated >= 0.01 * sum(map(len, lines)):
        return Removed("fineweb: repeated characters")
    if len(lines) - 1 > 0.3 * len(document.text.split()):
        return Removed("fineweb: a list")
    return document
