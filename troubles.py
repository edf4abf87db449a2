"""What can be wrong with a computer or an install, and the sentence that says so."""

import os
import re
import shutil
import subprocess
import tempfile

# What a log may say, and what to do then.
ADVICE = {
    "No space left on device|Errno 28": "The disk is full: free some space.",
    "Read-only file system|Permission denied|Errno 13": "A file could not be written: "
    "make this folder and the folder for temporary files writable.",
    "NewConnectionError|[Nn]ame.?[Rr]esolution|getaddrinfo|ProxyError|ConnectTimeout|"
    "Max retries exceeded": "The package index could not be reached: check the network "
    "(only the first set-up needs it).",
    "No matching distribution found": "A package does not exist for this system and "
    "this Python: take another one, e.g. make PYTHON=python3.12 book.",
    "ensurepip is not available|No module named ensurepip": "This Python cannot make "
    "an environment: on Debian or Ubuntu, sudo apt install python3-venv.",
}


class Trouble(Exception):
    """Something the reader can mend; its text says how."""


def check_python(version, executable):
    if tuple(version[:2]) < (3, 11):
        this = ".".join(str(part) for part in version[:3])
        raise Trouble(
            f"Cort33x needs Python 3.11 or newer; this is {this} at {executable}. "
            "Install a newer one and name it, e.g. make PYTHON=python3.12 book"
        )


def check_folder(folder, gigabytes, purpose):
    """The folder must take files, and the disk must have room for them."""
    try:
        tempfile.TemporaryFile(dir=str(folder)).close()
    except OSError as error:
        raise Trouble(
            f"{folder} cannot be written to ({error.strerror}). Copy the project to "
            "a folder of your own and call it again there."
        ) from None
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < gigabytes:
        raise Trouble(
            f"{purpose} needs {gigabytes} GB of free disk, and {folder} has "
            f"{free:.1f} GB. Free some space and call it again."
        )


def find_browser():
    """The path of a browser of the Chromium family, or None."""
    names = "chromium chromium-browser google-chrome google-chrome-stable msedge chrome"
    places = [shutil.which(name) for name in names.split()]
    for name in ("Google Chrome", "Chromium", "Microsoft Edge"):
        places.append(f"/Applications/{name}.app/Contents/MacOS/{name}")
    for name in ("Google/Chrome/{}/chrome", "Microsoft/Edge/{}/msedge"):
        for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
            places.append(
                f"{os.environ.get(variable)}/{name}.exe".format("Application")
            )
    return next((place for place in places if place and os.path.exists(place)), None)


def install_browser():
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Debian's chromium for the browser tests", flush=True)
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        for words in (["update", "-qq"], ["install", "-yqq", "chromium"]):
            subprocess.call(["apt-get"] + words, env=quiet)
    if not find_browser():
        raise Trouble(
            "The tests need a browser and found none. Install Chromium, Chrome or "
            "Edge (Debian: sudo apt install chromium) and call it again."
        )


def read_log(log):
    text = log.read_text(encoding="utf-8", errors="replace")
    return re.sub(r"\x1b\[[0-9;]*m", "", text)  # without colours


def explain(failure, log):
    """The lines of a log that say what went wrong, and what to do."""
    text = read_log(log)
    telling = (
        r"An error occurred while e[\s\S]*?(?=\n \[mystnb)"  # a chapter's cell
        r"|ERROR: Exception:[\s\S]*"  # pip itself failed
        r"|.*(WARNING|ERROR):.*"
    )
    found = [match.group() for match in re.finditer(telling, text)]
    lines = "\n".join(found or [text]).strip().split("\n")
    advice = [ADVICE[words] for words in ADVICE if re.search(words, text)][:1]
    failure = " ".join([failure] + advice + ["Then call it again."] * len(advice))
    return "\n".join(lines[-40:]) + f"\n\n{failure}\nThe whole log: {log}"
