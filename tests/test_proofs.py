"""Proofs that every mixer must pass: a new letter of MIXERS is tried by itself.

Each is compared with a formula written token by token in float64, with itself read in
other parts, in other company or with another future, and with what it must become when
a number of it is at its limit.
"""

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch.func import functional_call

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.mixers import MIXERS, make_mixer
from cort33x_lib.model.reference import naive_latent, naive_mixer
from cort33x_lib.model.transformer import Transformer

WINDOW, CHUNK = 5, 64  # tokens; CHUNK is that of the delta rule
SMALL = ModelConfig(
    vocabulary=16,
    context=160,
    channels=12,
    heads=4,
    key_value_heads=2,
    head_channels=4,
    feed_forward=16,
    pattern="F",
    window=WINDOW,
    latent_channels=6,
)


def shaken(module, seed=1):
    """Weights, the zeros and ones of the start too, become random."""
    generator = torch.Generator().manual_seed(seed)
    for weights in module.parameters():
        weights.data.normal_(0, 0.5, generator=generator)
    return module


def make(letter, dtype=torch.float64, **changes):
    return shaken(make_mixer(letter, replace(SMALL, **changes))).to(dtype)


def channels(*shape, dtype=torch.float64, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def read_in_parts(mixer, x, edges):
    """What a mixer makes of x when it reads up to each edge in turn."""
    state, parts = None, []
    for start, end in pairwise((0, *edges, x.size(1))):
        y, state = mixer(x[:, start:end], state)
        parts.append(y)
    return torch.cat(parts, dim=1), state


REFERENCES = {  # that of D is written out in test_delta.py
    "F": naive_mixer,
    "W": lambda mixer, x: naive_mixer(mixer, x, WINDOW),
    "S": lambda mixer, x: naive_mixer(mixer, x, WINDOW, mixer.sinks),
    "L": naive_latent,
}


@pytest.mark.parametrize("letter", [letter for letter in MIXERS if letter != "D"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)]
)
@pytest.mark.parametrize("tokens", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 2])
def test_a_mixer_is_its_formula(letter, dtype, tolerance, tokens):
    mixer, x = make(letter, dtype), channels(2, tokens, 12, dtype=dtype)
    expected = REFERENCES[letter](mixer, x)
    off = (mixer(x)[0] - expected).abs().max()
    assert off < tolerance * expected.abs().max()


@pytest.mark.parametrize("letter", MIXERS)
def test_no_token_reads_the_future_or_another_row(letter):
    mixer, x = make(letter), channels(2, CHUNK + 8, 12)
    before = mixer(x)[0]
    W, C, T = WINDOW, CHUNK, x.size(1)
    for t in (0, W - 2, W - 1, W, W + 1, 2 * W, C - 2, C - 1, C, C + 1, T - 2):
        changed = x.clone()
        changed[0, t + 1 :] = 10 * channels(T - t - 1, 12, seed=t)
        after = mixer(changed)[0]
        assert torch.equal(after[0, : t + 1], before[0, : t + 1])
        assert torch.equal(after[1], before[1])
        assert not torch.equal(after[0], before[0])


