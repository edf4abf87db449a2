"""Several processes on this machine, from a notebook or a test: start, watch, kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cort33x_lib.files import PROJECT
from cort33x_lib.training.record import Run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def start(
    words: Sequence[object], processes: int = 2, restarts: int = 0
) -> subprocess.Popen:
    """`torchrun ... -m cort33x_lib WORDS`, one thread each, on 127.0.0.1 alone."""
    options = [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return subprocess.Popen(
        [*TORCHRUN, *options, "-m", "cort33x_lib", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | loopback,
    )


def finish(job: subprocess.Popen) -> str:
    """What a job has printed, once it has ended. Raises RuntimeError if it failed."""
    printed, _ = job.communicate()
    if job.returncode:
        raise RuntimeError(f"the job ended with {job.returncode}: {printed[-2000:]}")
    return printed


def wait_for_step(job: subprocess.Popen, folder: Path, step: int) -> Run:
    """The run in a folder, as soon as its record has a step.

    Raises RuntimeError when the job ends before.
    """
    while True:
        if (folder / "metrics.jsonl").exists():
            run = Run(folder)
            if any(m["step"] >= step for m in run.metrics()[-1:]):
                return run
        if job.poll() is not None:
            raise RuntimeError(f"the job ended before step {step}: {finish(job)}")
        time.sleep(0.02)


def kill_writer(run: Run) -> int:
    """Kill the process that writes to a run, at once and unasked; gives its number."""
    number = json.loads((run.folder / "lock").read_text(encoding="utf-8"))["process"]
    os.kill(number, signal.SIGKILL)
    return number
