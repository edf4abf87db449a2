"""The whole model: its costs against real tensors, its loss, its first weights."""

from dataclasses import replace
from math import log

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cort33x_lib.model import loss
from cort33x_lib.model.config import CONFIGS, ModelConfig
from cort33x_lib.model.cost import (
    fit_to_budget,
    forward_flops,
    parameters,
    state_bytes,
    step_seconds,
    tokens_read,
)
from cort33x_lib.model.mixers import make_mixer
from cort33x_lib.model.positions import rotary_angles, rotate
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.model.window import reach

TINY = CONFIGS["tiny"]  # window 8


def random_model(config: ModelConfig, seed: int = 1) -> Transformer:
    """A float64 model in which every weight, the zeros of the start too, is random."""
    model = Transformer(config).double()
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


def test_state_counts_its_bytes_and_clones():
    model = Transformer(replace(TINY, pattern="WF"))
    _, states = model(torch.zeros(1, 20, dtype=torch.long))
    assert [s.keys.size(2) for s in states] == [TINY.window, 20]
    assert sum(state.nbytes for state in states) == state_bytes(model.config, 20)
    copy = states[0].clone()
    copy.keys.add_(1)
    assert not torch.equal(copy.keys, states[0].keys)
    assert copy.position.tolist() == [20]


def test_rotation_keeps_length_and_depends_on_distance_only():
    query, key = torch.randn(2, 1, 1, 1, 16).double()

    def score(a, b):
        angles = rotary_angles(torch.tensor([a, b]), 1, 16)
        return (rotate(query, angles[:1]) * rotate(key, angles[1:])).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101))
    assert (score(3, 1) - score(4, 1)).abs() > 1e-3
    turned = rotate(query, rotary_angles(torch.tensor([50]), 1, 16))
    torch.testing.assert_close(turned.norm(), query.norm())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_accounted_for(name):
    model = Transformer(CONFIGS[name])
    count = parameters(CONFIGS[name])
    real = {part: 0 for part in count}
    for weights_name, weights in model.named_parameters():
        part = next(
            part
            for part, mark in {
                "norms": "norm.gain",
                "mixers": ".mixer.",
                "feed-forward": ".feed_forward.",
                "embedding": "embedding",
                "residual": "residual",
            }.items()
            if mark in weights_name
        )
        real[part] += weights.numel()
    assert real == count


def test_named_models_have_these_parameters_to_the_last():
    counted = {name: sum(parameters(one).values()) for name, one in CONFIGS.items()}
    assert counted == {
        "tiny": 16_612,
        "tour": 1_049_992,
        "cort33x": 35_076_120,
        "uniform": 35_076_120,
    }


@pytest.mark.parametrize("name", ["cort33x", "uniform"])
def test_reference_model_and_its_control_fill_one_budget(name):
    config = CONFIGS[name]
    assert (len(config.pattern), config.heads, config.context) == (12, 6, 1024)
    assert replace(config, pattern="WWWF" * 3) == CONFIGS["cort33x"]
    assert fit_to_budget(config, 35_000_000) == config


@pytest.mark.parametrize("budget", [30_000, 100_000])
@pytest.mark.parametrize("pattern", ["F", "WF", "WWF"])
def test_budget_is_met_within_half_a_step(budget, pattern):
    config = fit_to_budget(replace(TINY, pattern=pattern), budget, multiple=1)
    off = abs(sum(parameters(config).values()) - budget)
    assert off <= config.channels * len(pattern)


def test_budget_too_small_is_refused():
    with pytest.raises(ValueError, match="budget of 100 parameters .* need"):
        fit_to_budget(TINY, 100)


