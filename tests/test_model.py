"""The model room against naive references, and its costs against real tensors."""

from dataclasses import replace
from itertools import product
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
    tokens_read,
)
from cort33x_lib.model.mixers import MIXERS, make_mixer
from cort33x_lib.model.positions import rotary_angles, rotate
from cort33x_lib.model.transformer import Transformer

TINY = CONFIGS["tiny"]  # window 8


def random_model(config: ModelConfig, seed: int = 1) -> Transformer:
    """A float64 model in which every weight, the zeros of the start too, is random."""
    model = Transformer(config).double()
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


def random_mixer(letter: str, config: ModelConfig = TINY):
    return random_model(replace(config, pattern=letter)).blocks[0].mixer


def naive_attention(mixer, x, window):
    """One query, one head, one key at a time: nothing to get wrong but the formula."""
    B, T, _ = x.shape
    H, D = mixer.heads, mixer.head_channels
    G = mixer.key_value_heads
    joint = mixer.project_in(x).view(B, T, H + 2 * G, D)

    def turn(vector, position, gain):
        vector = (
            gain * vector / (vector.square().mean() + torch.finfo(x.dtype).eps).sqrt()
        )
        turned = vector.clone()
        for pair in range(D // 2):
            angle = torch.tensor(position * 10_000.0 ** (-2 * pair / D), dtype=x.dtype)
            left, right = vector[pair], vector[pair + D // 2]
            turned[pair] = left * angle.cos() - right * angle.sin()
            turned[pair + D // 2] = left * angle.sin() + right * angle.cos()
        return turned

    out = torch.zeros(B, T, H, D, dtype=x.dtype)
    for b, t, h in product(range(B), range(T), range(H)):
        query = turn(joint[b, t, h], t, mixer.query_gain)
        seen = range(max(0, t - window + 1), t + 1)
        key = H + h * G // H
        keys = [turn(joint[b, s, key], s, mixer.key_gain) for s in seen]
        scores = torch.stack([query @ key / D**0.5 for key in keys])
        weights = (scores - scores.max()).exp()
        weights = weights / weights.sum()
        out[b, t, h] = sum(
            w * joint[b, s, key + G] for w, s in zip(weights, seen, strict=True)
        )
    return mixer.project_out(out.flatten(2))


@pytest.mark.parametrize("letter", "FW")
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 20])
def test_mixer_equals_naive_attention(letter, tokens):
    mixer, x = random_mixer(letter), torch.randn(2, tokens, 32).double()
    expected = naive_attention(mixer, x, TINY.window if letter == "W" else tokens)
    torch.testing.assert_close(mixer(x)[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("letter", MIXERS)
@pytest.mark.parametrize("tokens", [5, 11])
def test_gradients_equal_finite_differences(letter, tokens):
    config = replace(TINY, channels=6, heads=2, head_channels=4, window=4)
    mixer = random_mixer(letter, config)
    x = torch.randn(1, tokens, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mixer(x)[0], x)


@pytest.mark.parametrize("letter", MIXERS)
def test_no_token_reads_the_future(letter):
    mixer, x = random_mixer(letter), torch.randn(1, 33, 32).double()
    before = mixer(x)[0]
    for t in (0, 6, 7, 8, 9, 15, 16, 17, 31):
        changed = x.clone()
        changed[:, t + 1 :] += 1
        assert torch.equal(mixer(changed)[0][:, : t + 1], before[:, : t + 1])


def test_window_ends_exactly_where_it_should():
    mixer, x = random_mixer("W"), torch.randn(1, 20, 32).double()
    x.requires_grad_()
    for t in (7, 8, 9, 19):
        (gradient,) = torch.autograd.grad(mixer(x)[0][0, t].sum(), x)
        read = gradient[0].abs().sum(dim=1) > 0
        assert read.nonzero().flatten().tolist() == list(range(max(0, t - 7), t + 1))


@pytest.mark.parametrize("window", [20, 21, 500])
def test_a_window_that_holds_everything_is_full_attention(window):
    config = replace(TINY, window=window)
    x = torch.randn(2, 20, 32).double()
    windowed, full = random_mixer("W", config), random_mixer("F", config)
    torch.testing.assert_close(windowed(x)[0], full(x)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "pattern", ["".join(p) for n in (1, 2, 3) for p in product(MIXERS, repeat=n)]
)
def test_reading_in_parts_equals_reading_at_once(pattern):
    """Any prefix at once, then token by token, across every window edge."""
    model = random_model(replace(TINY, pattern=pattern))
    ids = torch.randint(0, TINY.vocabulary, (2, 20))
    whole, _ = model(ids)
    for prefix in (1, 6, 7, 8, 9, 15, 16, 17, 19):
        logits, states = model(ids[:, :prefix])
        parts = [logits]
        for t in range(prefix, 20):
            logits, states = model(ids[:, t : t + 1], states)
            parts.append(logits)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-10, rtol=0)
        assert all((state.position == 20).all() for state in states)
    logits, states = model(ids[:, :5])
    rest, _ = model(ids[:, 5:], states)  # many tokens at once after a state
    torch.testing.assert_close(rest, whole[:, 5:], atol=1e-10, rtol=0)


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


def test_reference_model_has_35_million_parameters():
    config = CONFIGS["cort33x"]
    assert (len(config.pattern), config.heads, config.context) == (12, 6, 1024)
    assert sum(parameters(config).values()) == 35_076_120
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


@pytest.mark.parametrize(("tokens", "window"), [(20, 20), (5, 8), (20, 8), (1, 1)])
def test_tokens_read_is_the_mean_over_the_sequence(tokens, window):
    counted = sum(min(t + 1, window) for t in range(tokens)) / tokens
    assert tokens_read(tokens, window) == pytest.approx(counted)


def test_first_loss_is_that_of_a_guess():
    model = Transformer(CONFIGS["tour"])
    V = CONFIGS["tour"].vocabulary
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
