"""Before and after: what filters did to documents, one example at a time."""

import os
from collections.abc import Iterable
from pathlib import Path

import anywidget
import traitlets

from cort33x_lib.text.cleaning import Example, Ledger

AROUND = 200  # characters shown on either side of a change
LENGTH = 1500  # characters shown of a text at most


def excerpts(before: str, after: str | None) -> tuple[str, str | None]:
    """Both texts around what differs, at most LENGTH characters each; the start of a
    text that was removed. An ellipsis stands for what is left out."""
    if after is None:
        return _cut(before, 0, len(before), LENGTH), None
    start = len(os.path.commonprefix([before, after]))
    backwards = before[start:][::-1], after[start:][::-1]
    end = len(os.path.commonprefix(backwards))
    one, other = (
        _cut(text, start - AROUND, len(text) - end + AROUND, LENGTH)
        for text in (before, after)
    )
    return one, other


def _cut(text: str, start: int, end: int, length: int) -> str:
    start = max(start, 0)
    end = min(end, len(text), start + length - 2)
    return "…" * (start > 0) + text[start:end] + "…" * (end < len(text))


class BeforeAfter(anywidget.AnyWidget):
    """The examples of some ledgers: texts before and after, with the changes marked.

    The browser marks them, so it works without a kernel too; it gets excerpts only.
    """

    _esm = Path(__file__).with_name("before_after.js")
    _css = Path(__file__).with_name("before_after.css")
    examples = traitlets.List().tag(sync=True)  # a dictionary each, texts as excerpts

    def __init__(self, ledgers: Iterable[Ledger]):
        shown = [_shown(example) for ledger in ledgers for example in ledger.examples]
        super().__init__(examples=shown)


def _shown(example: Example) -> dict[str, str | None]:
    before, after = excerpts(example.before, example.after)
    return {
        "rule": example.rule,
        "origin": example.origin,
        "note": example.note[:AROUND],
        "before": before,
        "after": after,
    }
