"""The clinic: faults do what they say, records tell no tales, the checker is fair."""

import importlib.util
import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from cort33x_lib.lab import clinic
from cort33x_lib.lab.diagnoses import APART, DIAGNOSES, HEALTHY
from cort33x_lib.lab.faults import FAULTS, admit, observe
from cort33x_lib.lab.launch import Training
from cort33x_lib.lab.plan import read_plan
from cort33x_lib.training.schedule import learning_rate
from run import ROOT

CASES = [f"case-{number:02d}" for number in range(1, 16)]
SCRIPT = ROOT / "benchmarks" / "record_clinic.py"


def recorder():
    spec = importlib.util.spec_from_file_location("record_clinic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ill(fault=None, **changes):
    recipe = {"steps": 6, "accumulation": 4, "examine_every": 3} | changes
    plan = read_plan("tiny", changes=[f"recipe.{k}={v}" for k, v in recipe.items()])
    plan = replace(plan, model=replace(plan.model, pattern="WFWF"))
    patient = admit(Training(plan))
    if fault:
        FAULTS[fault](patient)
    return patient


@pytest.fixture(scope="module")
def well():
    return list(observe(ill()))


# --- the faults


def test_summed_gradients_are_longer_by_the_number_of_micro_batches(well):
    found = next(observe(ill("unscaled accumulation")))
    assert found["loss"] == pytest.approx(well[0]["loss"], abs=1e-6)
    assert found["gradient_norm"] == pytest.approx(4 * well[0]["gradient_norm"], 1e-4)


def test_a_shifted_target_is_the_token_after_the_next():
    inputs, right = ill().batches[3]
    seen, asked = ill("shifted target").batches[3]
    assert torch.equal(seen, inputs[:, :-1]) and torch.equal(asked, right[:, 1:])


def test_a_lost_mask_lets_a_token_read_what_comes_after_it():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 512, (1, 12), generator=generator)
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 512
    for fault, leaks in ((None, False), ("leaking mask", True)):
        model = ill(fault).model
        for weights in model.parameters():
            weights.data.normal_(0, 0.3, generator=generator)
        before, after = (model(x)[0][0, :-1] for x in (ids, changed))
        assert torch.equal(before, after) != leaks


