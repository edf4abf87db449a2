"""The record: what a manifest says of the code, and a stop that can be replayed."""

import itertools
import json
import math
from contextlib import closing
from dataclasses import replace

import pytest
from test_training import BYTES, CONFIG, RECIPE, make_batches, weights_hash

from cort33x_lib.files import PROJECT
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.checkpoint import newest_checkpoint
from cort33x_lib.training.loop import train
from cort33x_lib.training.record import Run, function_digests, make_manifest
from cort33x_lib.training.replay import documents_of, replay
from cort33x_lib.training.step import NotFiniteError

CODE = '''
"""A room."""
import math

LIMIT = 3


class Counter:
    """Counts."""

    start = 0

    def count(self, x):
        """One more."""
        return x + 1


def double(x):
    return 2 * x
'''


def digests(folder, code):
    (folder / "room").mkdir(exist_ok=True)
    (folder / "room" / "a.py").write_text(code)
    return function_digests("room", folder)["room/a.py"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("2 * x", "3 * x", {"double"}),
        ("x + 1", "x + 2", {"Counter.count"}),
        ("start = 0", "start = 1", {"Counter"}),
        ("LIMIT = 3", "LIMIT = 4", {"LIMIT"}),
        ("import math", "import json", {"imports"}),
        ("2 * x", "2 * x  # twice", set()),
        ('"""One more."""', '"""The next."""', set()),
        ('"""Counts."""', "", set()),
        ('"""A room."""', "", set()),
        ("2 * x", "(2\n        * x)", set()),
    ],
)
def test_a_digest_changes_with_what_the_code_does(tmp_path, old, new, changed):
    assert old in CODE
    before, after = digests(tmp_path, CODE), digests(tmp_path, CODE.replace(old, new))
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_manifest_names_every_function_of_the_library():
    manifest = make_manifest(CONFIG, RECIPE, "corpus", BYTES.name)
    functions = manifest["functions"]
    assert "attend" in functions["model/attention.py"]
    assert "Batches.row" in functions["text/batches.py"]
    assert len(json.dumps(manifest)) < 60_000


def test_runs_recorded_before_are_still_read():
    found = [
        Run(file.parent) for file in (PROJECT / "data/runs").glob("*/manifest.json")
    ]
    assert len(found) >= 15
    for run in found:
        assert run.manifest["recipe"]["steps"] == run.metrics()[-1]["step"]


MICRO = 8
LONG = replace(RECIPE, accumulation=MICRO, steps=6, rows=2)
PLACES = ["loss", "gradient", "embedding", "norm", "mixer"]
VALUES = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}


