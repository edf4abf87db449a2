"""The difference of two records, in sentences."""

from dataclasses import replace

import pytest
from test_training import BYTES, CONFIG, RECIPE

from cort33x_lib.files import PROJECT
from cort33x_lib.training.compare import compare, manifest_changes
from cort33x_lib.training.record import Run, make_manifest

BASE = make_manifest(CONFIG, RECIPE, "corpus", BYTES.name)


def changed(path, value):
    """The base manifest with one value set."""
    *parents, last = path
    copy = dict(BASE)
    at = copy
    for part in parents:
        at[part] = dict(at[part])
        at = at[part]
    at[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "kind", "sentence"),
    [
        (("corpus",), "other", "corpus", "The corpus is not the same"),
        (("tokenizer",), "other", "tokenizer", "The tokenizer is not the same"),
        (("model", "window"), 4, "model", "model.window was 8 and is 4."),
        (("recipe", "clip"), 2.0, "recipe", "recipe.clip was 1.0 and is 2.0."),
        (("recipe", "seed"), 7, "seed", "recipe.seed was 0 and is 7."),
        (("machine", "threads"), 99, "machine", "and is 99."),
        (("machine", "torch"), "3", "version", "torch was"),
        (
            ("functions", "model/attention.py", "attend"),
            "0",
            "code",
            "The code differs in model/attention.py: attend, which has changed.",
        ),
        (
            ("functions", "model/attention.py", "attend_twice"),
            "0",
            "code",
            "model/attention.py: attend_twice, which is new.",
        ),
    ],
)
def test_one_change_is_one_sentence(path, value, kind, sentence):
    [found] = manifest_changes(BASE, changed(path, value))
    assert found.kind == kind
    assert sentence in str(found)
    [back] = manifest_changes(changed(path, value), BASE)
    assert back.kind == kind


def recorded(folder, manifest, **last):
    run = Run.create(folder, "x", manifest)
    run.append(step=1, loss=3.0)
    run.append(step=2, loss=2.0, **last)
    return run


def test_equal_runs_say_so(tmp_path):
    one, other = (recorded(tmp_path, BASE, held_out=2.5) for _ in range(2))
    assert compare(one, other) == [
        "Nothing that is recorded has changed.",
        "Held-out loss (nats per token) was 2.5000 and is 2.5000: 0.0000 more.",
    ]


def test_the_best_score_that_both_have_tells_the_cost(tmp_path):
    one = recorded(tmp_path, BASE, held_out=2.5, bits_per_byte=1.5)
    other = recorded(tmp_path, BASE, held_out=2.0, bits_per_byte=1.25)
    last = compare(one, other)[-1]
    assert last == "Bits per byte was 1.5000 and is 1.2500: 0.2500 less."
    third = recorded(tmp_path, BASE)
    last = compare(one, third)[-1]
    assert last.startswith("Mean loss of the last tenth of the steps was 2.0000")


def test_records_of_an_older_library_compare():
    old = [Run(PROJECT / "data/runs" / f"tour-seed-{seed}") for seed in (0, 1)]
    kinds = [c.kind for c in manifest_changes(old[0].manifest, old[1].manifest)]
    assert kinds == ["seed"]
    new = manifest_changes(old[0].manifest, BASE)
    assert any("does not say which functions" in str(c) for c in new)
    assert any(str(c).endswith("was not recorded and is 'adamw'.") for c in new)


def test_python_versions_that_cannot_be_compared_are_not():
    other = changed(("machine", "python"), "3.99.0")
    other["functions"] = {}
    found = [str(c) for c in manifest_changes(BASE, other) if c.kind == "code"]
    assert len(found) == 1 and "3.99" in found[0]


def test_a_whole_recipe_is_compared_key_by_key():
    other = make_manifest(
        replace(CONFIG, window=4), replace(RECIPE, clip=2.0, seed=3), "b", BYTES.name
    )
    names = {change.name for change in manifest_changes(BASE, other)}
    assert names == {"corpus", "model.window", "recipe.clip", "recipe.seed"}
