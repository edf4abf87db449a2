"""Chapters have the parts of the template, in order, and read well as text."""

import ast
import re
import statistics
import subprocess
import sys

import jupytext
import pytest

import mirror

PARTS = [
    "You will build",
    "You will be able to",
    "You need",
    "What it costs",
    "What you built",
    "Exercises",
    "In practice",
    "Further reading",
]
CELL_LINES, COLUMNS, IMPORT_LINES = 40, 88, 12
UNSEEN = {"remove-cell", "hide-cell"}
HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---
"""


def read(text):
    return jupytext.reads(text, fmt="md:myst")


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code_cells(text):
    return [cell for cell in read(text).cells if cell.cell_type == "code"]


def prose(text):
    """The words of a chapter: no header, no code, no formulas."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^```\{code-cell\}.*?^```$", "", text, flags=re.DOTALL | re.M)
    return re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)


def check_header(text):
    if not text.startswith(HEADER):
        yield "the header is not the one that JupyterLab writes"


def check_opening(text):
    opening = r"\A---\n.*?\n---\n+\([a-z0-9-]+\)=\n+# (\w+)[^\n]*[^.:!?\n]\n\n+\w[^#`]"
    found = re.search(opening, text, re.DOTALL)
    if not found:
        yield "it does not open with a label, a title and a promise"
    elif found[1].lower() in ("the", "a", "an", "on", "about", "introduction"):
        yield "its title does not begin with a verb"


def check_parts(text):
    words, at = prose(text), 0
    for part in PARTS:
        found = re.compile(rf"^(?:#+ |\W*\*\*?){part}\b", re.M | re.I).search(words, at)
        if not found:
            yield f"the part '{part}' is missing or out of order"
        else:
            at = found.end()


def check_time(text):
    need = re.search(r"You need\b(.*?)```\{code-cell\}", text, re.DOTALL)
    if not need or not re.search(r"\b(minutes?|seconds)\b", need[1]):
        yield "'You need' does not say how long the chapter takes"


def check_imports(text):
    seen = [cell for cell in code_cells(text) if not tags(cell) & UNSEEN]
    for place, cell in enumerate(seen):
        lines = sum(
            node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(re.sub("(?m)^[%!].*", "", cell.source)))
            if isinstance(node, ast.Import | ast.ImportFrom)
        )
        if place == 0 and lines > IMPORT_LINES:
            yield f"the imports take {lines} lines"
        if place > 0 and lines:
            yield f"cell {place + 1} imports, which the first cell does"


def check_cells(text):
    for place, cell in enumerate(code_cells(text), start=1):
        lines = cell.source.split("\n")
        if len(lines) > CELL_LINES:
            yield f"cell {place} has {len(lines)} lines"
        widest = max(lines, key=len)
        if len(widest) > COLUMNS:
            yield f"cell {place} has a line of {len(widest)} letters: {widest.strip()}"


def check_prose_between(text):
    before = None
    for place, cell in enumerate(c for c in read(text).cells if not tags(c) & UNSEEN):
        says = cell.cell_type == "code" or re.search(r"\w", cell.source)
        if before == cell.cell_type == "code":
            yield f"no prose before this cell: {cell.source[:40]!r} (cell {place})"
        before = cell.cell_type if says else before


def check_balance(text):
    words, lines, lengths = balance(text)
    if not 4 <= words / lines <= 40:
        yield f"{words} words of prose for {lines} lines of code"
    if statistics.median(lengths) > 20:
        yield f"half of the cells are longer than {statistics.median(lengths)} lines"


def balance(text):
    cells = [c.source for c in code_cells(text) if not tags(c) & UNSEEN]
    lengths = [len([ln for ln in code.split("\n") if ln.strip()]) for code in cells]
    return len(prose(text).split()), sum(lengths), lengths


def check_outputs(text):
    if "jupytext_version" in text or '"outputs"' in text:
        yield "it keeps what only a run of the notebook should"


