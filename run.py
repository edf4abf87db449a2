"""The commands of the book: `make book` and `python run.py book` are the same.

Only Python's standard library is used, because nothing else is installed yet.
"""

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mirror
from troubles import (
    Trouble,
    check_folder,
    check_python,
    explain,
    find_browser,
    install_browser,
    read_log,
)

ROOT = Path(__file__).resolve().parent
VENV, BUILD, BOOK = ROOT / ".venv", ROOT / "_build", ROOT / "book"
UNREAD = {"__pycache__", ".ipynb_checkpoints"}
HELP = """\
make book     install what is needed, run every chapter, build the site
make test     the same set-up, then every test
make lab      open the book in JupyterLab
make setup    only make .venv and install into it
make train    train chapter 1's model here, in about two minutes
make fuzz     the tokenizer on a million random texts of each kind: half an hour or more
make faults   saves and runs broken on purpose, some thousand times: ten minutes
make mutants  twelve bugs planted in the model, which the tests must find
make bench    tokenizer and model beside others, which it installs into .venv first
make lint     check the style of library, tests and chapter cells
make mirror   paste library source into the chapter cells tagged `library`
make clean    remove the built site and its caches (the folder _build)

Without make:            python run.py book   (Windows: py run.py book)
In a conda environment:  python run.py --here book   (uses it instead of .venv)
Further words go on to pytest or JupyterLab:  python run.py test -k tokenizer"""
COMMANDS = ("setup", "book", "test", "lab", "train", "fuzz", "faults")
COMMANDS += ("mutants", "bench", "lint")
INSTALLING = "Installing PyTorch, JupyterLab and Jupyter Book"


