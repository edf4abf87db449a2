"""The training room: schedule, record, checkpoints and the loop, by what they leave."""

import argparse
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cort33x_lib.files import PROJECT
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.tokenizer import Tokenizer
from cort33x_lib.training.checkpoint import (
    CheckpointError,
    Progress,
    load_model,
    newest_checkpoint,
    save_checkpoint,
)
from cort33x_lib.training.lock import LockedError
from cort33x_lib.training.loop import train
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import OF_THE_MACHINE, Run, make_manifest
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.step import NotFiniteError, take_step

BYTES = Tokenizer(())  # 256 bytes and the end token
CONFIG = replace(CONFIGS["tiny"], vocabulary=BYTES.vocabulary)
RECIPE = RECIPES["tiny"]
SOURCE = Path(argparse.__file__).read_text(encoding="utf-8")


def make_batches(recipe=RECIPE):
    documents = [
        Document(part, f"part {n}", "argparse.py", "PSF-2.0")
        for n, part in enumerate(SOURCE.split("\n\n"))
    ]
    tokens = encode_documents(BYTES, documents)
    return Batches(tokens, recipe.rows, recipe.length, recipe.seed)


def make_run(folder):
    return Run.create(folder, "test", make_manifest(CONFIG, RECIPE, "c", BYTES.name))


def weights_hash(model):
    state = model.state_dict()
    data = b"".join(state[name].numpy().tobytes() for name in sorted(state))
    return hashlib.sha256(data).hexdigest()


def without_times(metrics):
    return [{k: v for k, v in m.items() if k not in OF_THE_MACHINE} for m in metrics]


def test_learning_rate_rises_then_falls_to_its_end():
    recipe = replace(RECIPES["cort33x"], steps=1000)
    rates = [learning_rate(recipe, step) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(3e-4 / 20)
    assert max(rates) == rates[19] == 3e-4
    assert rates[-1] == 3e-5
    assert rates[:20] == sorted(rates[:20])
    assert rates[19:] == sorted(rates[19:], reverse=True)
    middle = 20 + 980 // 2
    assert rates[middle - 1] == pytest.approx((3e-4 + 3e-5) / 2)


@pytest.mark.parametrize("pattern", ["WF", "WFSLD"])
def test_only_matrices_decay(pattern):
    model = Transformer(replace(CONFIG, pattern=pattern))
    decaying, others = make_optimizer(model, RECIPE).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0)
    names = {id(weights): name for name, weights in model.named_parameters()}
    made = {"make_keys", "make_values"} if "L" in pattern else set()
    assert {names[id(w)].split(".")[-2] for w in decaying["params"]} == made | {
        "project_in",
        "project_out",
        "widen",
        "narrow",
    }
    assert len(decaying["params"]) + len(others["params"]) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0, expected a whole number from 1"),
        ({"rows": 1.5}, "rows is 1.5"),
        ({"warmup": 1.0}, "warmup is 1.0, expected a share"),
        ({"final_rate": 1.0}, "expected 0 < final_rate <= peak_rate"),
    ],
)
def test_impossible_recipes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)


def test_training_lowers_the_loss_and_measures_every_step():
    model, recipe = Transformer(CONFIG), replace(RECIPE, steps=60)
    steps = list(train(model, make_batches(), recipe))
    assert [s["step"] for s in steps] == list(range(1, 61))
    assert steps[0]["loss"] == pytest.approx(math.log(257), abs=0.1)
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]
    assert [s["tokens"] for s in steps] == [n * 4 * 32 for n in range(1, 61)]
    assert steps[9]["learning_rate"] == learning_rate(recipe, 10)
    assert all(s["clipped"] == (s["gradient_norm"] > recipe.clip) for s in steps)


def test_accumulation_equals_one_large_batch():
    batches = make_batches()
    micro = [batches[n] for n in range(3)]
    large = [tuple(torch.cat(parts) for parts in zip(*micro, strict=True))]
    results = []
    for parts in (micro, large):
        model = Transformer(CONFIG).double()
        optimizer = torch.optim.SGD(model.parameters())
        results.append(take_step(model, optimizer, parts, 0.1, clip=1e9))
        results.append(model.state_dict())
    assert results[0] == pytest.approx(results[2], abs=1e-12)
    for name, weights in results[1].items():
        torch.testing.assert_close(weights, results[3][name], atol=1e-12, rtol=0)


