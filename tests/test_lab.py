"""The lab: evaluation against arithmetic, generation against probabilities, doctor."""

import json
import random
from collections import Counter
from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch

from cort33x_lib.lab import doctor, forecast
from cort33x_lib.lab.evaluation import Evaluation, evaluate, share_closed, unigram
from cort33x_lib.lab.generation import generate, narrow
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


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])


def test_temperature_divides_the_logits():
    expected = (LOGITS / 0.5).softmax(0)
    torch.testing.assert_close(narrow(LOGITS, 0.5, None, None), expected)
    assert narrow(LOGITS, 0, None, None).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 5, 50])
def test_top_k_keeps_the_k_likeliest(k):
    kept = narrow(LOGITS, 1.0, k, None)
    assert (kept > 0).sum() == min(k, 5)
    expected = [exp(x) for x in LOGITS[:k].tolist()]
    assert kept[0] == pytest.approx(expected[0] / sum(expected))


@pytest.mark.parametrize(("p", "count"), [(0.01, 1), (0.6, 1), (0.7, 2), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_p(p, count):
    kept = narrow(LOGITS, 1.0, None, p)
    assert (kept > 0).sum() == count
    assert kept.sum() == pytest.approx(1)


def test_generation_draws_what_the_model_expects():
    """Frequencies of 2,000 first tokens against the model's own probabilities."""
    model = random_model()
    drawn = Counter(
        next(generate(model, [7, 8], 1, top_k=4, seed=seed)) for seed in range(2000)
    )
    with torch.inference_mode():
        expected = narrow(model(torch.tensor([[7, 8]]))[0][0, -1], 1.0, 4, None)
    assert set(drawn) == set(expected.nonzero().flatten().tolist())
    for id, count in drawn.items():
        p = expected[id].item()
        assert abs(count - 2000 * p) < 5 * (2000 * p * (1 - p)) ** 0.5 + 1


def test_cached_greedy_equals_reading_all_again():
    model, ids = random_model(), [5, 6, 7]
    cached = list(generate(model, ids, 40, temperature=0))
    with torch.inference_mode():
        for id in cached:
            assert model(torch.tensor([ids]))[0][0, -1].argmax() == id
            ids.append(id)


def test_generation_is_seeded_and_stops():
    model = random_model()
    first = list(generate(model, [1], 30, seed=3))
    assert list(generate(model, [1], 30, seed=3)) == first
    assert list(generate(model, [1], 30, seed=4)) != first
    stopped = list(generate(model, [1], 30, seed=3, stop=first[5]))
    assert stopped == first[: first.index(first[5])]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt is empty"),
        ([1], {"temperature": -1}, "temperature is -1"),
        ([1], {"top_k": 0}, "top_k is 0"),
        ([1], {"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_impossible_wishes_are_refused(prompt, options, message):
    with pytest.raises(ValueError, match=message):
        next(generate(random_model(), prompt, 1, **options))


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
