"""Several real processes that train one model, joined by Gloo on this machine.

`make faults` kills ten times; the suite does it once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cort33x_lib.files import PROJECT
from cort33x_lib.lab.launch import launch
from cort33x_lib.lab.plan import read_plan
from cort33x_lib.training.checkpoint import load_model, newest_checkpoint
from cort33x_lib.training.distributed import ALONE, owners
from cort33x_lib.training.record import Run

KILLS = 10 if os.environ.get("FAULTS_LONG") else 1
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
STATIC = ["--rdzv-backend=static", "--master-addr=127.0.0.1", "--master-port=29517"]
TRAIN = ["-m", "cort33x_lib", "train", "tiny"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gloo and signals of POSIX")


def start(words, processes=2, options=("--standalone",), environment=None):
    return subprocess.Popen(
        [*TORCHRUN, *options, f"--nproc-per-node={processes}", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
    )


def finish(process, code=0):
    printed, complaint = process.communicate(timeout=500)
    assert (process.returncode == 0) == (code == 0), printed + complaint
    return printed, complaint


def changes(**recipe):
    return [f"recipe.{key}={value}" for key, value in recipe.items()]


def set_words(changes):
    return [word for change in changes for word in ("--set", change)]


def weights_of(run):
    model = load_model(newest_checkpoint(run.checkpoints))
    return torch.cat([weights.detach().flatten() for weights in model.parameters()])


def losses(run):
    return [m["loss"] for m in run.metrics()]


def largest_difference(first, second):
    pairs = zip(first, second, strict=True)
    return max(abs(one - other) for one, other in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_are_one(tmp_path, optimizer):
    """Fifty steps, one micro-batch each: the same bits, not only within 1e-6."""
    plan = changes(steps=50, accumulation=2, optimizer=optimizer)
    process = start([*TRAIN, *set_words(plan), "--name", "two", "--runs", tmp_path])
    one = launch(read_plan("tiny", changes=plan), "one", tmp_path)
    list(one.steps())
    finish(process)
    two = Run(tmp_path / "two-001")
    assert len(losses(two)) == 50
    assert largest_difference(losses(two), losses(one.run)) <= 1e-6
    assert (weights_of(two) - weights_of(one.run)).abs().max() <= 1e-6
    assert two.manifest["processes"] == 2
    folders = [newest_checkpoint(run.checkpoints).folder for run in (two, one.run)]
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = [(folder / name).read_bytes() for folder in folders]
        assert first == second, name
    held_out = [m["held_out"] for m in two.metrics() if "held_out" in m]
    assert held_out == [m["held_out"] for m in one.run.metrics() if "held_out" in m]


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """One process, then three that have 2, 1 and 1 micro-batches, then one again."""
    plan = changes(steps=30, accumulation=4)
    whole = launch(read_plan("tiny", changes=plan), "whole", tmp_path)
    list(whole.steps())
    part = launch(read_plan("tiny", changes=plan), "part", tmp_path)
    for measured in part.steps():
        if measured["step"] == 7:
            break
    resume = ["-m", "cort33x_lib", "resume", "part", "--runs", tmp_path]
    three = start(resume, processes=3)
    while len(losses(part.run)) < 22:
        assert three.poll() is None, three.communicate()
        time.sleep(0.02)
    three.terminate()
    three.communicate(timeout=60)
    assert newest_checkpoint(part.run.checkpoints).step in (20, 30)
    done = subprocess.run(
        [sys.executable, *map(str, resume)], cwd=PROJECT, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert [m["step"] for m in part.run.metrics()] == list(range(1, 31))
    assert largest_difference(losses(part.run), losses(whole.run)) <= 1e-5


def children_of(process):
    """The workers that torchrun has started, in the order of their ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            if facts[1] == str(process.pid):
                environment = (folder / "environ").read_bytes().split(b"\0")
                pairs = dict(entry.partition(b"=")[::2] for entry in environment)
                found.append((int(pairs[b"RANK"]), int(folder.name)))
        except (OSError, KeyError, ValueError, IndexError):
            continue
    return [number for _, number in sorted(found)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_killed_worker_starts_again_from_the_last_checkpoint(tmp_path):
    """Each rank in turn is killed; the job recovers every time and loses nothing."""
    plan = changes(steps=40 + 40 * KILLS, accumulation=2)
    options = ["--standalone", f"--max-restarts={KILLS}"]
    words = [*TRAIN, *set_words(plan), "--runs", tmp_path]
    process = start(words, options=options)
    folder, killed = tmp_path / "tiny-001", 0
    while process.poll() is None and killed < KILLS:
        time.sleep(0.02)
        if (folder / "metrics.jsonl").exists():
            workers, steps = children_of(process), losses(Run(folder))
            if len(steps) >= 15 + 40 * killed and len(workers) == 2:
                os.kill(workers[killed % 2], signal.SIGKILL)
                killed += 1
                while {*workers} & {*children_of(process)}:
                    time.sleep(0.02)
    finish(process)
    assert killed == KILLS
    assert [f.name for f in tmp_path.iterdir()] == ["tiny-001"]
    one = launch(read_plan("tiny", changes=plan), "one", tmp_path)
    list(one.steps())
    run = Run(folder)
    assert [m["step"] for m in run.metrics()] == list(range(1, 41 + 40 * KILLS))
    assert losses(run) == losses(one.run)
    assert torch.equal(weights_of(run), weights_of(one.run))
    print(f"\n{killed} kills, {killed} recoveries", end="")


UNEQUAL = """
import json, sys
from dataclasses import replace
import torch
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.distributed import process_group
from cort33x_lib.training.step import take_step

with process_group() as world:
    torch.manual_seed(0)
    ids = torch.randint(0, 64, (3, 2, 17))
    for number, kept in enumerate((16, 3, 9)):  # tokens that count in each row
        ids[number, :, kept + 1 :] = -100
    parts = [(each[:, :-1].clamp(min=0), each[:, 1:]) for each in ids]
    model = Transformer(CONFIGS["tiny"]).double()
    optimizer = torch.optim.SGD(model.parameters())
    mine = [parts[number] for number in world.numbers(0, 3)]
    loss, norm = take_step(model, optimizer, mine, 0.1, 1e9, world=world)
    total = sum(weights.sum().item() for weights in model.parameters())
    if world.main:
        json.dump([loss, norm, total], open(sys.argv[1], "w"))
"""


def test_tokens_count_the_same_wherever_they_are(tmp_path):
    """Three micro-batches of 32, 6 and 18 tokens: one process, two, three."""
    script = tmp_path / "step.py"
    script.write_text(UNEQUAL)
    results = []
    alone = [sys.executable, str(script), str(tmp_path / "1.json")]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    subprocess.run(alone, check=True, cwd=PROJECT, env=environment)
    for processes in (2, 3):
        words = [script, tmp_path / f"{processes}.json"]
        finish(start(words, processes, environment={"PYTHONPATH": str(PROJECT)}))
    for processes in (1, 2, 3):
        results.append(json.loads((tmp_path / f"{processes}.json").read_text()))
    for result in results[1:]:
        assert result == pytest.approx(results[0], abs=1e-10)


@pytest.mark.parametrize(
    ("options", "processes", "said"),
    [
        (["--standalone"], 3, "3 processes for 2 micro-batches a step"),
        (STATIC, 1, "say --standalone, or --rdzv-id NAME"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, options, processes, said):
    words = [*TRAIN, "--set", "recipe.accumulation=2", "--runs", tmp_path]
    _, complaint = finish(start(words, processes, options), code=1)
    assert f"cort33x: {said}" in complaint.replace("torchrun has no job: ", "")


def test_work_is_divided():
    tensors = [torch.empty(n) for n in (50, 1, 30, 20, 3)]
    assert owners(tensors, 2) == [0, 1, 1, 1, 0] or owners(tensors, 2)[0] == 0
    shares = owners(tensors, 2)
    loads = [sum(t.numel() for t, r in zip(tensors, shares, strict=True) if r == k)
             for k in range(2)]  # fmt: skip
    assert sum(loads) == 104 and max(loads) <= 53
    assert owners(tensors, 1) == [0] * 5
    assert list(ALONE.numbers(6, 3)) == [6, 7, 8] and ALONE.main
    two = type("Second", (type(ALONE),), {"rank": 1, "size": 2})()
    assert list(two.numbers(6, 3)) == [7] and not two.main