def test_same_seed_same_run(tmp_path):
    logs = []
    for _ in range(2):
        run, model = make_run(tmp_path), Transformer(CONFIG)
        for _ in train(model, make_batches(), RECIPE, run):
            pass
        logs.append((without_times(run.metrics()), weights_hash(model)))
    assert logs[0] == logs[1]
    assert [f.name for f in sorted(tmp_path.iterdir())] == ["test-001", "test-002"]


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 19])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, stop):
    whole_run, whole = make_run(tmp_path), Transformer(CONFIG)
    list(train(whole, make_batches(), RECIPE, whole_run))
    run = make_run(tmp_path)
    for measured in train(Transformer(CONFIG), make_batches(), RECIPE, run):
        if measured["step"] == stop:
            break
    assert newest_checkpoint(run.checkpoints).step == stop
    resumed = Transformer(CONFIG, seed=99)
    list(train(resumed, make_batches(), RECIPE, Run(run.folder)))
    assert weights_hash(resumed) == weights_hash(whole)
    assert without_times(run.metrics()) == without_times(whole_run.metrics())


def test_manifest_says_what_the_run_depends_on(tmp_path):
    manifest = make_run(tmp_path).manifest
    assert manifest["model"]["pattern"] == CONFIG.pattern
    assert manifest["recipe"]["steps"] == RECIPE.steps
    assert manifest["tokenizer"] == BYTES.name
    assert set(manifest["code"]) == {"text", "model", "training", "lab"}
    assert {"processor", "cores", "threads", "python", "torch"} <= set(
        manifest["machine"]
    )


def test_half_written_last_line_is_left_out(tmp_path):
    run = make_run(tmp_path)
    run.append(step=1, loss=2.0)
    run.append(step=1, held_out=3.0)
    run.append(step=2, loss=1.5)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    expected = [{"step": 1, "loss": 2.0, "held_out": 3.0}, {"step": 2, "loss": 1.5}]
    assert run.metrics() == expected
    run.forget_after(1)
    assert run.metrics() == expected[:1]


def test_a_number_that_is_none_is_never_recorded(tmp_path):
    with pytest.raises(ValueError):
        make_run(tmp_path).append(step=1, loss=math.nan)


def saved(tmp_path, steps=(1, 2)):
    model = Transformer(CONFIG)
    optimizer = make_optimizer(model, RECIPE)
    for step in steps:
        take_step(model, optimizer, [make_batches()[step]], 1e-3, 1.0)
        save_checkpoint(tmp_path, Progress(step), model, optimizer, {"corpus": "c"})
    return model


def test_checkpoint_gives_the_model_back(tmp_path):
    model = saved(tmp_path)
    checkpoint = newest_checkpoint(tmp_path)
    assert (checkpoint.step, checkpoint.facts) == (2, {"corpus": "c"})
    assert checkpoint.skipped == ()
    assert weights_hash(load_model(checkpoint)) == weights_hash(model)
    assert sorted(f.name for f in checkpoint.folder.iterdir()) == [
        "checkpoint.json",
        "model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
    ]
    assert set(load_file(checkpoint.folder / "model.safetensors")) == set(
        model.state_dict()
    )


def test_newest_two_checkpoints_are_kept(tmp_path):
    saved(tmp_path, steps=(1, 2, 3))
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_found_and_the_older_checkpoint_used(tmp_path, name, damage):
    saved(tmp_path)
    victim = tmp_path / "step-00000002" / name
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        place = data.index(b"sha256") if name.endswith("json") else len(data) // 2
        data[place] ^= 1
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[damage])
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint.step == 1
    assert len(checkpoint.skipped) == 1
    assert "step-00000002" in checkpoint.skipped[0]


def test_a_broken_checkpoint_is_saved_anew_when_its_step_comes_again(tmp_path):
    run = make_run(tmp_path)
    list(train(Transformer(CONFIG), make_batches(), RECIPE, run))
    newest = newest_checkpoint(run.checkpoints)
    (newest.folder / "model.safetensors").write_bytes(b"broken")
    left_by_a_kill = run.checkpoints / f"part-{newest.step:08d}"
    left_by_a_kill.mkdir()
    model = Transformer(CONFIG)
    with pytest.warns(RuntimeWarning, match="going on from step 10.*step-00000020"):
        list(train(model, make_batches(), RECIPE, run))
    again = newest_checkpoint(run.checkpoints)
    assert (again.step, again.skipped) == (RECIPE.steps, ())
    assert weights_hash(load_model(again)) == weights_hash(model)
    assert not left_by_a_kill.exists()


def test_no_intact_checkpoint_is_said_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="the folder holds none"):
        newest_checkpoint(tmp_path)