@pytest.mark.parametrize("letter", MIXERS)
def test_a_token_reads_exactly_as_far_back_as_it_should(letter):
    mixer, x = make(letter), channels(1, 4 * WINDOW, 12).requires_grad_()
    reach = WINDOW if letter in "WS" else x.size(1)
    y = mixer(x)[0]
    for t in range(x.size(1)):
        (slope,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        read = slope[0].abs().sum(dim=1).nonzero().flatten().tolist()
        assert read == list(range(max(0, t - reach + 1), t + 1))


def test_a_stack_of_all_mixers_reads_no_future():
    model = shaken(Transformer(replace(SMALL, pattern="".join(MIXERS)))).double()
    ids = torch.randint(0, 16, (1, 30), generator=torch.Generator().manual_seed(0))
    before = model(ids)[0]
    for t in range(29):
        changed = ids.clone()
        changed[0, t + 1 :] = (changed[0, t + 1 :] + 1) % 16
        assert torch.equal(model(changed)[0][0, : t + 1], before[0, : t + 1])


@pytest.mark.parametrize("letter", MIXERS)
def test_any_prefix_then_token_by_token_is_reading_at_once(letter):
    mixer, x = make(letter), channels(2, CHUNK + 3, 12)
    whole, near = mixer(x)[0], 2 * WINDOW + 3
    for prefixes, end in ((range(1, near), near), (range(CHUNK - 2, CHUNK + 3), None)):
        steps = x[:, :end]
        for prefix in prefixes:
            parts, state = read_in_parts(mixer, steps, range(prefix, steps.size(1)))
            torch.testing.assert_close(parts, whole[:, :end], atol=1e-10, rtol=0)
            assert state.position.tolist() == [steps.size(1)] * 2


@pytest.mark.parametrize("letter", MIXERS)
def test_parts_of_any_length_are_reading_at_once(letter):
    mixer, x = make(letter), channels(1, 2 * CHUNK + 9, 12)
    whole = mixer(x)[0]
    W, C = WINDOW, CHUNK
    for edges in ((2, W, 3 * W, 4 * W + 1), (C - 1, C, 2 * C), (1, C + 1, 2 * C + 1)):
        parts = read_in_parts(mixer, x, edges)[0]
        torch.testing.assert_close(parts, whole, atol=1e-10, rtol=0)


@torch.inference_mode()
def test_every_pattern_up_to_four_letters_reads_in_parts(capsys):
    """Whole models; parts end before and behind edges of windows and of chunks."""
    edges = (WINDOW - 1, WINDOW, CHUNK + 1)
    lots = torch.Generator().manual_seed(0)
    ids = torch.randint(0, SMALL.vocabulary, (1, CHUNK + 3), generator=lots)
    checked = []
    for letters in (each for n in range(1, 5) for each in product(MIXERS, repeat=n)):
        pattern = "".join(letters)
        model = shaken(Transformer(replace(SMALL, pattern=pattern))).double()
        whole = model(ids)[0]
        parts = read_in_parts(model, ids, edges)[0]
        checked.append((whole - parts).abs().max().item())
        assert checked[-1] < 1e-10 * whole.abs().max().item(), pattern
    assert len(checked) == sum(len(MIXERS) ** length for length in (1, 2, 3, 4))
    with capsys.disabled():
        print(f"\n{len(checked)} patterns in parts: at most {max(checked):.1e} off")


@pytest.mark.parametrize("pattern", [*MIXERS, "".join(MIXERS)])
def test_rows_of_different_lengths_read_as_each_would_alone(pattern):
    model = shaken(Transformer(replace(SMALL, pattern=pattern))).double()
    lengths = (1, WINDOW - 1, 3 * WINDOW, CHUNK + 1)
    ids = torch.randint(
        0, 16, (4, CHUNK + 20), generator=torch.Generator().manual_seed(0)
    )
    rows = [row[: length + 12] for row, length in zip(ids, lengths, strict=True)]
    alone = torch.cat([model(row.unsqueeze(0))[0][:, -12:] for row in rows])
    read = [model(row[:-12].unsqueeze(0))[1] for row in rows]
    layers = zip(*read, strict=True)
    states = [type(layer[0]).stack(layer) for layer in layers]
    together = []
    rest = torch.stack([row[-12:] for row in rows])
    for start, end in pairwise((0, 1, 2, 3, 9, 12)):
        logits, states = model(rest[:, start:end], states)
        together.append(logits)
    torch.testing.assert_close(torch.cat(together, 1), alone, atol=1e-10, rtol=1e-10)
    assert [list(state.position) for state in states] == [[n + 12 for n in lengths]] * (
        len(pattern)
    )


@pytest.mark.parametrize("letter", MIXERS)
def test_gradients_are_finite_differences(letter):
    """Of the input and all weights, through two states as well, along random lines."""
    mixer, x = make(letter), channels(2, 3 * WINDOW, 12).requires_grad_()
    names = [name for name, _ in mixer.named_parameters()]

    def read(x, *weights):
        named, state = dict(zip(names, weights, strict=True)), None
        for start, end in pairwise((0, WINDOW + 2, WINDOW + 3, 3 * WINDOW)):
            y, state = functional_call(mixer, named, (x[:, start:end], state))
            yield y

    def all_read(*inputs):
        return torch.cat(list(read(*inputs)), dim=1)

    assert torch.autograd.gradcheck(all_read, (x, *mixer.parameters()), fast_mode=True)
