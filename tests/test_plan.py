"""Plans: a run in one description, from names, files and changes, and its start."""

from dataclasses import replace

import pytest

from cort33x_lib.lab.launch import HELD_OUT, TRAIN, Training, launch, reopen
from cort33x_lib.lab.plan import PLANS, CorpusPlan, plan_of, read_plan
from cort33x_lib.model.cost import parameters
from cort33x_lib.text.corpus import Document, save_corpus
from cort33x_lib.training.record import OF_THE_MACHINE, Run


def test_the_models_of_the_plans_have_these_parameters():
    counted = {
        name: sum(parameters(plan.model).values()) for name, plan in PLANS.items()
    }
    assert counted == {
        "tiny": 30_948,
        "tour": 1_049_992,
        "small": 1_049_992,
        "cort33x": 35_076_120,
    }


def test_name_file_and_changes_in_this_order(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(
        'plan = "tiny"\n[recipe]\nsteps = 30\nclip = 2\n[model]\nwindow = 4\n'
    )
    changes = ["recipe.steps=40", "model.pattern=FF", "recipe.betas=[0.8, 0.9]"]
    plan = read_plan("tour", file, changes)
    assert (plan.recipe.steps, plan.recipe.clip, plan.model.window) == (40, 2.0, 4)
    assert (plan.model.pattern, plan.recipe.betas) == ("FF", (0.8, 0.9))
    assert plan.corpus == PLANS["tiny"].corpus


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipe.stepz=3", "no key 'recipe.stepz', expected one of recipe.steps"),
        ("recipes.steps=3", "no key 'recipes', expected one of recipe"),
        (
            "recipe.steps=many",
            "recipe.steps is 'many', expected a whole number like 20",
        ),
        ("recipe.steps=1.5", "recipe.steps is 1.5"),
        ("recipe.compiled=yes", "is 'yes', expected true or false, like false"),
        ("recipe.peak_rate=fast", "is 'fast', expected a number like 0.003"),
        ("recipe.betas=0.9", r"is 0.9, expected a list like \[0.9, 0.95\]"),
        ("recipe.steps=0", "steps is 0, expected a whole number from 1"),
        ("recipe.seed=-1", "seed is -1, expected a whole number from 0"),
        ("recipe.clip=-1", "clip is -1.0, expected above 0"),
        ("recipe.clip=NaN", "clip is nan, expected above 0"),
        ("recipe.decay=-1", "decay is -1.0, expected 0 or more"),
        ("recipe.betas=[0.9]", r"betas are \(0.9,\), expected two numbers from 0"),
        ("recipe.betas=[0.9, 1]", "expected two numbers from 0 to below 1"),
        ('recipe.betas=[0.9, "x"]', "expected two numbers from 0 to below 1"),
        ("corpus.documents=0", "corpus.documents is 0, expected a whole number from 1"),
        ("corpus.held_out=-5", "corpus.held_out is -5, expected a whole number from"),
        ("tokenizer.documents=0", "tokenizer.documents is 0, expected a whole number"),
        ("steps=3", "expected part.key=value"),
        ("recipe.steps", "expected part.key=value"),
    ],
)
def test_a_change_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read_plan("tiny", changes=[change])


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    file = tmp_path / "plan.toml"
    for text, message in [
        ("recipe = 3", "expected a table"),
        ("recipe = {", "is not TOML"),
        ('plan = "tinny"', "no plan 'tinny', expected one of tiny"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_plan("tour", file)


def without_times(metrics):
    return [{k: v for k, v in m.items() if k not in OF_THE_MACHINE} for m in metrics]


def test_a_run_goes_on_from_its_manifest_alone(tmp_path, monkeypatch):
    plan = PLANS["tiny"]
    whole = launch(plan, "whole", tmp_path)
    list(whole.steps())
    part = launch(plan, "part", tmp_path)
    for measured in part.steps():
        if measured["step"] == 7:
            break
    with monkeypatch.context() as patched:
        for name in ("collect", "train_tokenizer", "encode_documents"):
            patched.delattr(f"cort33x_lib.lab.launch.{name}")  # the run keeps its own
        again = reopen(Run(part.run.folder))
    assert again.plan == plan == plan_of(part.run.manifest)
    list(again.steps())
    assert without_times(again.run.metrics()) == without_times(whole.run.metrics())
    assert [m["step"] for m in whole.run.metrics() if "held_out" in m] == [10, 20]
    assert whole.floor < whole.examine(whole.model)


def test_a_corpus_of_ones_own_is_split_by_unit_and_cut_to_the_context(tmp_path):
    documents = [
        Document(f"The number {n} " * 300, f"unit {n}", f"file {n}", "CC0-1.0")
        for n in range(120)
    ]
    save_corpus(tmp_path / "corpus", documents)
    plan = replace(
        PLANS["tiny"], corpus=CorpusPlan(str(tmp_path / "corpus"), 1000, 1000)
    )
    plan = replace(plan, model=replace(plan.model, vocabulary=300))
    training = Training(plan)
    assert len(training.documents) + len(training.examined) == 120
    units = {d.unit for d in training.documents} & {d.unit for d in training.examined}
    assert not units and training.floor is None
    assert len(training.held_out) > len(training.examined)
    assert training.held_out.nbytes.sum() == sum(d.nbytes for d in training.examined)
    assert training.examine(training.model) > 5


def test_token_files_that_were_never_written_are_made_again(tmp_path):
    """As where a process was killed between the manifest and the last of them."""
    training = launch(PLANS["tiny"], "run", tmp_path)
    kept = {name: training.run.folder / name for name in (TRAIN, HELD_OUT)}
    before = {name: path.read_bytes() for name, path in kept.items()}
    for missing in ([HELD_OUT], [TRAIN, HELD_OUT], [TRAIN, HELD_OUT, "tokenizer.json"]):
        for name in missing:
            (training.run.folder / name).unlink()
        reopen(training.run)
        assert {name: path.read_bytes() for name, path in kept.items()} == before


def test_token_files_that_are_not_the_runs_are_refused(tmp_path):
    one = launch(PLANS["tiny"], "one", tmp_path)
    other = replace(PLANS["tiny"], corpus=CorpusPlan(documents=150))
    other = launch(other, "other", tmp_path)
    path = one.run.folder / TRAIN
    mine = path.read_bytes()
    broken = bytearray(mine)
    broken[len(mine) // 2] ^= 1
    for content, message in [
        ((other.run.folder / TRAIN).read_bytes(), "the corpus of .* was .* today"),
        (mine[:-8], "train.tokens has .* bytes, expected"),
        (broken, "train.tokens is damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            reopen(one.run)
    path.write_bytes(mine)
    assert reopen(one.run).tokens.ids.tobytes() == one.tokens.ids.tobytes()


def test_a_run_of_another_kind_cannot_go_on(tmp_path):
    training = launch(PLANS["tiny"], "run", tmp_path)
    training.run.manifest["tokenizer"] = "0" * 64
    with pytest.raises(ValueError, match="the tokenizer of .* was 000000000000, today"):
        reopen(training.run)
    del training.run.manifest["plan"]
    with pytest.raises(ValueError, match="not started from a plan"):
        reopen(training.run)