def test_flops_equal_what_torch_counts():
    """Torch counts the masked half of attention as well; ours does not."""
    model = Transformer(replace(TINY, pattern="FF"))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 32, dtype=torch.long))
    ours = forward_flops(model.config, 32)
    masked = 2 * 2 * 32 * 32 * TINY.heads * TINY.head_channels * 2
    expected = 32 * (ours["projections"] + ours["feed-forward"] + ours["head"]) + masked
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("letter", "WS")
def test_flops_of_windows_are_those_that_torch_counts_less_what_blocks_hide(letter):
    model, tokens = Transformer(replace(TINY, pattern=letter * 2)), 200
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, tokens, dtype=torch.long))
    ours = forward_flops(model.config, tokens)
    others = tokens * (ours["projections"] + ours["feed-forward"] + ours["head"])
    pairs = sum(
        (rows.stop - rows.start) * (slots.stop - slots.start)
        for rows, slots in reach(tokens, tokens, TINY.window)
    )
    each = 2 * 4 * TINY.heads * TINY.head_channels  # two layers, a pair
    assert counter.get_total_flops() == others + each * pairs
    read = sum(min(t + 1, TINY.window) for t in range(tokens))
    assert tokens * ours["attention"] == pytest.approx(each * read)


@pytest.mark.parametrize(("tokens", "window"), [(20, 20), (5, 8), (20, 8), (1, 1)])
def test_tokens_read_is_the_mean_over_the_sequence(tokens, window):
    counted = sum(min(t + 1, window) for t in range(tokens)) / tokens
    assert tokens_read(tokens, window) == pytest.approx(counted)


def test_a_step_takes_longer_with_each_token_and_its_update_does_not():
    work = 3 * sum(forward_flops(TINY, 32).values())
    one, two = (step_seconds(TINY, 32, step, 1e6, 1e-6) for step in (64, 128))
    assert two - one == pytest.approx(64 * work / 1e6)
    assert 2 * one - two == pytest.approx(1e-6 * sum(parameters(TINY).values()))


@pytest.mark.parametrize("name", CONFIGS)
def test_first_loss_is_that_of_a_guess(name):
    model = Transformer(CONFIGS[name])
    V = CONFIGS[name].vocabulary
    ids = torch.randint(0, V, (4, 129), generator=torch.Generator().manual_seed(0))
    assert model.loss(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(log(V), abs=0.1)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_loss_in_chunks_is_the_whole_loss_with_its_gradients(rows, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", rows * 50)
    x, weight = torch.randn(64, 8).double(), torch.randn(50, 8).double()
    targets = torch.randint(0, 50, (64,))
    targets[::5] = -100
    x.requires_grad_(), weight.requires_grad_()
    expected = torch.nn.functional.cross_entropy(x @ weight.T, targets)
    ours = loss.chunked_loss(x, weight, targets)
    torch.testing.assert_close(ours, expected)
    wanted = torch.autograd.grad(3 * expected, (x, weight))
    torch.testing.assert_close(torch.autograd.grad(3 * ours, (x, weight)), wanted)


def test_a_second_backward_pass_through_the_loss_is_refused():
    """Gradients are scaled where they lie, so a second pass would scale them twice."""
    x, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    found = 3 * loss.chunked_loss(x, weight, torch.randint(0, 9, (6,)))
    found.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_targets_marked_as_not_counted_do_not_count():
    model = random_model(TINY)
    ids = torch.randint(0, TINY.vocabulary, (1, 9))
    targets = ids.roll(-1, dims=1)
    targets[:, 4:] = -100
    torch.testing.assert_close(
        model.loss(ids, targets), model.loss(ids[:, :4], targets[:, :4])
    )


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = Transformer(TINY, seed=3).state_dict()
    torch.manual_seed(2)
    second = Transformer(TINY, seed=3).state_dict()
    other = Transformer(TINY, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": 0}, "vocabulary is 0, expected a whole number from 1"),
        ({"heads": 2.0}, "heads is 2.0, expected a whole number"),
        ({"head_channels": 3}, "head_channels is 3, expected even"),
        ({"pattern": ""}, "pattern is empty"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_unknown_letter_is_named():
    with pytest.raises(ValueError, match="'Q', expected one of F, W"):
        make_mixer("Q", TINY)
