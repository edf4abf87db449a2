"""What a terminal is shown: tables, small curves, and text that cannot steer it."""

import unicodedata
from collections.abc import Iterable, Sequence

UNSEEN = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}  # Unicode categories
LEVELS = "▁▂▃▄▅▆▇█"


def visible(text: str) -> str:
    """Text in which controls, escapes and marks of direction are spelled out.

    Line feeds and tabs stay. So no text that a model writes moves the cursor.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in UNSEEN
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest entry, numbers to the right."""
    rows = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numeric = [
        all(row[place].strip("-+0123456789.,% ") == "" for row in rows)
        for place in range(len(head))
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [list(head), *rows]
    ]
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-2 else f"{value:,.3f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return visible(str(value)).replace("\n", " ")


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A curve in one line of text, each character the mean of a stretch."""
    width = min(width, len(values))
    edges = [place * len(values) // width for place in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, span = min(means), max(means) - min(means)
    places = [round((m - low) / span * (len(LEVELS) - 1)) if span else 0 for m in means]
    return "".join(LEVELS[place] for place in places)