CHECKS = [value for name, value in sorted(globals().items()) if name[:6] == "check_"]


def faults_of(text):
    return [fault for check in CHECKS for fault in check(text)]


@pytest.mark.parametrize("chapter", mirror.chapters(), ids=lambda path: path.stem)
def test_a_chapter_has_the_form(chapter, capsys):
    text = chapter.read_text(encoding="utf-8")
    assert faults_of(text) == []
    words, lines, lengths = balance(text)
    with capsys.disabled():
        print(
            f"\n{chapter.name}: {words / lines:.1f} words a line of code, "
            f"median cell {statistics.median(lengths):.0f} lines",
            end="",
        )


@pytest.mark.parametrize(
    "page", sorted((mirror.ROOT / "book").glob("*.md")), ids=lambda path: path.stem
)
def test_saving_an_untouched_page_changes_nothing(page):
    saved = jupytext.writes(jupytext.read(page), fmt="md:myst")
    saved = re.sub(" *jupytext_version: .*\n", "", saved)  # the settings leave it out
    assert saved == page.read_text(encoding="utf-8")


GOOD = (
    HEADER
    + """
(add-two)=
# Add two numbers

In this chapter you add two numbers and see that the order does not matter.

**You will build**

- a sum of two numbers, in one line that you can read aloud.

**You will be able to**

- say what the sum of two numbers is, and in which order it was taken.

**You need**

- nothing but patience, for about one minute on a laptop with two cores.

```{code-cell}
import math
```

## The problem, with a pencil

Two and three are five, and so are three and two: the order does not matter.

```{code-cell}
total = 2 + 3
assert math.isclose(total, 5)
```

Here a sentence stands between two cells, so that a reader knows why.

```{code-cell}
print(total)
```

```{code-cell}
:tags: [remove-cell]

import os
```

## What it costs

One addition.

## What you built

- A sum.

## Exercises

Add three numbers.

## In practice

Machines add many numbers at once.

## Further reading

Nothing.
"""
)


def test_a_good_chapter_has_no_fault():
    assert faults_of(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("format_version: 0.13", "format_version: 0.12", "header"),
        ("(add-two)=\n", "", "does not open with a label"),
        ("# Add two numbers\n", "# Add two numbers.\n", "does not open with a label"),
        ("In this chapter you add", "## You add", "does not open with a label"),
        ("# Add two", "# The two", "verb"),
        ("**You need**", "**Required**", "'You need' is missing"),
        ("## In practice", "## Elsewhere", "'In practice' is missing"),
        ("## Exercises", "## Further reading", "'Exercises' is missing"),
        ("one minute", "a while", "how long"),
        ("import math\n", "import math\n" * 13, "imports take 13 lines"),
        ("print(total)\n", "import os\n", "imports, which the first"),
        ("print(total)\n", "print(total)\n" * 41, "has 41 lines"),
        ("print(total)", f"print('{'x' * 80}')", "line of 89 letters"),
        ("Here a sentence stands between two cells, so that a reader knows why.",
         "", "no prose before"),
        ("Add three numbers.", "Add three numbers, please. " * 60, "words of prose"),
        ("print(total)\n", "print(total)\n" * 40, "words of prose"),
        ("Nothing.", "jupytext_version: 1.19", "only a run"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(old, new, fault):
    assert old in GOOD
    found = faults_of(GOOD.replace(old, new))
    assert any(fault in one for one in found)
    assert len(found) <= 2


def test_every_code_cell_of_every_chapter_is_a_test():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "book"]
    listed = subprocess.run(command, cwd=mirror.ROOT, capture_output=True, text=True)
    for chapter in mirror.chapters():
        cells = len(code_cells(chapter.read_text(encoding="utf-8")))
        assert cells > 5
        assert listed.stdout.count(f"book/{chapter.name}::") == cells
