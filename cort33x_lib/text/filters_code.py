"""Filters for Python code: what machines wrote, what others wrote, what is no code.

Markers are looked for where people put them, in the first lines of a file. Thresholds
were chosen on the standard library and on installed packages.
"""

import re

from cort33x_lib.text.cleaning import Answer, Removed, with_text
from cort33x_lib.text.corpus import Document

HEAD = 2000  # characters in which a file says what it is
GENERATED = re.compile(
    r"(?i)\bauto-?generated\b|\bautomatically generated\b|@generated\b"
    r"|\bdo not (?:edit|modify)\b|\bgenerated (?:from|by|with) \S+\.\w+"
    r"|\bthis (?:file|module|code) (?:is|was|has been) generated\b"
)
FOREIGN_FOLDERS = frozenset(
    "_vendor vendor vendored _vendored third_party _bundled bundled externals extern"
    " _distutils".split()
)
LICENCE = re.compile(
    r"(?i)copyright|licen[cs]ed? |spdx-|all rights reserved|redistribut"
)
SETTING = re.compile(r"#!|#.*coding[:=]|#\s*-\*-")


def written(document: Document) -> Answer:
    """Removed where the head of a file says that a program wrote it."""
    found = GENERATED.search(document.text[:HEAD])
    return Removed("generated", found.group().strip()) if found else document


def own(document: Document) -> Answer:
    """Removed where a folder's name says that a file is a copy of another project's."""
    folders = re.split(r"[/\\]", document.origin)[:-1]
    found = FOREIGN_FOLDERS.intersection(folders)
    return Removed("vendored", min(found)) if found else document


def code(document: Document) -> Answer:
    """Removed where a file holds numbers, names or letters of a table and no program.

    Rules: a line above 1,000 characters, under 45% of the visible characters
    letters, above a twentieth not ASCII.
    """
    text = document.text
    longest = max(map(len, text.split("\n")))
    if longest > 1000:
        return Removed("long line", f"{longest} characters")
    others = len(text) - len(text.encode("ascii", "ignore"))
    if others > len(text) / 20:
        return Removed("not ASCII", f"{others} of {len(text)} characters")
    letters = sum(map(str.isalpha, text)) / max(len("".join(text.split())), 1)
    if letters < 0.45:
        return Removed("few letters in code", f"{letters:.0%} letters")
    return document


def strip_licence(document: Document) -> Answer:
    """The file without those comments at its head that speak of rights and licences.

    Comments are taken away a block at a time; lines that tell Python something stay.
    """
    lines = document.text.split("\n")
    end = next(
        (n for n, line in enumerate(lines) if line.strip() and line[0] != "#"),
        len(lines),
    )
    kept, block = [], []
    for line in [*lines[:end], ""]:
        if line.strip() and not SETTING.match(line):
            block.append(line)
            continue
        if not LICENCE.search("\n".join(block)):
            kept += block
        kept.append(line)
        block = []
    if len(kept) == end + 1:
        return document
    return with_text(document, "\n".join([*kept[:-1], *lines[end:]]).lstrip("\n"))
