"""Links, citations and the paths that documentation names lead somewhere."""

import ast
import re
from urllib.parse import urlparse

import pytest

from run import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
CITED = re.compile(r"\{cite(?::[a-z]+)?\}`([^`]+)`")
ENTRY = re.compile(r"^@\w+\{([^,]+),", re.MULTILINE)
PATH = re.compile(
    r"(?<![\w/.])((?:book|data|tests|cort33x_lib|benchmarks)/[\w./-]*\w/?)"
)


def prose(text):
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1`*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!\})`[^`\n]+`", "", text)


def broken_links(page, text):
    """Links of a Markdown page that cannot lead anywhere."""
    for match in LINK.finditer(prose(text)):
        link = match[1]
        parts = urlparse(link)
        if parts.scheme:
            known = parts.scheme in ("https", "http", "mailto")
            if not known or (parts.scheme != "mailto" and "." not in parts.netloc):
                yield link
        elif parts.path and not (page.parent / parts.path).exists():
            yield link


def unmatched_citations(texts, bibliography):
    """Keys cited without an entry, and entries that nothing cites."""
    cited = {
        key.strip()
        for text in texts
        for keys in CITED.findall(text)
        for key in keys.split(",")
    }
    return cited ^ set(ENTRY.findall(bibliography))


def missing_paths(text, root):
    """Paths into the project that a text names but that are not there."""
    return [path for path in PATH.findall(text) if not (root / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


def test_every_source_is_listed_and_cited():
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    assert unmatched_citations(texts, bibliography) == set()


def test_docstrings_and_the_readme_name_paths_that_exist():
    found = {}
    for file in (ROOT / "cort33x_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                missing = missing_paths(ast.get_docstring(node) or "", ROOT)
                found.update({path: file.name for path in missing})
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found.update({path: "README.md" for path in missing_paths(readme, ROOT)})
    assert found == {}


def test_planted_faults_are_found(tmp_path):
    page = tmp_path / "page.md"
    text = "[a](missing.md) [b](page.md#x) [c](https://nodot/x) [d](htps://a.b) "
    text += "![e](no.png) `[f](code.md)` [g](https://example.org/a) [h](#here)\n"
    page.write_text(text + "```\n[i](code.md)\n```\n")
    assert list(broken_links(page, page.read_text())) == [
        "missing.md",
        "https://nodot/x",
        "htps://a.b",
        "no.png",
    ]
    entries = "@book{one,\n}\n@misc{two,\n}\n"
    assert unmatched_citations(["{cite:t}`one` {cite}`one,three`"], entries) == {
        "two",
        "three",
    }
    assert missing_paths("see data/none/ or book/here.md", tmp_path) == [
        "data/none/",
        "book/here.md",
    ]
