"""Shared by tests: chapters as tests, the built site, a browser, JupyterLab."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from unittest import mock

import jupytext
import pytest
from jupyter_cache import get_cache
from nbval.plugin import IPyNbFile

import run
import troubles

ROOT = run.ROOT
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so begins what a shell put
    signal.signal(signal.SIGINT, signal.default_int_handler)  # into the background


def pytest_collect_file(file_path, parent):
    if file_path.parent == ROOT / "book" and file_path.match("[0-9]*.md"):
        return ChapterFile.from_parent(parent, path=file_path)


def read_chapter(path, as_version=4):
    """A chapter with the outputs that the site shows, where the site has been built.

    nbval compares cells tagged `nbval-check-output` with these.
    """
    notebook = jupytext.read(path)
    executed = ROOT / "_build" / "executed" / run.library_digest()
    if executed.exists():
        try:
            return get_cache(executed).merge_match_into_notebook(notebook)[1]
        except KeyError:
            pass  # this chapter has changed since
    return notebook


class ChapterFile(IPyNbFile):
    """A Markdown chapter, whose cells nbval runs as it runs those of a notebook."""

    def collect(self):
        with mock.patch("nbval.plugin.nbformat.read", read_chapter):
            yield from super().collect()


@pytest.fixture
def small_disk(tmp_path):
    """A real filesystem of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not root or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount the small disk that this needs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def site():
    """The folder of the built site; nothing is done when it is up to date."""
    return run.Project(here=True).build().parent


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    found = troubles.find_browser()
    assert found, "no browser: install Chromium, Chrome or Edge"
    quiet = "--disable-gpu --no-first-run --disable-background-networking"
    quiet += " --disable-component-update --disable-sync --disable-quic"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        quiet += " --no-sandbox"
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=found, args=quiet.split())
        yield window
        window.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a copy of the book, and the copy's folder."""
    folder = tmp_path_factory.mktemp("lab") / "a book"
    generated = {"_build", ".venv", ".git", "runs"}
    shutil.copytree(
        ROOT, folder, ignore=lambda at, _: generated if at == str(ROOT) else ()
    )
    environment = dict(os.environ, PYTHONPATH=str(folder), JUPYTER_PREFER_ENV_PATH="1")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        environment[name] = str(tmp_path_factory.mktemp(name))
    for name in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
        environment[name] = str(tmp_path_factory.mktemp(name))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    command += ["--IdentityProvider.token=testing"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["--allow-root"]
    log_path = tmp_path_factory.mktemp("log") / "lab.log"
    with open(log_path, "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, log_path.read_text()
            time.sleep(0.25)
    yield address, folder
    server.terminate()
    server.wait(timeout=20)
