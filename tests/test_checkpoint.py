"""Checkpoints that are damaged, hostile, of another run, or on a full disk.

`make faults` runs as many trials as the book promises; the suite runs a sample.
"""

import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import CONFIG, RECIPE, make_batches, weights_hash

from cort33x_lib.files import digest, sha256_of
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.checkpoint import (
    KEPT,
    TENSOR_FILES,
    CheckpointError,
    Progress,
    load_model,
    newest_checkpoint,
    read_checkpoint,
    restore,
    save_checkpoint,
    seal_of,
)
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.randomness import random_states, set_random_states
from cort33x_lib.training.step import take_step
from cort33x_lib.training.tensor_file import open_tensors, write_tensors

ROOT = Path(__file__).parents[1]
LONG = "FAULTS_LONG" in os.environ
FACTS = {"corpus": "c", "recipe": asdict(RECIPE)}
FILES = (*TENSOR_FILES, "checkpoint.json")


def bound(failures, trials, what):
    """Print a count as the book does: with the rate that it leaves open."""
    print(f"\n{failures} of {trials} {what}: at 95% below {3 / trials:.2%}", end="")
    assert failures == 0


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of steps 1 and 2, their model and its optimizer."""
    model = Transformer(CONFIG)
    optimizer = make_optimizer(model, RECIPE)
    for step in (1, 2):
        take_step(model, optimizer, [make_batches()[step]], 1e-3, 1.0)
        torch.rand(1)  # or both would hold the same generators
        save_checkpoint(tmp_path / "two", Progress(step), model, optimizer, FACTS)
    return tmp_path / "two", model, optimizer


def passes_over_step_2(folder):
    found = newest_checkpoint(folder)
    return found.step == 1 and ["step-00000002" in said for said in found.skipped] == [
        True
    ]


def test_any_single_bit_that_is_flipped_is_noticed(two, capsys):
    folder, chance = two[0] / "step-00000002", random.Random(1)
    trials = 1000 if LONG else 120
    missed = 0
    for trial in range(trials):
        victim = folder / FILES[trial % len(FILES)]
        whole = victim.read_bytes()
        broken = bytearray(whole)
        broken[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        victim.write_bytes(broken)
        missed += not passes_over_step_2(two[0])
        victim.write_bytes(whole)
    assert newest_checkpoint(two[0]).step == 2
    with capsys.disabled():
        bound(missed, trials, "flipped bits were missed")


def test_any_truncation_is_noticed(two, capsys):
    folder, chance = two[0] / "step-00000002", random.Random(2)
    trials, empty = (200, 10) if LONG else (40, 4)
    missed = 0
    for trial in range(trials + empty):
        victim = folder / FILES[trial % len(FILES)]
        whole = victim.read_bytes()
        kept = chance.randrange(len(whole)) if trial < trials else 0
        victim.write_bytes(whole[:kept])
        missed += not passes_over_step_2(two[0])
        victim.write_bytes(whole)
    with capsys.disabled():
        bound(missed, trials + empty, "cut or emptied files were missed")


def test_files_of_another_step_are_noticed(two, tmp_path, capsys):
    folder, chance = two[0], random.Random(3)
    trials, missed = 50 if LONG else 12, 0
    for trial in range(trials):
        copy = tmp_path / f"copy-{trial}"
        shutil.copytree(folder, copy)
        some = chance.sample(FILES, chance.randint(1, 3))
        for name in some:
            shutil.copy(copy / "step-00000001" / name, copy / "step-00000002" / name)
        missed += not passes_over_step_2(copy)
        shutil.rmtree(copy)
    shutil.rmtree(folder / "step-00000002")
    shutil.copytree(folder / "step-00000001", folder / "step-00000002")
    missed += not passes_over_step_2(folder)  # all of them
    with capsys.disabled():
        bound(missed, trials + 1, "swaps between steps were missed")


def test_none_intact_is_one_clear_line(two):
    for name in ("step-00000001", "step-00000002"):
        (two[0] / name / FILES[0]).write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        newest_checkpoint(two[0])
    said = str(caught.value)
    assert said.startswith(f"no intact checkpoint in {two[0]}: ")
    assert said.count("is not the file that was saved") == 2 and "\n" not in said


CHANGES = {
    "corpus": {"corpus": "another"},
    "recipe.peak_rate": {"recipe": asdict(replace(RECIPE, peak_rate=4e-3))},
    "recipe.seed": {"recipe": asdict(replace(RECIPE, seed=1))},
    "recipe.precision": {"recipe": asdict(replace(RECIPE, precision="bfloat16"))},
    "more": {"more": 1},
}


@pytest.mark.parametrize("name", CHANGES)
def test_facts_that_differ_are_named_and_nothing_is_touched(two, name):
    model = Transformer(CONFIG, seed=5)
    optimizer, before = make_optimizer(model, RECIPE), weights_hash(model)
    drawn = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=f"was saved with {name} .*, expected"):
        restore(newest_checkpoint(two[0]), model, optimizer, FACTS | CHANGES[name])
    assert weights_hash(model) == before and not optimizer.state
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_generators_go_on_where_they_were():
    random.gauss(0, 1), torch.rand(3)
    states = random_states()
    expected = [random.gauss(0, 1), random.random(), torch.rand(3).tolist()]
    set_random_states(states)
    assert [random.gauss(0, 1), random.random(), torch.rand(3).tolist()] == expected


def sealed_again(folder, **changes):
    """Seal a checkpoint whose files were changed by somebody who knows how."""
    contents = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    del contents["seal"]
    contents |= changes
    contents["sha256"] = {name: sha256_of(folder / name) for name in TENSOR_FILES}
    (folder / "checkpoint.json").write_text(seal_of(contents), "utf-8")


def with_header(header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text)) + text + body


BOMB = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system"
BOMB += b"\x94\x93\x94\x8c\x09touch pwn\x94\x85\x94R\x94."
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
HOSTILE = {
    "a pickle": BOMB,
    "a pickle in a header": with_header(BOMB),
    "a zip with a pickle": b"PK\x03\x04" + BOMB,
    "nothing": b"",
    "a length alone": struct.pack("<Q", 100),
    "a huge header": struct.pack("<Q", 1 << 62) + b"{}",
    "a million keys": with_header({f"k{n}": ONE for n in range(10**5)} | {"x": ONE}),
    "a deep header": with_header(DEEP),
    "overlapping offsets": with_header({"a": ONE, "b": ONE}, bytes(4)),
    "negative offsets": with_header({"a": ONE | {"data_offsets": [-4, 0]}}, bytes(4)),
    "offsets past the end": with_header({"a": ONE | {"data_offsets": [0, 1 << 40]}}),
    "a hole": with_header({"a": ONE | {"data_offsets": [8, 12]}}, bytes(12)),
    "a huge shape": with_header({"a": ONE | {"shape": [1 << 50]}}, bytes(4)),
    "an unknown type": with_header({"a": ONE | {"dtype": "OBJECT"}}, bytes(4)),
    "no JSON": with_header(b"\xff\xfe{not json"),
    "a list": with_header(b"[1, 2]"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", TENSOR_FILES)
def test_hostile_tensor_files_are_refused(two, file, name, monkeypatch):
    folder = two[0] / "step-00000002"
    monkeypatch.chdir(two[0])
    (folder / file).write_bytes(HOSTILE[name])
    sealed_again(folder)
    started = []
    sys.addaudithook(
        lambda event, _: (
            started.append(event)
            if event in ("os.system", "subprocess.Popen", "os.exec", "os.fork")
            else None
        )
    )
    checkpoint, model = read_checkpoint(folder), Transformer(CONFIG, seed=5)
    before = weights_hash(model)
    with pytest.raises(CheckpointError):
        restore(checkpoint, model, make_optimizer(model, RECIPE), FACTS)
    assert not started and not Path("pwn").exists()
    assert weights_hash(model) == before


def rewrite(folder, file, change):
    tensors = load_file(folder / file)
    change(tensors)
    (folder / file).unlink()
    write_tensors(folder / file, tensors)
    sealed_again(folder)


def lie(key, value):
    return lambda tensors: tensors.update({key: value(tensors[key])})


def without(key):
    return lambda tensors: tensors.pop(key)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (0, lie("norm.gain", lambda x: x.double()), "norm.gain is float64"),
        (0, lie("norm.gain", lambda x: x[:-1]), r"norm.gain is float32 \(31,\)"),
        (0, without("norm.gain"), "norm.gain is missing"),
        (0, lambda t: t.update(more=torch.zeros(1)), "more is unknown"),
        (1, without("norm.gain/exp_avg"), "exp_avg is missing"),
        (1, lie("norm.gain/exp_avg", lambda x: x[:-1]), "expected float32"),
        (1, lambda t: t.update(more=torch.zeros(1)), "more is unknown"),
        (2, without("torch"), "torch"),
        (2, lie("python", lambda x: x[:5]), "state"),
        (2, lie("python", lambda x: x - 2**40), "negative"),
        (2, lie("numpy", lambda x: x + 2**40), "uint32|out of bounds|too large"),
    ],
)
def test_tensors_that_do_not_fit_are_named(two, file, change, message):
    folder = two[0] / "step-00000002"

    rewrite(folder, TENSOR_FILES[file], change)
    model = Transformer(CONFIG)
    with pytest.raises(CheckpointError, match=message):
        restore(read_checkpoint(folder), model, make_optimizer(model, RECIPE), FACTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"progress": {"step": -1}},
        {"progress": {"step": 2, "tokens": "many"}},
        {"progress": {"step": 2, "best": math.nan}},
        {"progress": []},
        {"model": {"channels": 1}},
        {"model": asdict(CONFIG) | {"channels": -1}},
        {"model": None},
        {"sha256": {}},
    ],
)
def test_seals_that_make_no_sense_are_refused(two, changes):
    folder = two[0] / "step-00000002"
    contents = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    del contents["seal"]
    text = seal_of(contents | changes)
    (folder / "checkpoint.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match="step-00000002"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{" * 10**5, "9" * 5000, "x" * (1 << 21), "\x00"]
)
def test_seals_that_are_none_are_refused(two, text):
    (two[0] / "step-00000002" / "checkpoint.json").write_text(text, "utf-8")
    with pytest.raises(CheckpointError, match="step-00000002"):
        read_checkpoint(two[0] / "step-00000002")


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused_at_once(two, tmp_path, name, kind):
    victim = two[0] / "step-00000002" / name
    elsewhere = tmp_path / "elsewhere"
    shutil.move(victim, elsewhere)
    if kind == "link":
        victim.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(victim)
    else:
        victim.mkdir()
    assert passes_over_step_2(two[0])


def test_a_model_larger_than_its_file_is_refused_before_it_is_made(two):
    folder = two[0] / "step-00000002"
    sealed_again(folder, model=asdict(replace(CONFIG, feed_forward=10**10)))
    with pytest.raises(CheckpointError, match="too short for"):
        load_model(read_checkpoint(folder))


def test_mutated_tensor_files_raise_nothing_else(two, capsys):
    """Bytes changed at random and sealed again: an error of ours, or other numbers."""
    folder, chance = two[0] / "step-00000002", random.Random(4)
    trials, escaped, model = 2000 if LONG else 60, 0, Transformer(CONFIG)
    for trial in range(trials):
        victim = folder / TENSOR_FILES[trial % 3]
        whole = victim.read_bytes()
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            near = chance.choice([16, 400, len(broken)])
            broken[chance.randrange(near)] = chance.randrange(256)
        victim.write_bytes(broken)
        sealed_again(folder)
        try:
            restore(
                read_checkpoint(folder), model, make_optimizer(model, RECIPE), FACTS
            )
        except CheckpointError:
            pass
        except Exception:
            escaped += 1
        victim.write_bytes(whole)
    with capsys.disabled():
        bound(escaped, trials, "mutated files raised another error")


def test_a_full_disk_leaves_what_was_there(small_disk, capsys):
    """A real filesystem of one megabyte, filled so that a save ends at many places."""
    folder, chance, trials = small_disk / "checkpoints", random.Random(5), 20
    model = Transformer(CONFIG)
    optimizer = make_optimizer(model, RECIPE)
    take_step(model, optimizer, [make_batches()[0]], 1e-3, 1.0)
    save_checkpoint(folder, Progress(1), model, optimizer, FACTS)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    failures = 0
    for trial in range(trials):
        room = chance.randrange(4096, size - 8192)
        free = shutil.disk_usage(small_disk).free
        (small_disk / "ballast").write_bytes(bytes(free - room))
        with pytest.raises(
            OSError, match=r"needs [\d,]+ bytes, [\d,]+ are free"
        ) as caught:
            save_checkpoint(folder, Progress(2 + trial), model, optimizer, FACTS)
        assert caught.value.errno == 28
        left = [f.name for f in folder.iterdir()]
        intact = newest_checkpoint(folder)
        failures += (
            left != ["step-00000001"] or intact.step != 1 or intact.skipped != ()
        )
        (small_disk / "ballast").unlink()
    save_checkpoint(folder, Progress(30), model, optimizer, FACTS)
    assert newest_checkpoint(folder).step == 30
    with capsys.disabled():
        bound(failures, trials, "full disks lost a checkpoint or left a part")


def test_saving_holds_no_second_copy(tmp_path):
    """200 MB of tensors are written with less than 30 MB on top."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux says how much memory was held at most")
    script = """
import sys, torch
from pathlib import Path
from cort33x_lib.training.tensor_file import write_tensors
tensors = {f"{n}": torch.ones(5_000_000) for n in range(10)}
Path("/proc/self/clear_refs").write_text("5")
def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
before = held("VmRSS")
write_tensors(Path(sys.argv[1]), tensors)
print(held("VmHWM") - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert int(done.stdout) < 30e6, done.stderr
    assert (tmp_path / "large").stat().st_size > 200e6


def test_what_is_written_is_read_by_safetensors(tmp_path):
    tensors = {
        "matrix": torch.randn(3, 5),
        "number": torch.tensor(2.0),
        "none": torch.zeros(0),
        "half": torch.randn(7).bfloat16(),
        "double": torch.randn(3).double(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "turned": torch.randn(4, 6).T,
    }
    written = write_tensors(tmp_path / "file", tensors)
    assert written == digest((tmp_path / "file").read_bytes())
    loaded = load_file(tmp_path / "file")
    with open_tensors(tmp_path / "file") as ours:
        for name, tensor in tensors.items():
            assert torch.equal(loaded[name], tensor) and torch.equal(ours[name], tensor)
            assert loaded[name].dtype == tensor.dtype


def test_an_old_checkpoint_goes_only_after_the_new_one_was_read(two):
    """The last thing that a save does before it deletes is to read what it wrote."""
    folder, model, optimizer = two
    events = []

    def watch(event, arguments):
        if event == "open" and "step-00000003" in str(arguments[0]):
            events.append("read")
        if event in ("os.remove", "os.rmdir") and "part-00000001" in str(arguments[0]):
            events.append("delete")
        if event == "os.rename" and "step-00000001" in str(arguments[0]):
            events.append("delete")

    sys.addaudithook(watch)
    save_checkpoint(folder, Progress(3), model, optimizer, FACTS)
    assert events.count("read") == len(FILES) and "delete" in events
    assert events.index("delete") == len(FILES)
    assert len(list(folder.glob("step-*"))) == KEPT
