"""Latent attention: its two forms, its naive reference, its cache and its costs."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import (
    latent_flops,
    latent_parameters,
    latent_state_bytes,
    tokens_read,
)
from cort33x_lib.model.latent import LatentAttention, LatentState
from cort33x_lib.model.reference import naive_latent

CONFIG = replace(CONFIGS["tiny"], heads=3, key_value_heads=3, latent_channels=6)
C, H, D, R = CONFIG.channels, 3, CONFIG.head_channels, 6


def random_latent(config=CONFIG, dtype=torch.float64):
    """A mixer in which every weight, the gains too, is random."""
    mixer = LatentAttention(config).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for weights in mixer.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return mixer


def random_tokens(rows, tokens, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, C, generator=generator, dtype=dtype)


@pytest.mark.parametrize("tokens", [1, 2, 13])
def test_it_equals_the_naive_reference(tokens):
    mixer, x = random_latent(), random_tokens(2, tokens)
    expected = naive_latent(mixer, x)
    torch.testing.assert_close(mixer(x)[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("width", [1, 6, 32, 100])
def test_both_forms_are_equal_in_value_and_gradient(width):
    mixer = random_latent(replace(CONFIG, latent_channels=width))
    x, zero = random_tokens(2, 9), torch.zeros(1, dtype=torch.int64)
    found = []
    for form in (mixer.read_made, mixer.read_absorbed):
        mixer.zero_grad()
        read = form(*mixer.project(x, zero))
        (read * torch.arange(9).view(9, 1)).sum().backward()
        gradients = {n: w.grad for n, w in mixer.named_parameters() if "out" not in n}
        assert all(gradient.abs().max() > 0 for gradient in gradients.values())
        found.append((read, gradients))
    torch.testing.assert_close(*found, atol=1e-10, rtol=1e-12)


def test_gradients_equal_finite_differences():
    small = replace(CONFIG, channels=2, heads=2, key_value_heads=2, head_channels=4)
    mixer = random_latent(replace(small, latent_channels=2))
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def run(x, *weights):
        named = dict(zip(names, weights, strict=True))
        first, state = torch.func.functional_call(mixer, named, (x[:, :2],))
        rest, _ = torch.func.functional_call(mixer, named, (x[:, 2:], state))
        return torch.cat([first, rest], dim=1)  # both forms

    assert torch.autograd.gradcheck(run, (x, *weights))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("prefix", range(1, 12))
def test_reading_in_parts_is_reading_at_once(prefix, dtype):
    mixer, x = random_latent(dtype=dtype), random_tokens(2, 12, dtype=dtype)
    whole, _ = mixer(x)
    near = dict(atol=1e-10 if dtype == torch.float64 else 1e-4, rtol=0)
    first, state = mixer(x[:, :prefix])
    torch.testing.assert_close(first, whole[:, :prefix], **near)
    torch.testing.assert_close(
        mixer(x[:, prefix:], state)[0], whole[:, prefix:], **near
    )
    for t in range(prefix, 12):
        y, state = mixer(x[:, t : t + 1], state)
        torch.testing.assert_close(y, whole[:, t : t + 1], **near)
    assert state.position.tolist() == [12, 12]


def test_no_token_reads_the_future():
    mixer, x = random_latent(), random_tokens(1, 12)
    before, state = mixer(x[:, :4])
    after = mixer(x[:, 4:], state)[0]
    whole = mixer(x)[0]
    for t in range(11):
        changed = x.clone()
        changed[:, t + 1 :] += 1
        assert torch.equal(mixer(changed)[0][:, : t + 1], whole[:, : t + 1])
        if t >= 4:
            again = mixer(changed[:, 4:], state)[0]
            assert torch.equal(again[:, : t - 3], after[:, : t - 3])


def test_rows_of_different_lengths_go_on_together():
    mixer = random_latent()
    rows = [random_tokens(1, tokens, seed=tokens) for tokens in (3, 9, 6)]
    states = [mixer(row)[1] for row in rows]
    alone = [state.clone() for state in states]
    together = LatentState.stack(states)
    for step, tokens in enumerate((1, 4, 1)):
        x = random_tokens(3, tokens, seed=100 + step)
        y, together = mixer(x, together)
        for row in range(3):
            expected, alone[row] = mixer(x[row : row + 1], alone[row])
            torch.testing.assert_close(y[row : row + 1], expected, atol=1e-10, rtol=0)
    assert together.position.tolist() == [9, 15, 12]


def test_a_clone_shares_no_memory():
    _, state = random_latent()(random_tokens(1, 5))
    copy = state.clone()
    copy.latents.add_(1)
    copy.position.add_(1)
    assert (copy.latents - state.latents - 1).abs().max() < 1e-12
    assert state.position.tolist() == [5]


def test_costs_are_those_of_real_tensors():
    mixer = random_latent()
    real = sum(weights.numel() for weights in mixer.parameters())
    assert latent_parameters(CONFIG) == real
    _, state = mixer(random_tokens(1, 20))
    assert latent_state_bytes(CONFIG, 20, 8) == state.nbytes == (R + D // 2) * 20 * 8
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        mixer(random_tokens(1, 20))
    matrices, reading = latent_flops(CONFIG, 20)
    masked = reading * 20 / tokens_read(20, 20)  # torch counts the masked half too
    assert counter.get_total_flops() == 20 * (matrices + masked)


def test_a_step_makes_no_keys_of_the_tokens_before():
    mixer = random_latent()
    counted = []
    for tokens in (100, 200):
        _, state = mixer(random_tokens(1, tokens))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            mixer(random_tokens(1, 1), state)
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == 100 * 4 * H * (R + D // 2)


@pytest.mark.parametrize("channels", [2, 6, 18])
def test_heads_that_cannot_be_halved_into_pairs_are_refused(channels):
    expected = f"head_channels is {channels}, expected a multiple of 4"
    with pytest.raises(ValueError, match=expected):
        LatentAttention(replace(CONFIG, head_channels=channels))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_both_forms_agree_on_a_gpu_in_bfloat16():
    mixer = random_latent(dtype=torch.float32).cuda()
    x, zero = random_tokens(2, 64, dtype=torch.float32).cuda(), torch.zeros(1).long()
    expected = mixer.read_made(*mixer.project(x, zero))
    with torch.autocast("cuda", torch.bfloat16):
        for form in (mixer.read_made, mixer.read_absorbed):
            off = form(*mixer.project(x, zero)).float() - expected
            assert off.abs().max() < 0.05 * expected.abs().max()