def test_another_model_or_tokenizer_is_refused(tmp_path):
    run = make_run(tmp_path)
    list(train(Transformer(CONFIG), make_batches(), RECIPE, run))
    other = Transformer(replace(CONFIG, pattern="FF"))
    with pytest.raises(CheckpointError, match="model.pattern 'WF', expected 'FF'"):
        next(train(other, make_batches(), RECIPE, run))
    run.manifest["tokenizer"] = "another"
    with pytest.raises(CheckpointError, match="tokenizer '.*', expected 'another'"):
        next(train(Transformer(CONFIG), make_batches(), RECIPE, run))


def test_loss_that_is_no_number_stops_before_the_update(tmp_path):
    model, run = Transformer(CONFIG), make_run(tmp_path)
    with closing(train(model, make_batches(), RECIPE, run)) as steps:
        for _ in range(3):
            next(steps)
        model.norm.gain.data[0] = math.nan
        before = weights_hash(model)
        with pytest.raises(NotFiniteError, match="step 4: loss nan"):
            next(steps)
    assert weights_hash(model) == before
    assert len(run.metrics()) == 3


TRAIN_FOR_EVER = """
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training import *
run = Run(Path({folder!r}))
recipe = replace(RECIPE, steps=10**6, save_every={save_every})
with closing(train(Transformer(CONFIG), make_batches(), recipe, run)) as steps:
    for measured in steps:
        print(measured["step"], flush=True)
"""


def start_training(run, save_every):
    code = TRAIN_FOR_EVER.format(
        tests=str(Path(__file__).parent), folder=str(run.folder), save_every=save_every
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for _ in range(3):
        process.stdout.readline()
    return process


def test_nobody_trains_a_run_that_another_process_trains(tmp_path):
    run = make_run(tmp_path)
    process = start_training(run, save_every=10**6)
    try:
        with pytest.raises(LockedError, match=f"in use by .*{process.pid}"):
            next(train(Transformer(CONFIG), make_batches(), RECIPE, Run(run.folder)))
    finally:
        process.kill()
        process.communicate()
    recorded = len(run.metrics())
    recipe = replace(RECIPE, steps=10**6, save_every=10**6)
    resumed = train(Transformer(CONFIG), make_batches(), recipe, Run(run.folder))
    with closing(resumed):
        assert next(resumed)["step"] == 1  # nothing was saved
    assert recorded >= 3


def test_memory_stays_flat(tmp_path):
    """500 steps with their records and ten saves take as much as 200 had taken."""
    process, held = start_training(make_run(tmp_path), save_every=50), {}
    try:
        for line in process.stdout:
            if int(line) in (200, 700):
                held[int(line)] = psutil.Process(process.pid).memory_info().rss
            if len(held) == 2:
                break
    finally:
        process.kill()
        process.communicate()
    assert held[700] - held[200] < 2e6, held


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05])
def test_interrupt_leaves_the_last_step_whole(tmp_path, delay):
    """Ctrl-C at any moment: the newest checkpoint is the last step of the record."""
    run = make_run(tmp_path)
    process = start_training(run, save_every=10**6)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in complaint
    checkpoint = newest_checkpoint(run.checkpoints)
    assert checkpoint.step == run.metrics()[-1]["step"] >= 3
    assert checkpoint.skipped == ()
    load_model(checkpoint)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_killed_run_loses_at_most_one_interval(tmp_path):
    run = make_run(tmp_path)
    for _ in range(3):  # each resumes from what the kill before it left
        process = start_training(run, save_every=5)
        while not list(run.checkpoints.glob("step-*")) and process.poll() is None:
            process.stdout.readline()
        time.sleep(0.1)
        process.kill()
        process.communicate()
        checkpoint = newest_checkpoint(run.checkpoints)
        assert checkpoint.step > run.metrics()[-1]["step"] - 5 - 1
        load_model(checkpoint)


def test_full_disk_leaves_earlier_checkpoints(small_disk):
    """A real filesystem of 1 MB, on which the third checkpoint has no room."""
    folder = small_disk / "checkpoints"
    model = Transformer(CONFIG)
    optimizer = make_optimizer(model, RECIPE)
    take_step(model, optimizer, [make_batches()[0]], 1e-3, 1.0)
    save_checkpoint(folder, Progress(1), model, optimizer, {})
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    room = 2**20 - size - size // 2
    (small_disk / "ballast").write_bytes(b"0" * room)
    with pytest.raises(
        Exception, match="needs [0-9,]+ bytes, [0-9,]+ are free .No space left"
    ):
        save_checkpoint(folder, Progress(2), model, optimizer, {})
    assert [f.name for f in folder.iterdir()] == ["step-00000001"]
    assert newest_checkpoint(folder).step == 1


def test_manifest_and_checkpoints_are_plain_json(tmp_path):
    run = make_run(tmp_path)
    list(train(Transformer(CONFIG), make_batches(), RECIPE, run))
    for file in run.folder.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
