"""Positions: the rotation against complex numbers, five schemes, and their record."""

import json
from dataclasses import replace
from math import cos, inf, sin

import pytest
import torch

from benchmarks.record_positions import LENGTHS, RECORD, SEEDS, Slices, make_model
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.position_schemes import (
    SCHEMES,
    LearnedMarks,
    distance_bias,
    sinusoids,
)
from cort33x_lib.model.positions import rotary_angles, rotate
from cort33x_lib.model.transformer import Transformer

TINY = replace(CONFIGS["tiny"], pattern="FF")


def start(*places):
    return torch.tensor(places)


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def randomised(model, seed=1):
    """A float64 model in which every weight, the zeros of the start too, is random."""
    generator = torch.Generator().manual_seed(seed)
    for weights in model.double().parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("D", [2, 6, 16])
@pytest.mark.parametrize("tokens", [1, 9])
def test_rotation_is_a_product_of_complex_numbers(D, tokens):
    x, places = numbers(3, 2, tokens, D), (0, 5, 70_000)
    turned = rotate(x, rotary_angles(start(*places), tokens, D))
    for row, first in enumerate(places):
        for t in range(tokens):
            for pair in range(D // 2):
                angle = (first + t) * 10_000 ** (-2 * pair / D)
                before = torch.complex(x[row, :, t, pair], x[row, :, t, pair + D // 2])
                after = before * complex(cos(angle), sin(angle))
                found = turned[row, :, t, [pair, pair + D // 2]]
                expected = torch.stack([after.real, after.imag], dim=1)
                torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_rotation_has_the_gradient_of_finite_differences_twice():
    angles = rotary_angles(start(3), 4, 6)
    x = numbers(1, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, angles), x)
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, angles), x)


def test_rotation_leaves_what_it_is_given_as_it_was():
    x = numbers(2, 2, 5, 8).transpose(1, 2).contiguous().transpose(1, 2)
    before = x.clone()
    turned = rotate(x, rotary_angles(start(1, 2), 5, 8))
    assert torch.equal(x, before)
    assert torch.equal(turned, rotate(before, rotary_angles(start(1, 2), 5, 8)))


def test_scores_depend_on_distance_only_and_lengths_stay():
    query, key = numbers(2, 1, 1, 1, 16)

    def score(a, b):
        angles = rotary_angles(start(a, b), 1, 16)
        return (rotate(query, angles[:1]) * rotate(key, angles[1:])).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101))
    assert (score(3, 1) - score(4, 1)).abs() > 1e-3
    turned = rotate(query, rotary_angles(start(50), 1, 16))
    torch.testing.assert_close(turned.norm(), query.norm())


