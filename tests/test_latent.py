"""Latent attention: its two forms, what it keeps and what it costs.

What every mixer must pass, its formula first, is in test_proofs.py.
"""

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
from cort33x_lib.model.latent import LatentAttention

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
