"""Who may import whom, how long files may be, and what the library never does."""

import ast
import re

import pytest

import mirror
from run import ROOT

ARROWS = {
    "text": set(),
    "model": set(),
    "training": {"text", "model"},
    "lab": {"text", "model", "training"},
    "view": {"text", "model", "training", "lab"},
    "command": {"text", "model", "training", "lab", "view"},  # and may print
    "__main__": {"command"},
    "files": set(),  # plumbing that every room may use
}
PRINTING = "command"
OUTSIDE = {"book", "tests", "run", "mirror", "troubles", "pickle"}
FILE_LINES, LIBRARY_LINES = 300, 16_000
NEVER = {"eval", "exec", "print", "torch.load", "pickle", "builtins.eval"}
AT_IMPORT = (
    ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign
    | ast.AnnAssign
)  # fmt: skip


def imported(node, package):
    """The modules that an import statement names, in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    start = ".".join([*base, *([node.module] if node.module else [])])
    return [f"{start}.{alias.name}" for alias in node.names]


def faults_of(folder):
    """Every broken rule in a library folder, as sentences."""
    faults, total = [], 0
    for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.js")]):
        name = file.relative_to(folder).as_posix()
        text = file.read_text(encoding="utf-8")
        length = len(text.splitlines())
        if length >= FILE_LINES:
            faults.append(f"{name} has {length} lines, {FILE_LINES - 1} are allowed")
        if file.suffix == ".js":
            continue
        total += length
        room = name.split("/")[0].removesuffix(".py")
        package = ["cort33x_lib", *name.split("/")[:-1]]
        if room != "__init__" and room not in ARROWS:
            faults.append(f"{name} is in no room of the drawing")
            continue
        allowed = ARROWS.get(room, set()) | {room, "files"}
        tree = ast.parse(text)
        for node in [] if room == "__main__" else tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(
                node.value, ast.Constant
            )
            if not docstring and not isinstance(node, AT_IMPORT):
                faults.append(f"{name}:{node.lineno} does work when it is imported")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for module in imported(node, package):
                    parts = module.split(".")
                    if parts[0] in (
                        "book",
                        "tests",
                        "run",
                        "mirror",
                        "troubles",
                        "pickle",
                    ):
                        faults.append(f"{name}:{node.lineno} imports {parts[0]}")
                    if parts[0] == "cort33x_lib" and parts[1] not in allowed:
                        faults.append(f"{name}:{node.lineno} {room} -> {parts[1]}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in NEVER:
                called = ast.unparse(node.func)
                if called == "print" and room == PRINTING:
                    continue
                faults.append(f"{name}:{node.lineno} calls {called}")
    if total >= LIBRARY_LINES:
        faults.append(f"the library has {total} lines")
    return faults


def test_the_library_keeps_the_rules(capsys):
    assert faults_of(ROOT / "cort33x_lib") == []
    with capsys.disabled():
        for room in sorted(ARROWS):
            files = (ROOT / "cort33x_lib").glob(f"{room}*/**/*.py")
            lines = sum(len(f.read_text("utf-8").splitlines()) for f in files)
            print(f"\n{lines:5} lines in {room}", end="")


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("text/a.py", "import cort33x_lib.model.config", "text -> model"),
        ("text/a.py", "from cort33x_lib import lab", "text -> lab"),
        ("model/a.py", "from ..text import corpus", "model -> text"),
        ("model/a.py", "def f():\n    from ..view import g", "model -> view"),
        ("training/a.py", "from ..lab.evaluation import x", "training -> lab"),
        ("files.py", "from .text import corpus", "files -> text"),
        ("attic/a.py", "x = 1", "no room"),
        ("lab/a.py", "import pickle", "imports pickle"),
        ("lab/a.py", "from tests.conftest import site", "imports tests"),
        ("lab/a.py", "def f(x):\n    return eval(x)", "calls eval"),
        ("lab/a.py", "def f(x):\n    return torch.load(x)", "calls torch.load"),
        ("lab/a.py", "def f(x):\n    print(x)", "calls print"),
        ("lab/a.py", "for x in []:\n    pass", "when it is imported"),
        ("lab/a.py", "x = 1\n" * 300, "300 lines"),
        ("command/a.py", "def f(x):\n    eval(x)", "calls eval"),
        ("command/a.py", "print(1)", "when it is imported"),
        ("view/a.py", "from ..command import parser", "view -> command"),
        ("__main__.py", "from .lab import plan", "__main__ -> lab"),
        ("view/a.js", "\n" * 300, "300 lines"),
    ],
)
def test_a_planted_fault_is_found(tmp_path, file, text, fault):
    place = tmp_path / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    found = faults_of(tmp_path)
    assert len(found) == 1 and fault in found[0]


def test_allowed_imports_are_no_fault(tmp_path):
    for room in ("training", "view"):
        (tmp_path / room).mkdir()
    code = "from ..text.corpus import Document\nimport cort33x_lib.model\n"
    (tmp_path / "training" / "a.py").write_text(code + "from .. import files\n")
    (tmp_path / "view" / "a.py").write_text("from ..lab import x\ny = x.eval()\n")
    (tmp_path / "command").mkdir()
    told = "from ..view import x\ndef f():\n    print(x)\n"
    (tmp_path / "command" / "a.py").write_text(told)
    start = "from .command.parser import main\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "__main__.py").write_text(start)
    assert faults_of(tmp_path) == []


def test_too_long_a_library_is_found(tmp_path):
    (tmp_path / "lab").mkdir()
    for number in range(60):
        (tmp_path / "lab" / f"a{number}.py").write_text("x = 1\n" * 290)
    assert faults_of(tmp_path) == ["the library has 17400 lines"]


UNSAFE_CALLS = {"eval", "exec", "builtins.eval", "builtins.exec", "torch.load"}
UNSAFE_CALLS |= {"yaml.load", "yaml.unsafe_load"}
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def unsafe_in(code):
    """Whatever could run what it reads: calls by name, imports, pickles in NumPy."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield f"line {node.lineno} calls {called}"
            allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
            if any(ast.unparse(k.value) != "False" for k in allowed):
                yield f"line {node.lineno} allows pickles"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = names or [alias.name for alias in node.names]
            for name in names:
                if name.split(".")[0] in UNSAFE_MODULES:
                    yield f"line {node.lineno} imports {name}"


def test_nothing_here_runs_what_it_reads(capsys):
    """Library, tests, benchmarks, tools and every cell of every chapter."""
    codes = {
        path: path.read_text(encoding="utf-8")
        for folder in ("cort33x_lib", "benchmarks", "tests", "book/_ext")
        for path in (ROOT / folder).rglob("*.py")
    }
    codes |= {path: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    for path in mirror.chapters():
        cells = mirror.cells_of(path.read_text(encoding="utf-8"))
        code = "\n".join(code for _, code in cells)
        codes[path] = re.sub(r"(?m)^[%!].*$", "", code)
    found = {
        str(path.relative_to(ROOT)): faults
        for path, code in codes.items()
        if (faults := list(unsafe_in(code)))
    }
    assert found == {}
    with capsys.disabled():
        print(f"\n0 of {len(codes)} files run what they read", end="")


@pytest.mark.parametrize(
    "code",
    [
        "x = eval('1')",
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import yaml\nyaml.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
)
def test_what_could_run_is_found(code):
    assert len(list(unsafe_in(code))) == 1
