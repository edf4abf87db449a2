"""A run that was stopped and taken up again is, to the last bit, one that never was."""

import json
import os
import random
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_checkpoint import sealed_again
from test_training import BYTES, CONFIG, RECIPE, SOURCE, make_run

from cort33x_lib.files import digest
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents, pack_epoch
from cort33x_lib.text.corpus import Document
from cort33x_lib.training.checkpoint import CheckpointError, newest_checkpoint
from cort33x_lib.training.loop import train
from cort33x_lib.training.record import Run
from cort33x_lib.training.start import FirstLossError
from cort33x_lib.training.tensor_file import open_tensors, write_tensors

ROOT = Path(__file__).parents[1]
LONG = "FAULTS_LONG" in os.environ
CLOCK = ("seconds", "tokens_per_second", "memory")  # the machine's, not the run's
BASE = replace(RECIPE, steps=16, save_every=5, examine_every=4, warmup=0.2)


# So few documents that an epoch ends within a run, in step 9 of the one below.
TOKENS = encode_documents(
    BYTES,
    [Document(SOURCE[n : n + 40], f"{n}", "argparse.py", "PSF-2.0")
     for n in range(0, 1400, 40)],
)  # fmt: skip


class NoisyModel(Transformer):
    """A model whose loss drops some of its inputs, by PyTorch's own generator."""

    def loss(self, inputs, targets):
        dropped = torch.rand(inputs.shape) < 0.1
        return super().loss(inputs.masked_fill(dropped, 0), targets)


class NoisyBatches:
    """Batches that hide targets, by Python's and NumPy's own generators."""

    def __init__(self, recipe):
        self._batches = Batches(TOKENS, recipe.rows, recipe.length, recipe.seed)
        self.seed, self.tokens = self._batches.seed, self._batches.tokens
        self.length, self.rows = recipe.length, recipe.rows

    def __getitem__(self, number):
        inputs, targets = self._batches[number]
        share = random.random() / 4 + np.random.normal() ** 2 / 20
        hidden = torch.arange(targets.numel()).reshape(targets.shape) % 97 < 97 * share
        return inputs, targets.masked_fill(hidden, -100)


def examine(model):
    """A score that is best at the first examination."""
    with torch.no_grad():
        return float(model.embedding.weight.norm())


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def go(run, recipe, stop=None, batches=None):
    """Start or take up a run, as a new process would; stop it after a step."""
    seed_all(99 + recipe.seed if any(run.checkpoints.glob("step-*")) else recipe.seed)
    model = NoisyModel(CONFIG, seed=recipe.seed)
    batches = batches or NoisyBatches(recipe)
    with closing(train(model, batches, recipe, run, examine)) as steps:
        for measured in steps:
            if measured["step"] == stop:
                break