def test_unshuffled_rows_come_sorted_and_come_again():
    patient = ill("unshuffled data")
    batches, training = patient.batches, patient.training
    ordered = sorted(training.documents, key=lambda document: document.text)
    length, count = batches.length, len(ordered)
    for number in (0, 1, count // 2, count - 1, count, 2 * count + 3):
        begun = training.tokenizer.encode(ordered[number % count].text)[:length]
        assert batches.row(number)[1:].tolist() == begun  # a document fills a row
    other = ill("unshuffled data", seed=5).batches
    assert np.array_equal(batches.row(7), other.row(7))


def test_validation_in_training_adds_the_held_out_documents_and_no_others():
    patient = ill("validation in training")
    tokens, training = patient.batches.tokens, patient.training
    documents = {tuple(tokens.document(n)) for n in range(len(tokens))}
    held_out = training.held_out
    examined = {tuple(held_out.document(n)) for n in range(len(held_out))}
    own = {tuple(training.tokens.document(n)) for n in range(len(training.tokens))}
    assert documents == own | examined and examined - own


def test_a_wrong_tokenizer_has_as_many_ids_that_mean_something_else():
    patient = ill("wrong tokenizer")
    right = patient.training.tokenizer
    tokens = patient.batches.tokens
    assert tokens.tokenizer != right.name and tokens.ids.max() < right.vocabulary
    read = right.decode([int(id) for id in tokens.document(0)[:-1]])
    assert read != patient.training.documents[0].text


def test_rates_that_the_optimizer_gets_are_not_those_that_are_recorded(well):
    flat, spiked = ill("schedule never decays"), ill("learning-rate spike")
    recipe = flat.training.plan.recipe
    asked = [learning_rate(recipe, step) for step in range(1, 7)]
    assert [line["learning_rate"] for line in well] == asked
    rates = []
    for measured in observe(flat):
        rates.append(flat.optimizer.param_groups[0]["lr"])
        assert measured["learning_rate"] == asked[measured["step"] - 1]
    assert rates == [asked[0], *[recipe.peak_rate] * 5]
    ratios = [spiked.rate(step) / rate for step, rate in enumerate(asked, 1)]
    assert ratios == pytest.approx([1, 1, 10, 10, 10, 1])


def test_an_epsilon_too_large_makes_updates_small(well):
    found = list(observe(ill("large epsilon")))
    for line, usual in zip(found, well, strict=True):
        for name in ("blocks.0.mixer", "blocks.3.feed_forward"):
            assert line["update_ratios"][name] < 0.5 * usual["update_ratios"][name]


def test_a_dead_layer_has_no_gradient_and_a_frozen_one_no_update(well):
    dead, frozen = (list(observe(ill(n))) for n in ("dead layer", "frozen embedding"))
    group = "blocks.2.feed_forward"
    for line, still, usual in zip(dead, frozen, well, strict=True):
        assert line["gradient_norms"][group] == line["update_ratios"][group] == 0
        assert usual["gradient_norms"][group] > 0
        assert still["gradient_norms"]["embedding"] > 0
        assert still["update_ratios"]["embedding"] == 0
        assert still["update_ratios"][group] > 0


def test_a_wrong_decay_is_a_hundred_times_the_right_one_on_matrices_only():
    decays = [
        [group["weight_decay"] for group in patient.optimizer.param_groups]
        for patient in (ill(), ill("wrong weight decay"))
    ]
    assert decays[1] == [100 * decay for decay in decays[0]] and decays[0][1] == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_meant_is_recorded_and_not_what_was_done(fault):
    healthy, patient = ill(), ill(fault)
    manifests = [p.training.manifest() | {"started": ""} for p in (healthy, patient)]
    assert manifests[0] == manifests[1]
    line = next(observe(patient))
    assert line.keys() == next(observe(healthy)).keys()


# --- signals and symptoms


def steady(losses, ratios=None, norms=None):
    ratios = ratios or [0.01] * len(losses)
    norms = norms or {"blocks.0.mixer": 1.0, "blocks.0.feed_forward": 1.0}
    return [
        {
            "step": step,
            "loss": loss,
            "gradient_norm": 2.0,
            "held_out": loss + 0.5,
            "update_ratios": dict.fromkeys(norms, ratio),
            "gradient_norms": norms,
            "bytes": 400 * step,
            "tokens": 100 * step,
        }
        for step, (loss, ratio) in enumerate(zip(losses, ratios, strict=True), start=1)
    ]


NOISE = np.random.default_rng(0).normal(0, 0.02, 100)
FALLING = [5 - 0.03 * step + noise for step, noise in enumerate(NOISE)]


def test_signals_measure_what_they_are_named_after():
    waves = [loss + 0.3 * (step % 20 == 7) for step, loss in enumerate(FALLING)]
    still = clinic.read_signals(steady(FALLING, [0.01] * 90 + [0.001] * 10))
    assert still["gap"] == pytest.approx(0.5 + FALLING[-1] - np.mean(FALLING[83:]))
    assert still["turn"] < 1.02 and still["gradient norm"] == 2
    assert still["settling"] == pytest.approx(0.1) and still["burst"] == 1
    assert still["bytes a token"] == 4 and still["groups without update"] == 0
    assert clinic.read_signals(steady(waves))["echo"] > 0.9
    assert clinic.read_signals(steady(waves))["loss jump"] > 0.2
    spike = clinic.read_signals(steady(FALLING, [0.01] * 60 + [0.1] * 3 + [0.01] * 37))
    assert spike["burst"] == pytest.approx(10)
    dead = {"blocks.0.mixer": 1.0, "blocks.1.mixer": 0.0, "residual": 0.0}
    found = clinic.read_signals(steady(FALLING, norms=dead))
    assert found["groups without gradient"] == 1


def test_a_signal_is_high_or_low_only_far_outside_the_references():
    noise = np.random.default_rng(0)
    references = {
        name: steady([loss + noise.normal(0, 0.02) for loss in FALLING])
        for name in "abc"
    }
    healthy = clinic.bands(references)
    for metrics in references.values():
        assert clinic.symptoms(metrics, healthy) == {}
    worse = clinic.symptoms(steady([loss + 4 for loss in FALLING]), healthy)
    assert worse["training loss"] == worse["held-out loss"] == "high"
    small = clinic.symptoms(steady(FALLING, [0.001] * 100), healthy)
    assert small["update"] == "low" and clinic.suspect(small) == "large epsilon"
    assert clinic.suspect({}) == HEALTHY


# --- the records


def test_there_is_one_case_for_each_fault_and_three_healthy_ones():
    cases, references = clinic.load()
    assert list(cases) == CASES and len(references) == 3
    names = sorted(clinic.truth(case) for case in CASES)
    assert names == sorted([*FAULTS, *[HEALTHY] * 3])
    assert set(DIAGNOSES) == {*FAULTS, HEALTHY}
    steps = {len(run) for run in (*cases.values(), *references.values())}
    assert steps == {recorder().PLAN.recipe.steps}


def test_a_manifest_says_what_was_meant_and_nothing_else():
    meant = []
    for path in sorted(clinic.FOLDER.glob("*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["recipe"].pop("seed")
        for changing in ("started", "code", "machine"):
            manifest.pop(changing)
        meant.append(manifest)
    assert len(meant) == 18 and all(one == meant[0] for one in meant)


def test_no_file_says_an_answer_in_plain_words():
    size = 0
    for path in clinic.FOLDER.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [name for name in FAULTS if name in text]
            size += len(text)
    print(f"the clinic takes {size / 1e6:.2f} MB")
    assert size < 3e6


@pytest.mark.parametrize("place", [0, 7, 14])
def test_the_script_makes_the_recorded_steps_again(place):
    script, case = recorder(), CASES[place]
    recipe = replace(script.PLAN.recipe, seed=101 + place)
    patient = admit(Training(replace(script.PLAN, recipe=recipe)))
    diagnosis = script.assign()[case]
    assert diagnosis == clinic.truth(case)
    if diagnosis != HEALTHY:
        FAULTS[diagnosis](patient)
    recorded = clinic.load()[0][case]
    for line, kept in zip(islice(observe(patient), 2), recorded, strict=False):
        assert line["loss"] == pytest.approx(kept["loss"], rel=2e-3)
        assert line["gradient_norm"] == pytest.approx(kept["gradient_norm"], rel=2e-2)


# --- the checker


@pytest.mark.parametrize("case", CASES)
def test_one_answer_of_thirteen_is_right_and_no_wrong_one_betrays_it(case):
    right = clinic.truth(case)
    for answer in DIAGNOSES:
        said = clinic.diagnose(case, answer)
        assert said.startswith("Right") == (answer == right)
        if answer == right:
            assert DIAGNOSES[right] in said
        else:
            assert said.startswith(f"Not {answer}")
            assert answer == HEALTHY or len(said) > 60
            assert right == HEALTHY or right not in said


def test_plausible_mistakes_get_a_sentence_of_their_own():
    replies = {}
    for case in CASES:
        right = clinic.truth(case)
        for answer in DIAGNOSES:
            if (right, answer) in APART:
                replies[right, answer] = clinic.diagnose(case, answer)
    assert replies.keys() == APART.keys()
    assert all(APART[pair] in said for pair, said in replies.items())


def test_what_is_no_diagnosis_is_said_to_be_none():
    assert "place of None" in clinic.diagnose("case-01", None)
    assert "'dead layer'?" in clinic.diagnose("case-01", "Dead Layers")
    assert "expected one of" in clinic.diagnose("case-01", 7)
    assert "No diagnosis" in clinic.diagnose("case-01", [])
    with pytest.raises(ValueError, match="no case 'case-16', expected one of case-01"):
        clinic.diagnose("case-16", HEALTHY)


def test_the_score_card_counts_right_wrong_and_open():
    answers = {case: clinic.truth(case) for case in CASES[:4]}
    answers[CASES[1]] = None
    answers[CASES[2]] = "nonsense"
    marks = [mark for _, _, mark in clinic.score_card(answers)]
    assert marks == ["right", "open", "wrong", "right"]
