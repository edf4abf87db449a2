"""The code that a chapter teaches is the code of the library."""

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter

import jupytext
import pytest

import mirror
from run import ROOT

TOUR = "01_train_a_model_in_three_minutes"
LIBRARY = mirror.library_definitions()
LIBRARY_CODE = '''
def double(number):
    """Gives twice the number."""
    return 2 * number
'''
TAGGED = "```{code-cell}\n:tags: [library]\n\n"
CHAPTER = "Text.\n\n" + TAGGED + "def double(number):\n    %s\n```\n"


def cells(chapter):
    notebook = jupytext.read(chapter)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def faults_of(chapters, library):
    """Every broken rule, given each chapter's cells as (tags, code), in book order."""
    faults, built_in = [], {}
    for chapter, contents in chapters.items():
        for tags, code in contents:
            names = mirror.definitions(code)
            if "library" not in tags:
                for name in names.keys() & library.keys():
                    faults.append(f"{chapter} redefines the library's {name}")
                continue
            for name, source in names.items():
                if name not in library:
                    faults.append(f"{chapter} builds {name}, the library has none")
                elif mirror.bare(source) != mirror.bare(library[name]):
                    faults.append(f"{chapter} differs from the library in {name}")
                if name in built_in:
                    faults.append(f"{name} is built in {built_in[name]} and {chapter}")
                built_in.setdefault(name, chapter)
    order = list(chapters)
    for chapter, contents in chapters.items():
        for node in ast.walk(ast.parse("\n".join(code for _, code in contents))):
            if chapter == TOUR or not isinstance(node, ast.ImportFrom):
                continue
            for name in (alias.name for alias in node.names):
                if order.index(built_in.get(name, chapter)) > order.index(chapter):
                    faults.append(f"{chapter} imports {name} before it is built")
    return faults


def test_the_chapters_and_the_library_are_one():
    chapters = {
        path.stem: [(c.metadata.get("tags", []), code_of(c)) for c in cells(path)]
        for path in mirror.chapters()
    }
    assert faults_of(chapters, LIBRARY) == []


def code_of(cell):
    return re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE)


def test_a_public_name_means_one_thing():
    names = Counter()
    for file in (ROOT / "cort33x_lib").rglob("*.py"):
        names.update(list(mirror.definitions(file.read_text(encoding="utf-8"))))
    shared = {name for name, count in names.items() if count > 1 and name in LIBRARY}
    built = {name for path in mirror.chapters() for name in built_by(path)}
    assert shared & built == set(), "`make mirror` could not tell these apart"


def built_by(path):
    text = path.read_text(encoding="utf-8")
    tagged = [code for head, code in mirror.cells_of(text) if "library" in head]
    return [name for code in tagged for name in mirror.definitions(code)]


LATER = {"08": [(["library"], "def attend(x):\n    return x")]}
KNOWN = {
    "attend": "def attend(x):\n    'Gives x.'\n    return x",
    "Model": "class Model: 0",
}


@pytest.mark.parametrize(
    ("chapters", "fault"),
    [
        ({"08": [(["library"], "def attend(x):\n    return -x")]}, "differs"),
        ({"08": [(["library"], "def unknown(x):\n    return x")]}, "has none"),
        ({"08": [([], "class Model:\n    pass")]}, "redefines"),
        ({"03": [([], "from a.b import attend")], **LATER}, "before it is built"),
        ({**LATER, "09": LATER["08"]}, "built in 08 and 09"),
    ],
)
def test_a_planted_fault_is_found(chapters, fault):
    found = faults_of(chapters, KNOWN)
    assert len(found) == 1 and fault in found[0]


def test_what_is_allowed_is_no_fault():
    tour = {TOUR: [([], "from a.b import attend")]}
    after = {"09": [([], "from a.b import attend\ndef sketch(x):\n    return x")]}
    assert faults_of({**tour, **LATER, **after}, KNOWN) == []


@pytest.fixture
def small_project(tmp_path):
    """A copy of the tools with a library of one function and a chapter about it."""
    for folder in ("cort33x_lib", "book"):
        (tmp_path / folder).mkdir()
    for tool in ("run.py", "mirror.py", "troubles.py"):
        shutil.copy(ROOT / tool, tmp_path)
    (tmp_path / "cort33x_lib" / "a.py").write_text(LIBRARY_CODE)
    return tmp_path


def run_mirror(folder):
    command = [sys.executable, "run.py", "mirror"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_mirror_repairs_a_drifted_chapter_and_leaves_the_rest(small_project):
    chapter = small_project / "book" / "01_a.md"
    other = small_project / "book" / "02_b.md"
    chapter.write_text(CHAPTER % "return 3 * number" + "More text.\n")
    other.write_text("# No cells\n")
    assert run_mirror(small_project).stdout.splitlines() == [
        "pasted library source into book/01_a.md"
    ]
    assert LIBRARY_CODE.strip() in chapter.read_text()
    assert chapter.read_text().startswith("Text.\n\n```{code-cell}\n:tags: [library]\n")
    assert chapter.read_text().endswith("\n```\nMore text.\n")
    assert other.read_text() == "# No cells\n"
    assert run_mirror(small_project).stdout == ""
    assert (small_project / "cort33x_lib" / "a.py").read_text() == LIBRARY_CODE


def test_mirror_leaves_a_chapter_that_only_words_it_otherwise(small_project):
    chapter = small_project / "book" / "01_a.md"
    chapter.write_text(CHAPTER % "return 2 * number  # twice")
    before = chapter.read_text()
    assert run_mirror(small_project).returncode == 0
    assert chapter.read_text() == before


def test_mirror_names_what_the_library_lacks(small_project):
    chapter = small_project / "book" / "01_a.md"
    chapter.write_text(CHAPTER.replace("double", "triple") % "return 3 * number")
    answer = run_mirror(small_project)
    assert answer.returncode == 1 and "triple" in answer.stderr


def test_mirror_has_nothing_to_do_here():
    for chapter in mirror.chapters():
        text = chapter.read_text(encoding="utf-8")
        assert mirror.mirrored(text, LIBRARY) == text


def test_both_readers_of_chapters_see_the_same_cells():
    for chapter in mirror.chapters():
        text = chapter.read_text(encoding="utf-8")
        seen = [code for _, code in mirror.cells_of(text)]
        assert seen == [cell.source for cell in cells(chapter)]