def digest(*paths):
    """One fingerprint of files and of everything inside folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT)
            if file.is_file() and not UNREAD & set(name.parts):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{name.as_posix()}\0{content}\n".encode())
    return total.hexdigest()[:16]


def library_digest():
    """Changes whenever a chapter could print something else than before."""
    return digest(ROOT / "cort33x_lib", ROOT / "data", ROOT / "pyproject.toml")


class Project:
    """The commands, run with one Python: that of .venv, or the one at hand."""

    def __init__(self, here=False):
        inside = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.here = here
        self.python = sys.executable if here else str(inside)
        self.environment = dict(os.environ, PYTHONUTF8="1", PYTHONUNBUFFERED="1")
        # Chapters run on this Python, and find no other one's packages.
        self.environment["JUPYTER_PREFER_ENV_PATH"] = "1"
        for name in ("PYTHONPATH", "PYTHONHOME"):
            self.environment.pop(name, None)

    def program(self, name):
        found = shutil.which(name, path=os.path.dirname(self.python))
        if not found:
            raise Trouble(
                f"{name} is not installed beside {self.python}. Install the project "
                'there: python -m pip install -e ".[book,test]"'
            )
        return found

    def start(self, command, **more):
        words = [str(word) for word in command]
        return subprocess.Popen(words, cwd=str(ROOT), env=self.environment, **more)

    def run(self, command):
        process = self.start(command)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass  # the command hears Ctrl-C too, and ends in its own way

    def run_logged(self, command, log, failure):
        """The log gets every line; the terminal is told where it stands."""
        log.parent.mkdir(parents=True, exist_ok=True)
        live, started = sys.stdout.isatty(), time.monotonic()
        before, after = ("\r\033[K", "") if live else ("", "\n")
        shown = started
        with open(str(log), "wb") as file:
            process = self.start(command, stdout=file, stderr=subprocess.STDOUT)
            try:
                while process.poll() is None:
                    time.sleep(0.1)
                    now = time.monotonic()
                    if now - shown > (0.5 if live else 20):
                        shown = now
                        words = last_news(log)[:64]
                        line = f"{before}  {now - started:4.0f} s  {words}"
                        print(line, end=after, flush=True)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        print(before, end="", flush=True)
        if process.returncode != 0:
            raise Trouble(explain(failure, log))

    def stamp(self):
        """What .venv is: it is remade when its Python or its place has changed."""
        asked = [self.python, "-c", "import sys; print(sys.version.split()[0])"]
        try:
            version = subprocess.check_output(asked, encoding="utf-8").strip()
        except (OSError, subprocess.CalledProcessError):
            version = "broken"
        return [version, str(VENV), digest(ROOT / "pyproject.toml")]

    def setup(self):
        if self.here:
            return
        ready, log, found = VENV / "ready", BUILD / "setup.log", self.stamp()
        known = ready.read_text(encoding="utf-8").split("\n") if ready.exists() else []
        if known == found:
            return
        check_folder(ROOT, 3.0, INSTALLING)
        print(f"{INSTALLING} into .venv: 2 to 5 minutes, 1.6 GB", flush=True)
        if known[:2] == found[:2]:
            ready.unlink()
        else:  # an install that was cut short may hold half a package: start afresh
            shutil.rmtree(str(VENV), ignore_errors=True)
            make = [sys.executable, "-m", "venv", VENV]
            self.run_logged(make, log, "The environment could not be made.")
        self.install(".[book,test]")
        ready.write_text("\n".join(self.stamp()), encoding="utf-8")

    def install(self, wanted):
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        failure = "The packages could not be installed."
        self.run_logged(pip + ["install", "-e", wanted], BUILD / "setup.log", failure)

    def build(self):
        """The site's first page; made only when something has changed."""
        page, built = BUILD / "html" / "index.html", BUILD / "site.digest"
        wanted = digest(BOOK, ROOT / "_config.yml") + library_digest() + str(ROOT)
        if page.exists() and built.exists() and built.read_text("utf-8") == wanted:
            return page
        check_folder(ROOT, 0.2, "Building the site")
        if built.exists():
            built.unlink()
        else:  # Sphinx warns about a page only when it reads it: read all again
            shutil.rmtree(str(BUILD / ".doctrees"), ignore_errors=True)
        print("Running the chapters and building the site", flush=True)
        command = [self.program("jupyter-book"), "build", BOOK, "--path-output", ROOT]
        command += ["--config", ROOT / "_config.yml", "-W", "--keep-going"]
        self.run_logged(command, BUILD / "book.log", "The book could not be built.")
        for old in (BUILD / "executed").glob("*"):
            if old.name != library_digest():
                shutil.rmtree(str(old), ignore_errors=True)
        built.write_text(wanted, encoding="utf-8")
        return page

    def book(self, words):
        page = self.build()
        place = BUILD / "executed" / library_digest() / "global.db"
        cache = sqlite3.connect(str(place))
        asked = "SELECT uri, data FROM nbcache ORDER BY created"
        notes = {Path(uri): json.loads(data) for uri, data in cache.execute(asked)}
        cache.close()
        print("\nSeconds each chapter took to run on this machine:")
        for chapter in mirror.chapters():
            print(f"  {notes[chapter]['execution_seconds']:6.1f}  {chapter.name}")
        print(f"\nThe site is {page}\nOpen it in a browser: {page.as_uri()}")

    def test(self, words):
        if not find_browser():
            install_browser()
        if words:  # asked for some tests only: the site is built when one needs it
            return self.run([self.python, "-m", "pytest"] + words)
        self.build()
        self.environment["OMP_NUM_THREADS"] = "1"
        return self.run([self.python, "-m", "pytest", "-n", "2", "--dist", "loadfile"])

    def lab(self, words):
        port = next(number for number in range(8888, 8988) if is_free(number))
        if port != 8888:
            print(f"Port 8888 is taken; JupyterLab uses {port}.", flush=True)
        command = [self.program("jupyter-lab"), f"--ServerApp.root_dir={ROOT}"]
        command += [f"--ServerApp.port={port}", "--ServerApp.answer_yes=True"]
        return self.run(command + ["--LabApp.default_url=/lab/tree/book"] + words)

    def fuzz(self, words):
        self.environment.setdefault("FUZZ_TRIALS", "1000000")
        return self.run([self.python, "-m", "pytest", "tests/test_fuzz.py"] + words)

    def faults(self, words):
        self.environment["FAULTS_LONG"], self.environment["OMP_NUM_THREADS"] = "1", "1"
        names = ("checkpoint", "resume", "faults", "distributed")
        tests = [f"tests/test_{name}.py" for name in names]
        return self.run([self.python, "-m", "pytest"] + tests + words)

    def bench(self, words):
        print("Installing the other tokenizers and models", flush=True)
        self.install(".[peers]")
        scripts = ["tokenizer", "model", "windows", "delta", "decoding"]
        scripts += ["loop", "telemetry", "checkpoint"]
        calls = [[self.python, f"benchmarks/{script}.py"] for script in scripts]
        return any([self.run(call) for call in calls])

    def train(self, words):
        command = [self.python, "-m", "cort33x_lib", "train"]
        return self.run(command + (words or ["tour"]))

    def mutants(self, words):
        return self.run([self.python, "tests/mutants.py"] + words)

    def lint(self, words):
        cells = BUILD / "lint"
        shutil.rmtree(str(cells), ignore_errors=True)
        cells.mkdir(parents=True)
        mirror.write_notebooks(cells)
        places = [
            "cort33x_lib",
            "benchmarks",
            "tests",
            "conftest.py",
            "book/_ext",
            "run.py",
            "mirror.py",
            "troubles.py",
        ]
        places += sorted(cells.iterdir())
        checked = self.run([self.program("ruff"), "check"] + places)
        formatted = self.run([self.program("ruff"), "format", "--check"] + places)
        if formatted:
            print("Format a chapter: jupytext --pipe 'ruff format -' book/CHAPTER.md")
        return checked or formatted


def last_news(log):
    lines = read_log(log).replace(str(ROOT) + os.sep, "").split("\n")
    telling = [line for line in lines if line.strip() and "[IPKernelApp]" not in line]
    return "".join(telling[-1:]).strip()


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def main(words):
    here = words[:1] == ["--here"]
    command, *rest = words[here:] or ["help"]
    try:
        check_python(sys.version_info, sys.executable)
        if command == "clean":
            shutil.rmtree(str(BUILD), ignore_errors=True)
        elif command == "mirror":
            for name in mirror.mirror():
                print(f"pasted library source into book/{name}")
        elif command in COMMANDS:
            project = Project(here)
            project.setup()
            return getattr(project, command)(rest) if command != "setup" else 0
        else:
            print(HELP)
            return 0 if command == "help" else 2
    except (Trouble, OSError, ValueError) as trouble:
        print(trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Call it again to carry on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
