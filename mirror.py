"""Reads the chapters' cells and keeps them in step with the library.

The library is the source. A chapter cell tagged `library` shows a part of it;
`make mirror` pastes library source into such cells, never the other way.
"""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?P<head>(?:---\n.*?\n---\n|(?::[^\n]*\n)*))"
    r"(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def chapters():
    return sorted((ROOT / "book").glob("[0-9]*.md"))


def cells_of(text):
    """(options, code) of every code cell of a chapter."""
    return [(m["head"], m["code"].strip("\n")) for m in CELL.finditer(text)]


def library_definitions():
    """Each public definition of the library: name -> its source, as written."""
    found = {}
    for file in sorted((ROOT / "cort33x_lib").rglob("*.py")):
        for name, source in definitions(file.read_text(encoding="utf-8")).items():
            if not name.startswith("_"):
                found[name] = source
    return found


def definitions(text):
    """Each function and class at the top of some code: name -> its source."""
    found, lines = {}, text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno] + [d.lineno for d in node.decorator_list])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def bare(source):
    """The syntax tree of some code without its docstrings, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0].value, "value", None), str):
                del body[0]
    return ast.dump(tree)


def mirrored(text, library):
    """A chapter in which each `library` cell says what the library says."""

    def paste(match):
        whole = match.group()
        if not re.search(r"\blibrary\b", match["head"]):
            return whole
        for name, source in definitions(match["code"]).items():
            if name not in library:
                raise ValueError(
                    f"The library has no {name}, which a library cell builds."
                )
            if bare(source) != bare(library[name]):
                whole = whole.replace(source, library[name])
        return whole

    return CELL.sub(paste, text)


def mirror():
    """Paste what has drifted; gives the names of the chapters that changed."""
    library, changed = library_definitions(), []
    for chapter in chapters():
        text = chapter.read_text(encoding="utf-8")
        if mirrored(text, library) != text:
            chapter.write_text(mirrored(text, library), encoding="utf-8")
            changed.append(chapter.name)
    return changed


def write_notebooks(folder):
    """The code of each chapter as a notebook, for tools that read only those."""
    for chapter in chapters():
        cells = []
        for number, (_, code) in enumerate(cells_of(chapter.read_text("utf-8"))):
            cell = {"cell_type": "code", "metadata": {}, "outputs": [], "source": code}
            cells.append(dict(cell, execution_count=None, id=f"cell-{number}"))
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        place = folder / chapter.with_suffix(".ipynb").name
        place.write_text(json.dumps(notebook), encoding="utf-8")
