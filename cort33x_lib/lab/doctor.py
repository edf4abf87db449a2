"""The doctor: is this machine fit for the book, and does it compute rightly?"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import psutil
import torch

from cort33x_lib.files import PROJECT
from cort33x_lib.text.corpus import MissingSources, standard_library
from cort33x_lib.training.start import TOLERANCE, device_error


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, what was expected, what to do."""

    name: str
    found: str
    expected: str
    passed: bool
    remedy: str = ""


def devices() -> list[str]:
    """The devices on which PyTorch can compute here, the CPU first."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def examine() -> Iterator[Check]:
    """Look at everything the book needs, one check at a time."""
    gib = 2**30
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(PROJECT)
    yield Check(
        "Python",
        platform.python_version(),
        "3.11 or newer",
        sys.version_info >= (3, 11),
        "install a newer Python, remove .venv, call make book again",
    )
    yield Check(
        "PyTorch",
        version("torch"),
        "2.13.0",
        version("torch").startswith("2.13.0"),
        "call make book again: it installs the version of pyproject.toml",
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count() or 1
    yield Check(
        "cores",
        f"{cores}, {torch.get_num_threads()} threads used",
        "2 or more",
        cores >= 2,
        "all works on one core; training takes twice the time",
    )
    yield Check(
        "memory",
        f"{memory.available / gib:.1f} GiB free of {memory.total / gib:.1f}",
        "2 GiB free",
        memory.available >= 2 * gib,
        "close other programs",
    )
    yield Check(
        "disk",
        f"{disk.free / gib:.1f} GiB free",
        "1 GiB free",
        disk.free >= gib,
        f"free some space on the disk of {PROJECT}",
    )
    try:
        count = sum(1 for _ in standard_library())
        yield Check("Python's own sources", f"{count} files", "some", True)
    except MissingSources as fault:
        remedy = f"{fault}; the story world serves in their place"
        yield Check("Python's own sources", "none", "some", False, remedy)
    for device in devices():
        error = device_error(device)
        yield Check(
            f"training on {device}",
            f"off by {error:.1e}",
            f"at most {TOLERANCE:.0e}",
            error <= TOLERANCE,
            "do not train on this device: it computes something else",
        )
