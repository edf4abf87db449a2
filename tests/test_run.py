"""The commands when things go wrong: one clear sentence, and a second try works."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

import run
import troubles
from run import ROOT

ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
BACKEND = """
import os, time, zipfile

def build_editable(folder, *_):
    open("building", "w").close()
    while os.path.exists("slow"):
        time.sleep(0.1)
    name = "cort33x-0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        info = "cort33x-0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: cort33x\\n"
            "Version: 0\\nProvides-Extra: book\\nProvides-Extra: test\\n" + NEEDS)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: here\\n"
            "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def call(folder, *words, python=sys.executable, **environment):
    return subprocess.run(
        [str(python), "run.py", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "run.py", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(seen, seconds=60):
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def copy_tools(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("run.py", "mirror.py", "troubles.py", "Makefile"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def small(tmp_path):
    """A project that installs nothing but itself, so that no network is needed."""
    folder = copy_tools(tmp_path / "a path with spaces" / "proj")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND + "\nNEEDS = ''\n")
    return folder


@pytest.fixture
def small_book(tmp_path):
    """The book's settings with one chapter that takes no time."""
    folder = copy_tools(tmp_path / "a path with spaces" / "book")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    (folder / "cort33x_lib").mkdir()
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: 00_a\n")
    (folder / "book" / "references.bib").write_text("")
    return folder


def write_chapter(folder, words="Words.", code="print(6 * 7)"):
    index = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    header = re.match(r"---\n.*?\n---\n", index, re.DOTALL)[0]
    cell = f"```{{code-cell}}\n{code}\n```\n"
    (folder / "book" / "00_a.md").write_text(f"{header}\n# A\n\n{words}\n\n{cell}")


def old_pythons():
    shelves = [Path.home() / ".pyenv" / "versions", Path("/opt")]
    found = {p for shelf in shelves for p in shelf.glob("3.*/bin/python")}
    found |= {Path(p) for n in range(6, 11) if (p := shutil.which(f"python3.{n}"))}
    for python in sorted(found):
        asked = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if subprocess.run(asked, capture_output=True).returncode == 1:
            yield python


def test_an_old_python_is_told_so(tmp_path):
    copy_tools(tmp_path)
    tried = 0
    for python in old_pythons():
        answer = call(tmp_path, "book", python=python)
        assert answer.returncode == 1
        assert len(answer.stderr.splitlines()) == 1
        assert "needs Python 3.11 or newer" in answer.stderr
        assert "make PYTHON=" in answer.stderr
        tried += 1
    for version in ((2, 7, 18), (3, 10, 13)):
        with pytest.raises(
            troubles.Trouble, match=f"this is {version[0]}.{version[1]}"
        ):
            troubles.check_python(version, "/usr/bin/python3")
    for version in ((3, 11, 0), (3, 14, 1), (4, 0, 0)):
        troubles.check_python(version, "/usr/bin/python3")
    print(f"{tried} old Pythons tried")


def test_help_lists_every_target():
    answer = call(ROOT, "help")
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    assert answer.returncode == 0
    for target in targets:
        assert f"make {target}" in answer.stdout or target == "help"
    assert call(ROOT, "nonsense").returncode == 2


def test_setup_in_a_path_with_spaces_after_every_interruption(small):
    ready = small / ".venv" / "ready"
    killed = start(small, "setup")
    wait_for((small / ".venv" / "pyvenv.cfg").exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    (small / "slow").touch()
    stopped = start(small, "setup")
    wait_for((small / "building").exists)
    os.killpg(stopped.pid, signal.SIGINT)
    assert stopped.communicate(timeout=120)[1] == (
        "\nStopped. Call it again to carry on.\n"
    )
    assert stopped.returncode == 130 and not ready.exists()
    (small / "slow").unlink()

    (small / "backend.py").write_text(
        BACKEND + "\nNEEDS = 'Requires-Dist: a-package-not-yet-here==9\\n'\n"
    )
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    offline |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}
    answer = call(small, "setup", **offline)
    assert answer.returncode == 1 and not ready.exists()
    assert "package index could not be reached: check the network" in answer.stderr
    assert Path(answer.stderr.split("The whole log: ")[1].strip()).exists()
    (small / "backend.py").write_text(BACKEND + "\nNEEDS = ''\n")

    made = subprocess.run(["make", "setup"], cwd=small, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "minutes" in made.stdout and ready.exists()
    began = time.monotonic()
    again = call(small, "setup", PIP_NO_INDEX="1")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert time.monotonic() - began < 5

    moved = small.rename(small.parent / "elsewhere")
    assert "Installing" in call(moved, "setup").stdout
    assert f"{small}{os.sep}" not in (moved / ".venv" / "bin" / "pip").read_text()


def test_a_full_disk_is_said_in_one_sentence(small_disk):
    copy_tools(small_disk)
    (small_disk / "pyproject.toml").write_text(PYPROJECT)
    answer = call(small_disk, "setup")
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "needs 3.0 GB of free disk" in answer.stderr
    assert "has 0.0 GB" in answer.stderr


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(small_disk):
    copy_tools(small_disk)
    (small_disk / "pyproject.toml").write_text(PYPROJECT)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    answer = call(small_disk, "setup")
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "cannot be written to" in answer.stderr


def test_a_disk_that_fills_during_the_install_is_understood(tmp_path):
    log = tmp_path / "setup.log"
    log.write_text("Collecting torch\nERROR: [Errno 28] No space left on device\n")
    answer = troubles.explain("The packages could not be installed.", log)
    assert "The disk is full: free some space. Then call it again." in answer


def test_no_browser_is_said_in_one_sentence():
    if any(Path("/Applications").glob("*.app/Contents/MacOS/*Chrom*")):
        pytest.skip("a browser is at a place that cannot be hidden")
    answer = call(ROOT, "--here", "test", PATH=os.devnull, PROGRAMFILES="")
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "Install Chromium" in answer.stderr


def test_a_port_in_use_is_said_and_another_one_taken(tmp_path):
    folder = copy_tools(tmp_path)
    (folder / "book").mkdir()
    words = ["--here", "lab", "--no-browser", "--IdentityProvider.token=testing"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8888))
            taken.listen()
        except OSError:
            pass  # someone else has it, which does as well
        lab = start(folder, *words, *(["--allow-root"] if ROOT_USER else []))
        said = lab.stdout.readline()
        port = int(re.fullmatch(r"Port 8888 is taken; .* uses (\d+)\.\n", said)[1])

        def answers():
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api").close()
                return True
            except OSError:
                return False

        wait_for(answers)
    os.killpg(lab.pid, signal.SIGINT)
    lab.communicate(timeout=120)
    assert lab.returncode == 0
    assert not answers()


def test_a_faulty_book_fails_until_it_is_mended_and_then_rests(small_book):
    write_chapter(small_book, words="See {ref}`nowhere`.", code="answer = 1 / 0")
    for _ in range(2):
        answer = call(small_book, "--here", "book")
        assert answer.returncode == 1
        assert "00_a.md" in answer.stderr
        assert "ZeroDivisionError: division by zero" in answer.stderr
        assert "WARNING: undefined label: 'nowhere'" in answer.stderr
    write_chapter(small_book, code="open('../ran', 'a').write('x')")
    build = start(small_book, "--here", "book")
    time.sleep(1.5)
    os.killpg(build.pid, signal.SIGKILL)
    build.communicate()
    answer = call(small_book, "--here", "book")
    assert answer.returncode == 0, answer.stderr
    assert "00_a.md" in answer.stdout
    page = small_book / "_build" / "html" / "index.html"
    assert f"The site is {page}\n" in answer.stdout and page.exists()

    ran = (small_book / "ran").stat().st_size
    began = time.monotonic()
    assert call(small_book, "--here", "book").returncode == 0
    assert time.monotonic() - began < 2
    assert (small_book / "ran").stat().st_size == ran
    (small_book / "cort33x_lib" / "a.py").write_text("answer = 42\n")
    assert call(small_book, "--here", "book").returncode == 0
    assert (small_book / "ran").stat().st_size == ran + 1


def test_conda_installs_the_same_list():
    recipe = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert "pip" in recipe["dependencies"]
    assert recipe["dependencies"][-1] == {"pip": ["-e .[book,test]"]}


def test_no_package_contradicts_another():
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_code_and_cells_are_in_style(capfd):
    assert run.Project(here=True).lint([]) == 0, capfd.readouterr().out