def inject(model, place, value, step, monkeypatch):
    """Plant a number that is none, which the next step meets; gives its groups."""
    if place == "loss":  # of micro-batch 3 of 8
        extra = step == 1  # a new model's first loss is looked at before the step
        seen, loss = itertools.count(-extra), model.loss

        def broken(inputs, targets):
            return loss(inputs, targets) * (value if next(seen) % MICRO == 2 else 1)

        monkeypatch.setattr(model, "loss", broken)
        return None
    if place == "gradient":
        seen = itertools.count()
        model.blocks[1].feed_forward.narrow.weight.register_hook(
            lambda g: g * value if next(seen) % MICRO == 2 else g
        )
        return ["blocks.1.feed_forward"]
    weights, group = {
        "embedding": (model.embedding.weight, "embedding"),
        "norm": (model.norm.gain, "norm"),
        "mixer": (model.blocks[0].mixer.project_in.weight, "blocks.0.mixer"),
    }[place]
    weights.data.view(-1)[3 * weights.shape[-1] // 4] = value
    if place == "embedding":
        weights.data[:] = value
    return [group]


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", PLACES)
def test_a_number_that_is_none_stops_before_the_update(
    tmp_path, monkeypatch, place, value, step
):
    """30 of 30: weights as they were, step, group and batches named, replay kept."""
    model, batches = Transformer(CONFIG), make_batches(LONG)
    run = Run.create(tmp_path, "x", make_manifest(CONFIG, LONG, "c", BYTES.name))
    with closing(train(model, batches, LONG, run)) as steps:
        for _ in range(step - 1):
            next(steps)
        groups = inject(model, place, VALUES[value], step, monkeypatch)
        before = weights_hash(model)
        with pytest.raises(NotFiniteError, match=f"step {step}: ") as caught:
            next(steps)
    assert weights_hash(model) == before
    assert len(run.metrics()) == step - 1
    folder = run.folder / f"not-finite-{step:08d}"
    said = json.loads((folder / "replay.json").read_text())
    assert (said["step"], said["message"]) == (step, str(caught.value))
    first, rows = (step - 1) * MICRO, LONG.rows
    if place in ("loss", "gradient"):
        assert said["batches"] == [first + 2] and said["micro_batches"] == [2]
        numbers = range((first + 2) * rows, (first + 3) * rows)
        assert said["documents"] == [[[*batches.documents(n)] for n in numbers]]
        assert said["weights"] == []
    else:
        assert said["weights"] == groups and len(said["batches"]) == MICRO
    if place == "gradient":
        assert said["groups"] == groups
    again = replay(folder)
    if place in ("loss", "gradient"):  # planted outside of weights and batches
        assert again.fault is None and again.alone == []
    else:
        assert again.fault.weights == groups and again.alone == [*range(MICRO)]
    kept = [*run.checkpoints.glob("step-*")] if step > 1 else []
    assert said["checkpoint"] == (kept[0].name if kept else None)
    if place in ("loss", "gradient") and step > 1:
        assert newest_checkpoint(run.checkpoints).step == step - 1


def test_weights_that_an_update_breaks_are_never_saved(tmp_path):
    recipe = replace(RECIPE, peak_rate=1e39, warmup=0.0, save_every=1)
    manifest = make_manifest(CONFIG, recipe, "c", BYTES.name)
    run = Run.create(tmp_path, "x", manifest)
    with pytest.raises(NotFiniteError, match="step 1 has left broken .* norm"):
        list(train(Transformer(CONFIG), make_batches(), recipe, run))
    assert not [*run.checkpoints.glob("step-*")]


def test_a_batch_names_its_documents():
    batches = make_batches()
    for number in (0, 7, 200):
        inputs, _ = batches[number]
        for row, documents in zip(inputs, documents_of(batches, number), strict=True):
            texts = [batches.tokens.document(n) for n in documents]
            ids = [batches.tokens.end, *itertools.chain(*texts)]
            assert row.tolist() == ids[: len(row)]


def test_a_batch_of_a_mixture_names_sources_and_documents():
    texts = {"a": "one two three " * 9, "b": "four five " * 9}
    sources = {
        name: encode_documents(
            BYTES, [Document(f"{text}{n}", str(n), name, "CC0-1.0") for n in range(9)]
        )
        for name, text in texts.items()
    }
    mixture = Mixture(sources, {"a": 2, "b": 1}, rows=3, length=32, seed=0)
    inputs, _ = mixture[5]
    for row, (name, *documents) in zip(inputs, documents_of(mixture, 5), strict=True):
        ids = sources[name].document(documents[0])
        assert row.tolist()[1:] == ids[: len(row) - 1].tolist()


def test_replay_of_a_real_divergence_meets_it_again(tmp_path):
    """A rate far too high breaks the loss by itself: replay gives the same message."""
    recipe = replace(RECIPE, peak_rate=1e30, final_rate=1e30, warmup=0.0, save_every=99)
    run = Run.create(tmp_path, "x", make_manifest(CONFIG, recipe, "c", BYTES.name))
    model = Transformer(CONFIG)
    with pytest.raises(NotFiniteError) as caught:
        list(train(model, make_batches(), recipe, run))
    [folder] = run.folder.glob("not-finite-*")
    again = replay(folder)
    assert str(caught.value).endswith(str(again.fault))
    assert again.alone == [0]
