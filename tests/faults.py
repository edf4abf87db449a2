"""Real faults in a process of their own: `python tests/faults.py KIND TRIALS`.

Children are forks, so that hundreds of them start in the time that one import takes;
they are killed with SIGKILL. Prints one line of JSON: trials and failures.
"""

import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from test_resume import BASE, go, outcome  # noqa: E402
from test_training import (  # noqa: E402
    CONFIG,
    RECIPE,
    make_batches,
    make_run,
)

from cort33x_lib.model.transformer import Transformer  # noqa: E402
from cort33x_lib.training.checkpoint import (  # noqa: E402
    CheckpointError,
    Progress,
    newest_checkpoint,
    save_checkpoint,
)
from cort33x_lib.training.lock import LockedError, hold  # noqa: E402
from cort33x_lib.training.optimizer import make_optimizer  # noqa: E402
from cort33x_lib.training.record import Run  # noqa: E402
from cort33x_lib.training.step import take_step  # noqa: E402

# Python's calls of the system on the way of a save.
CALLS = {"open", "write", "flush", "fsync", "close", "__exit__", "mkdir", "rename"}
CALLS |= {"replace", "unlink", "rmdir", "read", "scandir", "lstat", "remove"}
HERE = Path(tempfile.mkdtemp())


def fork(work) -> int:
    """A child that does some work and exits with what it gives."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = work() or 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fail_at(number: int, fault: str):
    """A profiler that lets the call of this number fail, before it is made."""
    seen = 0

    def watch(frame, event, called):
        nonlocal seen
        if event != "c_call" or called.__name__ not in CALLS:
            return
        seen += 1
        if seen == number and fault == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if seen == number:
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))

    sys.setprofile(watch)


def each_call(trials: int) -> dict:
    """A fault at each call of a save, of each of three kinds; every one is survived."""
    base, model = HERE / "base", Transformer(CONFIG)
    optimizer = make_optimizer(model, RECIPE)
    for step in (1, 2):
        take_step(model, optimizer, [make_batches()[step]], 1e-3, 1.0)
        save_checkpoint(base, Progress(step), model, optimizer, {})
    done, failures = 0, []
    for fault in ("KILL", "ENOSPC", "EIO"):
        calls, stride = 0, max(1, 90 // trials)
        for number in range(1, 1000, stride):
            folder = HERE / f"{fault}-{number}"
            shutil.copytree(base, folder)

            def save(folder=folder, number=number, fault=fault):
                fail_at(number, fault)
                try:
                    save_checkpoint(folder, Progress(3), model, optimizer, {})
                except (OSError, CheckpointError):
                    return 1
                finally:
                    sys.setprofile(None)

            code = ended(fork(save))
            found = newest_checkpoint(folder)
            if found.skipped or found.step not in (2, 3) or code not in (0, 1, -9):
                failures.append(f"{fault} at call {number}: {code}, {found}")
            if code == 1 and found.step == 2 and list(folder.glob("part-*")):
                failures.append(f"{fault} at call {number}: a part stays")
            save_checkpoint(folder, Progress(4), model, optimizer, {})
            names = sorted(f.name for f in folder.iterdir())
            if len(names) != 2 or names[-1] != "step-00000004":
                failures.append(f"{fault} at call {number}: then {names}")
            shutil.rmtree(folder)
            done, calls = done + 1, number
            if code == 0 and found.step == 3 and number > 60:
                break
        print(f"{fault}: {calls} calls", file=sys.stderr)
    return {"trials": done, "failures": failures}


def kills(trials: int) -> dict:
    """Kills at random, and every fifth within a save; the end is as undisturbed."""
    recipe = replace(BASE, steps=60, save_every=5)
    chance, done, failures, inside, finished = random.Random(6), 0, [], 0, 0
    whole = make_run(HERE)
    ended(fork(lambda: go(whole, recipe)))
    expected = outcome(whole)
    run, last = make_run(HERE), 0
    while done < trials:
        child = fork(lambda run=run: go(Run(run.folder), recipe))
        if done % 5 == 4:
            stop = time.monotonic() + 20
            while time.monotonic() < stop and not list(run.checkpoints.glob("part-*")):
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    break
            time.sleep(chance.uniform(0, 0.004))
        else:
            time.sleep(chance.uniform(0.02, 0.5))
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        inside += bool(list(run.checkpoints.glob("part-*")))
        if code == 0:
            finished += 1
            if outcome(run) != expected:
                failures.append(f"run {run.folder.name} ended otherwise")
            run, last = make_run(HERE), 0
            continue
        done += 1
        recorded = run.metrics()[-1]["step"] if run.metrics() else 0
        if any(run.checkpoints.glob("step-*")):
            found = newest_checkpoint(run.checkpoints)
            step = found.step
            if found.skipped:
                failures.append(f"kill {done}: {found.skipped}")
        else:
            step = 0
        if step < last or recorded - step > recipe.save_every:
            failures.append(f"kill {done}: step {step} after {last} and {recorded}")
        last = step
    ended(fork(lambda: go(Run(run.folder), recipe)))
    if outcome(run) != expected:
        failures.append("the last run ended otherwise")
    if trials >= 100 and inside < trials / 20:
        failures.append(f"only {inside} of {trials} kills fell within a save")
    return {
        "trials": done,
        "failures": failures,
        "inside a save": inside,
        "finished": finished + 1,
    }


def races(trials: int) -> dict:
    """Pairs that want one folder: one has it, the other is told who, at once."""
    failures, slowest, folder = [], 0.0, make_run(HERE).folder
    for trial in range(trials):
        said, say = os.pipe()
        gate, opened = os.pipe()

        def want(gate=gate, say=say):
            os.read(gate, 1)
            started = time.perf_counter()
            try:
                with hold(folder):
                    os.write(say, f"won {os.getpid()} 0 -\n".encode())
                    time.sleep(60)
            except LockedError as fault:
                waited = time.perf_counter() - started
                os.write(say, f"lost {os.getpid()} {waited} {fault}\n".encode())

        children = [fork(want), fork(want)]
        os.write(opened, b"go")
        heard = b""
        while heard.count(b"\n") < 2:
            heard += os.read(said, 4096)
        lines = sorted(line.split(" ", 3) for line in heard.decode().splitlines())
        (lost, loser, waited, reason), (won, winner, *_) = lines
        slowest = max(slowest, float(waited))
        if (lost, won) != ("lost", "won") or f"process {winner} on" not in reason:
            failures.append(f"pair {trial}: {lines}")
        for child in children:
            os.kill(child, signal.SIGKILL)  # the winner, holding; the next pair is free
            ended(child)
        for end in (said, say, gate, opened):
            os.close(end)
    if slowest >= 1:
        failures.append(f"the slowest loser waited {slowest} s")
    return {"trials": trials, "failures": failures, "slowest": round(slowest, 4)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, trials = sys.argv[1], int(sys.argv[2])
    try:
        print(
            json.dumps(
                {"each_call": each_call, "kills": kills, "races": races}[kind](trials)
            )
        )
    finally:
        shutil.rmtree(HERE, ignore_errors=True)