def outcome(run):
    """All that a run has come to: each file's hash, progress, the record's bytes."""
    folder = newest_checkpoint(run.checkpoints).folder
    sealed = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    sealed["progress"].pop("seconds")
    lines = (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    record = [
        json.dumps({k: v for k, v in json.loads(line).items() if k not in CLOCK})
        for line in lines
    ]
    return sealed["sha256"], sealed["progress"], digest("\n".join(record).encode())


WHOLE = {}


def whole(tmp_path, recipe):
    """What the run comes to when nobody disturbs it."""
    if recipe not in WHOLE:
        run = make_run(tmp_path)
        go(run, recipe)
        WHOLE[recipe] = outcome(run)
    return WHOLE[recipe]


class Interrupted(Exception):
    pass


class Interrupting(NoisyBatches):
    """Batches that fail at one of them, as if the process were stopped there."""

    def __init__(self, recipe, at):
        super().__init__(recipe)
        self.at = at

    def __getitem__(self, number):
        if number == self.at:
            raise Interrupted
        return super().__getitem__(number)


# Before the first step, after it, warm-up's end, around an examination, around the end
# of an epoch, the last but one.
STOPS = [0, 1, 3, 4, 5, 8, 9, 15]
SEEDS = (0, 1, 2) if LONG else (0,)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stop", STOPS)
def test_stopped_anywhere_ends_the_same(tmp_path, stop, seed, accumulation):
    recipe = replace(BASE, seed=seed, accumulation=accumulation)
    run = make_run(tmp_path)
    if stop == 0:
        with pytest.raises(Interrupted):
            go(
                run,
                recipe,
                batches=Interrupting(recipe, at=1 if accumulation > 1 else 0),
            )
    else:
        go(run, recipe, stop)
        assert newest_checkpoint(run.checkpoints).step == stop
    go(Run(run.folder), recipe)
    assert outcome(run) == whole(tmp_path, recipe)


def test_an_epoch_ends_within_the_run():
    _, bounds = pack_epoch(TOKENS, BASE.length, 0, 0, 0)
    assert 8 * BASE.rows < len(bounds) - 1 < 9 * BASE.rows, len(bounds)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_stopped_within_a_step_ends_the_same(tmp_path, seed, micro_batch):
    recipe = replace(BASE, seed=seed, accumulation=4)
    run = make_run(tmp_path)
    with pytest.raises(Interrupted):
        go(run, recipe, batches=Interrupting(recipe, at=4 * 7 + micro_batch))
    assert newest_checkpoint(run.checkpoints).step == 7
    go(Run(run.folder), recipe)
    assert outcome(run) == whole(tmp_path, recipe)


def test_ten_resumes_in_a_row_end_the_same(tmp_path):
    run = make_run(tmp_path)
    for stop in range(1, 11):
        go(Run(run.folder), BASE, stop)
    go(Run(run.folder), BASE)
    assert outcome(run) == whole(tmp_path, BASE)


def test_a_record_written_past_the_checkpoint_is_cut_back(tmp_path):
    run = make_run(tmp_path)
    go(run, BASE, stop=7)
    record = run.folder / "metrics.jsonl"
    lines = record.read_text("utf-8")
    record.write_text(lines + '{"step": 8, "loss": 1.0}\n{"step": 9, "lo', "utf-8")
    assert [m["step"] for m in run.metrics()] == list(range(1, 9))  # a reader's view
    go(Run(run.folder), BASE)
    assert outcome(run) == whole(tmp_path, BASE)


def tampered(folder, name, change):
    """Change the tensors of one file of a checkpoint and seal it again."""
    with open_tensors(folder / name) as tensors:
        changed = {key: value.clone() for key, value in tensors.items()}
    change(changed)
    (folder / name).unlink()
    write_tensors(folder / name, changed)
    sealed_again(folder)


def fresh_generators(*names):
    """As they are in a process that has just begun."""

    def change(tensors):
        kept = {key: value.clone() for key, value in tensors.items()}
        seed_all(12345)
        from cort33x_lib.training.randomness import random_states

        fresh = random_states()
        tensors.clear()
        tensors.update(kept | {name: fresh[name] for name in names})

    return change


def zeroed(tensors):
    for value in tensors.values():
        value.zero_()


def first_weights(tensors):
    tensors.update(NoisyModel(CONFIG, seed=BASE.seed).state_dict())


def progress_without(name):
    def change(folder):
        sealed = json.loads((folder / "checkpoint.json").read_text("utf-8"))
        start = {"step": 0, "position": 0, "tokens": 0, "best": None, "clipped": 0}
        sealed["progress"][name] = start[name]
        sealed_again(folder, progress=sealed["progress"])
        if name == "step":
            folder.rename(folder.with_name("step-00000000"))

    return change


def file_without(name, change):
    return lambda folder: tampered(folder, name, change)


ITEMS = {
    "model": file_without("model.safetensors", first_weights),
    "optimizer": file_without("optimizer.safetensors", zeroed),
    "schedule step": progress_without("step"),
    "Python's generator": file_without(
        "random.safetensors", fresh_generators("python", "python/spare")
    ),
    "NumPy's generator": file_without(
        "random.safetensors", fresh_generators("numpy", "numpy/spare")
    ),
    "PyTorch's generator": file_without(
        "random.safetensors", fresh_generators("torch")
    ),
    "sampler position": progress_without("position"),
    "token counter": progress_without("tokens"),
    "clipping counter": progress_without("clipped"),
    "best held-out loss": progress_without("best"),
}


@pytest.mark.parametrize("item", ITEMS)
def test_a_checkpoint_without_one_item_is_another_run(tmp_path, item):
    run = make_run(tmp_path)
    go(run, BASE, stop=9)
    (older,) = [f for f in run.checkpoints.iterdir() if f.name == "step-00000005"]
    for file in older.iterdir():
        file.unlink()
    older.rmdir()
    ITEMS[item](newest_checkpoint(run.checkpoints).folder)
    if item == "schedule step":  # weights that have learned, at the first step
        with pytest.raises(FirstLossError):
            go(Run(run.folder), BASE)
        return
    go(Run(run.folder), BASE)
    assert outcome(run) != whole(tmp_path, BASE)


def test_without_the_permutation_seed_it_is_another_run(tmp_path):
    """Another seed is refused; a checkpoint that says nothing of it is refused too."""
    run = make_run(tmp_path)
    go(run, BASE, stop=9)
    other = NoisyBatches(replace(BASE, seed=1))
    with pytest.raises(CheckpointError, match="permutation_seed 0, expected 1"):
        go(Run(run.folder), BASE, batches=other)
    folder = newest_checkpoint(run.checkpoints).folder
    sealed = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    del sealed["facts"]["permutation_seed"]
    sealed_again(folder, facts=sealed["facts"])
    with pytest.raises(CheckpointError, match="permutation_seed None, expected 0"):
        go(Run(run.folder), BASE)


def test_without_the_place_in_the_record_it_is_another_run(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    go(run, BASE, stop=9)
    run.append(step=10, loss=1.0)  # as a kill after it leaves it
    monkeypatch.setattr(Run, "forget_after", lambda self, step: None)
    go(Run(run.folder), BASE)
    assert outcome(run) != whole(tmp_path, BASE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_generator_goes_on_where_it_was():
    from cort33x_lib.training.randomness import random_states, set_random_states

    torch.rand(3, device="cuda")
    states = random_states()
    assert "cuda/0" in states
    expected = torch.rand(3, device="cuda")
    set_random_states(states)
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    del states["cuda/0"]
    set_random_states(states)
    assert not torch.equal(torch.rand(3, device="cuda"), expected)


def test_a_lost_checkpoint_is_no_silent_beginning(tmp_path):
    run = make_run(tmp_path)
    go(run, BASE, stop=9)
    for folder in run.checkpoints.iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    with pytest.raises(CheckpointError, match="a record of 9 steps and no checkpoint"):
        go(Run(run.folder), BASE)
    assert len(run.metrics()) == 9


def test_a_lost_record_is_said(tmp_path):
    run = make_run(tmp_path)
    go(run, BASE, stop=9)
    (run.folder / "metrics.jsonl").unlink()
    with pytest.warns(RuntimeWarning, match="the record ends at step 0, before step 9"):
        go(Run(run.folder), BASE, stop=10)


TWICE = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_resume import *
run = Run(Path(sys.argv[1]))
go(run, replace(BASE, steps={steps}, save_every=50))
"""


def test_two_fresh_processes_write_the_same_record(tmp_path):
    steps, outcomes = (500 if LONG else 20), []
    code = TWICE.format(tests=str(Path(__file__).parent), steps=steps)
    for hash_seed in ("1", "2"):
        run = make_run(tmp_path)
        command = [sys.executable, "-c", code, str(run.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONHASHSEED"] = hash_seed
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        outcomes.append(outcome(run))
        assert len(run.metrics()) == steps
    assert outcomes[0] == outcomes[1]
