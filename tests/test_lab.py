"""The lab: evaluation against arithmetic, grammar, doctor, forecast."""

import json
import random
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from cort33x_lib.lab import doctor, forecast
from cort33x_lib.lab.evaluation import Evaluation, evaluate, share_closed, unigram
from cort33x_lib.lab.grammar import Forms
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer

BYTES = Tokenizer(())
CONFIG = replace(CONFIGS["tiny"], vocabulary=BYTES.vocabulary)
TEXTS = ["a", "naïve café", "one two three four five", "", "the end"]


def tokens_of(texts):
    return encode_documents(BYTES, [Document(t, t, "here", "MIT") for t in texts])


def random_model(seed=0):
    model = Transformer(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_evaluation_equals_one_token_at_a_time(rows):
    model, end = random_model(), BYTES.specials["<|end|>"]
    expected, count = 0.0, 0
    for text in TEXTS:
        seen = [end]
        for id in [*BYTES.encode(text), end]:
            logits, _ = model(torch.tensor([seen]))
            expected -= logits[0, -1].double().log_softmax(0)[id].item()
            seen.append(id)
            count += 1
    found = evaluate(model, tokens_of(TEXTS), rows)
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert found.tokens == count
    assert found.nbytes == sum(len(text.encode()) for text in TEXTS)


def test_units():
    found = Evaluation(nats=8 * log(2), tokens=4, nbytes=2)
    assert found.bits_per_byte == pytest.approx(4)
    assert found.nats_per_token == pytest.approx(2 * log(2))


def test_a_document_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="65 tokens, the model's context only 64"):
        evaluate(random_model(), tokens_of(["x" * 64]))


def test_unigram_counts_every_token_and_one_more():
    training, held_out = tokens_of(["aab"]), tokens_of(["ab"])
    seen = 4 + 257
    expected = -log(3 / seen) - log(2 / seen) - log(2 / seen)
    assert unigram(training, held_out, 257).nats == pytest.approx(expected)


def test_share_closed():
    assert share_closed(5.0, 5.0, 1.0) == 0
    assert share_closed(5.0, 2.0, 1.0) == 0.75
    assert share_closed(5.0, 1.0, 1.0) == 1


def test_forms_know_sentences_and_refuse_disorder_and_invented_words():
    world = World.load()
    forms = Forms(world, (story.text for story in world.stories("train", 1500)))
    held_out = [story.text for story in world.stories("validation", 60)]
    assert sum(map(forms.share_known, held_out)) / 60 > 0.9
    chance = random.Random(0)
    disorder = [" ".join(chance.sample(t.split(), len(t.split()))) for t in held_out]
    assert sum(map(forms.share_known, disorder)) / 60 < 0.1
    assert forms.of("Mia had 3 plums.") == ["NAME had NUMBER PLURAL ."]
    assert forms.share_known("Once upon a time, Mia and Ben lived in Willowton.") == 1
    assert forms.share_known("Once upon a time, Mia and Ben lived in Wrxton.") == 0


def test_every_device_trains_as_the_cpu_does_in_double_precision():
    for device in doctor.devices():
        error = doctor.device_error(device)
        assert 0 < error <= doctor.TOLERANCE
    assert doctor.devices()[0] == "cpu"


def test_doctor_looks_at_everything_and_says_what_to_do():
    checks = {check.name: check for check in doctor.examine()}
    expected = {"Python", "PyTorch", "cores", "memory", "disk", "training on cpu"}
    assert expected <= set(checks)
    assert checks["Python"].passed and checks["PyTorch"].passed
    assert all(check.passed or check.remedy for check in checks.values())


def test_forecast_scales_each_part_with_its_probe(tmp_path):
    times = tmp_path / "times.json"
    recorded = {
        "speed": {"python": 100.0, "training": 10.0},
        "chapters": {"01": {"python": 20.0, "training": 60.0}},
    }
    times.write_text(json.dumps(recorded))
    here = forecast.Speed(python=200.0, training=5.0)
    assert forecast.forecast(here, times) == {"01": 10 + 120}


def test_speed_is_measured_within_its_time():
    speed = forecast.measure_speed(seconds=2)
    assert speed.python > 1e4
    assert speed.training > 10
    assert np.isfinite([speed.python, speed.training]).all()
