"""The commands of the book: `make book` and `python run.py book` are the same.

Only Python's standard library is used, because nothing else is installed yet.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mirror

ROOT = Path(__file__).resolve().parent
VENV, BUILD, BOOK = ROOT / ".venv", ROOT / "_build", ROOT / "book"
OLDEST_PYTHON = (3, 11)
UNREAD = {"__pycache__", ".ipynb_checkpoints"}
INSTALL_GB, BUILD_GB = 3.0, 0.2
HELP = """\
make book     install what is needed, run every chapter, build the site
make test     the same set-up, then every test
make lab      open the book in JupyterLab
make setup    only make .venv and install into it
make lint     check the style of library, tests and chapter cells
make mirror   paste library source into the chapter cells tagged `library`
make clean    remove the built site and its caches (the folder _build)

Without make:            python run.py book   (Windows: py run.py book)
In a conda environment:  python run.py --here book   (uses it instead of .venv)
Further words go on to pytest or JupyterLab:  python run.py test -k tokenizer"""
# What a log may say, and the sentence it becomes.
TROUBLES = {
    "No space left on device|Errno 28": "The disk is full. Free some space and call "
    "it again.",
    "Read-only file system|Permission denied|Errno 13": "A file could not be written. "
    "Make this folder and your temporary folder writable and call it again.",
    "NewConnectionError|name resolution|NameResolutionError|getaddrinfo|ProxyError|"
    "ConnectTimeout|Max retries exceeded": "The package index could not be reached. "
    "Check the network and call it again: only the first set-up needs it.",
    "ensurepip is not available|No module named ensurepip": "This Python cannot make "
    "an environment. On Debian or Ubuntu: sudo apt install python3-venv; then call "
    "it again.",
}


class Trouble(Exception):
    """Something the reader can mend; its text says how."""


def check_python(version, executable):
    if tuple(version[:2]) < OLDEST_PYTHON:
        raise Trouble(
            "Cort33x needs Python 3.11 or newer; this is {} at {}. Install a newer "
            "one and name it, e.g. make PYTHON=python3.12 book".format(
                ".".join(str(part) for part in version[:3]), executable
            )
        )


def check_space(folder, needed_gb, purpose):
    free_gb = shutil.disk_usage(str(folder)).free / 1e9
    if free_gb < needed_gb:
        raise Trouble(
            f"{purpose} needs {needed_gb:.1f} GB of free disk, and {folder} has "
            f"{free_gb:.1f} GB. Free some space and call it again."
        )


def check_writable(folder):
    try:
        with tempfile.TemporaryFile(dir=str(folder)):
            pass
    except OSError as error:
        raise Trouble(
            f"{folder} cannot be written to ({error.strerror}). Copy the project to "
            "a folder of your own and call it again there."
        ) from None


def digest(*paths):
    """One fingerprint of files and of everything inside folders."""
    total = hashlib.sha256()
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            name = file.relative_to(ROOT)
            if file.is_file() and not UNREAD & set(name.parts):
                total.update(name.as_posix().encode() + b"\0")
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def library_digest():
    """Changes whenever a chapter could print something else than before."""
    return digest(ROOT / "cort33x_lib", ROOT / "data", ROOT / "pyproject.toml")


class Project:
    """The commands, run with one Python: that of .venv, or the one at hand."""

    def __init__(self, here=False):
        inside = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.here = here
        self.python = Path(sys.executable) if here else inside
        self.environment = dict(os.environ, JUPYTER_PREFER_ENV_PATH="1")
        self.environment["PYTHONUTF8"] = "1"
        # The kernel must be this Python, and find no other one's packages.
        for name in ("PYTHONPATH", "PYTHONHOME"):
            self.environment.pop(name, None)

    def program(self, name):
        found = shutil.which(name, path=str(self.python.parent))
        if not found:
            raise Trouble(
                f"{name} is not installed beside {self.python}. Install the project "
                'there: python -m pip install -e ".[book,test]"'
            )
        return found

    def run(self, command, **more):
        return subprocess.run(
            [str(part) for part in command],
            cwd=str(ROOT),
            env=dict(self.environment, **more),
        ).returncode

    def logged(self, command, log, failure):
        """Run quietly: the log gets every line, the terminal sees where it is."""
        log.parent.mkdir(parents=True, exist_ok=True)
        started = shown = time.monotonic()
        live = sys.stdout.isatty()
        with open(str(log), "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=str(ROOT),
                env=dict(self.environment, PYTHONUNBUFFERED="1"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            try:
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    now = time.monotonic()
                    if now - shown > (0.2 if live else 15) and line.strip():
                        shown = now
                        words = " ".join(line.split())[:64]
                        start, end = ("\r\033[K", "") if live else ("", "\n")
                        print(f"{start}  {now - started:4.0f} s  {words}", end=end)
                        sys.stdout.flush()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        print("\r\033[K" if live else "", end="", flush=True)
        if process.wait() != 0:
            raise Trouble(explain(failure, log))

    def stamp(self):
        """What .venv is: it is remade when its Python or its place has changed."""
        asked = [
            str(self.python),
            "-c",
            "import platform as p; print(p.python_version())",
        ]
        try:
            answer = subprocess.check_output(asked, encoding="utf-8")
        except (OSError, subprocess.CalledProcessError):
            answer = "broken"
        return [answer.strip(), str(VENV), digest(ROOT / "pyproject.toml")]

    def setup(self):
        if self.here:
            return
        ready = VENV / "ready"
        known = ready.read_text(encoding="utf-8").splitlines() if ready.exists() else []
        found = self.stamp()
        if known == found:
            return
        check_writable(ROOT)
        check_space(ROOT, INSTALL_GB, "Installing PyTorch, JupyterLab and Jupyter Book")
        print(
            "Installing PyTorch, JupyterLab and Jupyter Book into .venv: "
            "2 to 5 minutes, 1.6 GB",
            flush=True,
        )
        log = BUILD / "setup.log"
        # An install that was cut short may hold half a package: start afresh.
        if known[:2] != found[:2]:
            shutil.rmtree(str(VENV), ignore_errors=True)
            made = [sys.executable, "-m", "venv", VENV]
            self.logged(made, log, "The environment could not be made.")
        else:
            ready.unlink()
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "install"]
        pip += ["--no-input", "-e", ".[book,test]"]
        self.logged(pip, log, "The packages could not be installed.")
        ready.write_text("\n".join(self.stamp()), encoding="utf-8")

    def build(self):
        """The site's first page; made only when something has changed."""
        page = BUILD / "html" / "index.html"
        built = BUILD / "site.digest"
        wanted = digest(BOOK, ROOT / "_config.yml") + library_digest() + str(ROOT)
        if built.exists() and built.read_text() == wanted and page.exists():
            return page
        check_writable(ROOT)
        check_space(ROOT, BUILD_GB, "Building the site")
        if built.exists():
            built.unlink()
        print("Running the chapters and building the site", flush=True)
        command = [self.program("jupyter-book"), "build", BOOK, "--path-output", ROOT]
        command += ["--config", ROOT / "_config.yml", "-W", "--keep-going"]
        log = BUILD / "book.log"
        self.logged(command, log, "The book could not be built.")
        for old in (BUILD / "executed").glob("*"):
            if old.name != library_digest():
                shutil.rmtree(str(old), ignore_errors=True)
        built.write_text(wanted)
        return page

    def book(self):
        page = self.build()
        print("\nSeconds each chapter took to run, on this machine:")
        records = subprocess.check_output(
            [
                str(self.python),
                "-c",
                RECORDS,
                str(BUILD / "executed" / library_digest()),
            ],
            encoding="utf-8",
        )
        for name, seconds in sorted(json.loads(records).items()):
            if (BOOK / name).exists():
                print(f"  {seconds:6.1f}  {name}")
        print(f"\nThe site is {page}\nOpen it: {page.as_uri()}")

    def test(self, words):
        if not find_browser():
            install_browser()
        # Asked for some tests only, the site is built when one of them needs it.
        if not words:
            self.build()
        workers = ["-n", "2", "--dist", "loadfile"] if not words else []
        return self.run(
            [self.python, "-m", "pytest"] + workers + list(words), OMP_NUM_THREADS="1"
        )

    def lab(self, words):
        wanted = 8888
        port = next(p for p in range(wanted, wanted + 100) if port_is_free(p))
        if port != wanted:
            print(f"Port {wanted} is taken; JupyterLab uses {port}.", flush=True)
        command = [self.program("jupyter-lab"), f"--ServerApp.root_dir={ROOT}"]
        command += [f"--ServerApp.port={port}", "--LabApp.default_url=/lab/tree/book"]
        # Ctrl-C goes to JupyterLab too, which then stops its kernels by itself.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self.run(command + ["--ServerApp.answer_yes=True"] + list(words))

    def lint(self):
        """ruff over the library, the tests, this file and the chapters' cells."""
        cells = BUILD / "lint"
        shutil.rmtree(str(cells), ignore_errors=True)
        cells.mkdir(parents=True)
        mirror.write_notebooks(cells)
        places = ["cort33x_lib", "tests", "book/_ext", "run.py", "mirror.py"] + list(
            cells.iterdir()
        )
        ruff = self.program("ruff")
        styled = self.run([ruff, "check"] + places)
        return self.run([ruff, "format", "--diff", "--quiet"] + places) or styled


