"""Cleaning: filters one after another, and a ledger of what each has done.

A filter reads the whole corpus and answers for every document: the document itself to
keep it, another document to put in its place, or `Removed` with the rule that it broke.
So a filter that must see all documents first (duplicates) and one that needs a single
one (encoding) have the same form, and one ledger fits both. Left out: corpora larger
than memory.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cort33x_lib.text.corpus import Document

EXAMPLES = 10  # that a ledger keeps of each rule


@dataclass(frozen=True)
class Removed:
    """The answer for a document that goes: the rule it broke and what was found."""

    rule: str
    note: str = ""


Answer = Document | Removed
Filter = Callable[[Sequence[Document]], Iterable[Answer]]


def one_by_one(rule: Callable[[Document], Answer]) -> Filter:
    """The filter that answers for each document without looking at the others."""
    return lambda documents: map(rule, documents)


def with_text(document: Document, text: str) -> Answer:
    """The document with another text; removed when only white space is left of it.

    What a subclass of Document knows of the old text is not kept.
    """
    if text == document.text:
        return document
    if not text.strip():
        return Removed("nothing left")
    return Document(text, document.unit, document.origin, document.licence)


@dataclass(frozen=True)
class Example:
    """A document that a rule touched; `after` is None where it was removed."""

    step: str
    rule: str
    origin: str
    before: str
    after: str | None
    note: str


@dataclass(frozen=True)
class RuleTotal:
    """What one rule did: documents removed and changed, and bytes taken away."""

    rule: str
    removed: int
    changed: int
    nbytes: int  # below 0 where changes made texts longer


@dataclass(frozen=True)
class Ledger:
    """What one filter did: sizes before and after, a total a rule, examples."""

    step: str
    documents: tuple[int, int]  # before, after
    nbytes: tuple[int, int]  # before, after
    totals: tuple[RuleTotal, ...]
    examples: tuple[Example, ...]
    seconds: float  # of processor time


def apply_filter(
    step: str, filter: Filter, documents: Sequence[Document]
) -> tuple[list[Document], Ledger]:
    """What a filter leaves of the documents, and its ledger.

    A change is entered under the name of the step, a removal under its rule. Raises
    ValueError unless there is one answer for each document.
    """
    start = time.process_time()
    answers = list(filter(documents))
    seconds = time.process_time() - start
    if len(answers) != len(documents):
        raise ValueError(
            f"{step}: {len(answers)} answers for {len(documents)} documents"
        )
    kept, examples, counts = [], [], {}
    for document, answer in zip(documents, answers, strict=True):
        gone = isinstance(answer, Removed)
        if not gone:
            kept.append(answer)
        if answer is document:
            continue
        rule, note = (answer.rule, answer.note) if gone else (step, "")
        removed, changed, nbytes = counts.get(rule, (0, 0, 0))
        lost = document.nbytes - (0 if gone else answer.nbytes)
        counts[rule] = removed + gone, changed + (not gone), nbytes + lost
        if removed + changed < EXAMPLES:
            after = None if gone else answer.text
            examples.append(
                Example(step, rule, document.origin, document.text, after, note)
            )
    ledger = Ledger(
        step,
        (len(documents), len(kept)),
        (sum(d.nbytes for d in documents), sum(d.nbytes for d in kept)),
        tuple(RuleTotal(rule, *count) for rule, count in counts.items()),
        tuple(examples),
        seconds,
    )
    return kept, ledger


def clean(
    documents: Iterable[Document], filters: Mapping[str, Filter]
) -> tuple[list[Document], list[Ledger]]:
    """What the filters, in their order, leave of the documents, and their ledgers."""
    kept, ledgers = list(documents), []
    for step, filter in filters.items():
        kept, ledger = apply_filter(step, filter, kept)
        ledgers.append(ledger)
    return kept, ledgers