def test_each_row_has_angles_of_its_own():
    x, places = numbers(3, 2, 4, 8), (0, 9, 9)
    together = rotate(x, rotary_angles(start(*places), 4, 8))
    alone = [
        rotate(x[row : row + 1], rotary_angles(start(place), 4, 8))
        for row, place in enumerate(places)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_angles_first_asked_for_without_gradients_serve_training_too(mode):
    place = {torch.inference_mode: 1234, torch.no_grad: 4321}[mode]
    with mode():
        rotate(numbers(1, 1, 3, 4), rotary_angles(start(place), 3, 4))
    x = numbers(1, 1, 3, 4).requires_grad_()
    rotate(x, rotary_angles(start(place), 3, 4)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_keeps_the_type_and_is_close_to_float64(dtype):
    x, angles = numbers(1, 2, 6, 16), rotary_angles(start(1000), 6, 16)
    turned = rotate(x.to(dtype), angles)
    assert turned.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(
        turned.double(), rotate(x, angles), atol=tolerance, rtol=0
    )


def test_waves_are_the_sines_and_cosines_of_the_formula():
    waves = sinusoids(50, 8)
    for place in range(50):
        for pair in range(4):
            angle = place * 10_000 ** (-2 * pair / 8)
            assert waves[place, pair].item() == pytest.approx(sin(angle), abs=1e-6)
            assert waves[place, pair + 4].item() == pytest.approx(cos(angle), abs=1e-6)


@pytest.mark.parametrize("heads", [1, 4, 6, 8])
def test_distance_bias_is_the_formula(heads):
    bias = distance_bias(7, heads)
    for head in range(heads):
        for t in range(7):
            for s in range(7):
                slope = 2 ** (-8 * (head + 1) / heads)
                expected = -slope * (t - s) if s <= t else -inf
                assert bias[0, head, t, s].item() == pytest.approx(expected)


def test_a_table_of_marks_has_an_end():
    marks = LearnedMarks(TINY)
    assert marks.mark(torch.zeros(1, TINY.context, TINY.channels)).isfinite().all()
    message = "65 tokens, expected at most 64"
    with pytest.raises(ValueError, match=message):
        marks.mark(torch.zeros(1, TINY.context + 1, TINY.channels))


def test_the_rotary_scheme_is_what_the_mixers_do():
    ours, theirs = randomised(make_model("rotary", TINY, 3)), Transformer(TINY, 3)
    randomised(theirs)
    ids = torch.arange(40).view(2, 20)
    torch.testing.assert_close(ours(ids)[0], theirs(ids)[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scheme_shows_the_future(scheme):
    model = randomised(make_model(scheme, TINY, 0))
    ids = torch.arange(20).unsqueeze(0)
    before, _ = model(ids)
    for t in (0, 7, 18):
        changed = ids.clone()
        changed[:, t + 1 :] += 1
        assert torch.equal(model(changed)[0][:, : t + 1], before[:, : t + 1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_alone_sets_the_arms_of_the_study_apart(scheme):
    """Same first weights, and what the scheme adds learns and does not decay."""
    model, plain = make_model(scheme, TINY, 5), Transformer(TINY, 5)
    ours = {
        name.replace(".mixer.mixer", ".mixer"): w
        for name, w in model.named_parameters()
    }
    for name, weights in plain.named_parameters():
        assert torch.equal(ours.pop(name), weights)
    assert all(name.startswith("embedding.") for name in ours)
    model.loss(torch.arange(10).view(1, 10), torch.arange(1, 11).view(1, 10)).backward()
    assert all(weights.grad.abs().sum() > 0 for weights in ours.values())


@pytest.mark.parametrize(
    ("scheme", "layers", "seen"),
    [
        ("none", 1, False),
        ("none", 2, True),
        ("sinusoidal", 1, True),
        ("learned", 1, True),
        ("rotary", 1, True),
        ("distance bias", 1, True),
    ],
)
def test_order_of_what_was_read(scheme, layers, seen):
    config = replace(TINY, pattern="F" * layers)
    model = randomised(make_model(scheme, config, 0))
    ids = torch.tensor([[1, 2, 3, 4, 5, 9], [4, 1, 5, 2, 3, 9]])
    last = model(ids)[0][:, -1]
    assert torch.allclose(last[0], last[1], atol=1e-10) != seen


def test_rows_of_the_study_follow_from_seed_and_step():
    ids = torch.arange(1000).numpy()
    rows = Slices(ids, 4, 16, seed=1)
    inputs, targets = rows[7]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(inputs[:, :1] + torch.arange(16), inputs)
    assert torch.equal(Slices(ids, 4, 16, seed=1)[7][0], inputs)
    assert not torch.equal(rows[8][0], inputs)
    assert not torch.equal(Slices(ids, 4, 16, seed=2)[7][0], inputs)


def test_the_record_holds_every_arm_of_the_plan():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    arms = [(run["scheme"], run["seed"]) for run in record["runs"]]
    assert arms == [(scheme, seed) for scheme in SCHEMES for seed in SEEDS]
    for run in record["runs"]:
        assert [int(length) for length in run["nats"]] == list(LENGTHS)
        for length, windows in run["windows"].items():
            mean = sum(windows) / len(windows)
            assert mean == pytest.approx(run["nats"][length], abs=1e-4)