RECORDS = """import json, sys
from jupyter_cache import get_cache
records = get_cache(sys.argv[1]).list_cache_records()
print(json.dumps({
    r.uri.replace("\\\\", "/").rsplit("/", 1)[-1]: r.data.get("execution_seconds", 0)
    for r in sorted(records, key=lambda r: r.created)
}))"""


def port_is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def find_browser():
    """The path of a browser of the Chromium family, or None."""
    names = "chromium chromium-browser google-chrome google-chrome-stable msedge chrome"
    places = [shutil.which(name) for name in names.split()]
    for program in ("Google Chrome", "Chromium", "Microsoft Edge"):
        places.append(f"/Applications/{program}.app/Contents/MacOS/{program}")
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        for program in ("Google/Chrome", "Microsoft/Edge"):
            name = "chrome" if "Chrome" in program else "msedge"
            folder = os.environ.get(variable, "")
            places.append(f"{folder}/{program}/Application/{name}.exe")
    return next((place for place in places if place and os.path.exists(place)), None)


def install_browser():
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Debian's chromium for the browser tests", flush=True)
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for words in (["update", "-q"], ["install", "-yq", "chromium"]):
            subprocess.run(["apt-get"] + words, env=environment)
    if not find_browser():
        raise Trouble(
            "The tests need a browser and found none. Install Chromium, Chrome or "
            "Edge (Debian: sudo apt install chromium) and call it again."
        )


def explain(failure, log):
    text = log.read_text(encoding="utf-8", errors="replace")
    for pattern, sentence in TROUBLES.items():
        if re.search(pattern, text):
            return f"{failure} {sentence}\nThe whole log: {log}"
    end = "\n".join(text.rstrip().splitlines()[-40:])
    return f"{end}\n\n{failure} The lines above are the end of {log}"


def main(words):
    here = "--here" in words[:1]
    words = words[1:] if here else words
    command, rest = (words or ["help"])[0], words[1:]
    known = ["setup", "book", "test", "lab", "lint", "mirror", "clean"]
    try:
        check_python(sys.version_info, sys.executable)
        if command not in known:
            print(HELP)
            return 0 if command in ("help", "-h", "--help") else 2
        if command == "mirror":
            for name in mirror.mirror():
                print(f"pasted library source into book/{name}")
            return 0
        if command == "clean":
            return shutil.rmtree(str(BUILD), ignore_errors=True)
        project = Project(here)
        project.setup()
        if command == "setup":
            return 0
        takes_words = command in ("test", "lab")
        return getattr(project, command)(*([rest] if takes_words else []))
    except (Trouble, OSError, ValueError) as trouble:
        print(trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Call it again to carry on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
