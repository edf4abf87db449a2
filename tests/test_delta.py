"""The gated delta rule: three forms of one rule, its state, its costs, its limits."""

from dataclasses import replace
from importlib.util import find_spec
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import COSTS
from cort33x_lib.model.delta import (
    CHUNK,
    DeltaState,
    GatedDelta,
    chunked_delta,
    fused_delta,
    recurrent_delta,
    short_convolution,
)
from cort33x_lib.model.transformer import Transformer

CONFIG = replace(CONFIGS["tiny"], pattern="D", delta_channels=8)
EXACT = {"atol": 1e-10, "rtol": 0}


def random_case(tokens, strength=1.0, start=True, dtype=torch.float64, K=6, D=5):
    """Inputs of the rule, all of which want gradients."""
    generator = torch.Generator().manual_seed(tokens)

    def draw(*shape):
        return torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)

    case = [
        draw(tokens, K),
        F.normalize(draw(tokens, K), dim=3),
        draw(tokens, D),
        -strength * draw(tokens).abs(),
        draw(tokens).sigmoid(),
        draw(K, D) * start,
    ]
    return [x.to(dtype).requires_grad_() for x in case]


def random_mixer(config=CONFIG, seed=1):
    mixer = GatedDelta(config).double()
    generator = torch.Generator().manual_seed(seed)
    for weights in mixer.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return mixer


def by_hand(queries, keys, values, decay, rate, memory):
    """One number at a time."""
    B, H, T, K = keys.shape
    D = values.size(3)
    read = torch.zeros(B, H, T, D, dtype=keys.dtype)
    memory = memory.clone()
    for b, h, t in product(range(B), range(H), range(T)):
        M, key = memory[b, h], keys[b, h, t]
        for k, d in product(range(K), range(D)):
            M[k, d] *= decay[b, h, t].exp()
        for d in range(D):
            found = sum(M[k, d] * key[k] for k in range(K))
            for k in range(K):
                M[k, d] += key[k] * rate[b, h, t] * (values[b, h, t, d] - found)
            read[b, h, t, d] = sum(M[k, d] * queries[b, h, t, k] for k in range(K))
    return read, memory


def test_the_rule_is_what_its_formula_says():
    case = [x.detach() for x in random_case(5, K=3, D=2)]
    for rule in (recurrent_delta, chunked_delta):
        torch.testing.assert_close(rule(*case), by_hand(*case), **EXACT)


@pytest.mark.parametrize("chunk", [1, 2, 16, 64])
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("start", [False, True])
def test_chunks_give_the_values_and_gradients_of_single_steps(chunk, tokens, start):
    case = random_case(tokens, start=start)

    def with_gradients(rule, **options):
        read, memory = rule(*case, **options)
        total = read.sin().sum() + memory.cos().sum()
        return read, memory, *torch.autograd.grad(total, case)

    torch.testing.assert_close(
        with_gradients(chunked_delta, chunk=chunk),
        with_gradients(recurrent_delta),
        **EXACT,
    )


@pytest.mark.parametrize("strength", [0, 1, 5, 100])
def test_no_forgetting_and_instant_forgetting_are_exact_in_both_forms(strength):
    case = random_case(100, strength)
    assert all(torch.isfinite(x).all() for x in chunked_delta(*case))
    torch.testing.assert_close(chunked_delta(*case), recurrent_delta(*case), **EXACT)


def test_single_precision_keeps_five_digits_over_a_thousand_tokens():
    case = [x.detach() for x in random_case(1000, strength=0.05)]
    expected, _ = recurrent_delta(*case)
    read, _ = chunked_delta(*(x.float() for x in case))
    assert (read - expected).abs().max() < 1e-5 * expected.abs().max()


def test_parts_read_one_after_another_are_the_whole():
    case = random_case(70)
    whole, end = chunked_delta(*case)
    for cut in (1, 15, 16, 64, 69):
        first, memory = chunked_delta(*(x[:, :, :cut] for x in case[:5]), case[5])
        rest, memory = chunked_delta(*(x[:, :, cut:] for x in case[:5]), memory)
        torch.testing.assert_close(torch.cat([first, rest], dim=2), whole, **EXACT)
        torch.testing.assert_close(memory, end, **EXACT)


def test_without_overlap_of_keys_the_rule_is_linear_attention():
    queries, _, values, _, _, _ = random_case(6)
    keys = torch.eye(6).double().expand(2, 3, 6, 6)
    none, all_of_it = torch.zeros(2, 3, 6).double(), torch.ones(2, 3, 6).double()
    empty = torch.zeros(2, 3, 6, 5).double()
    read, memory = chunked_delta(queries, keys, values, none, all_of_it, empty)
    torch.testing.assert_close(read, (queries @ keys.mT).tril() @ values, **EXACT)
    torch.testing.assert_close(memory, keys.mT @ values, **EXACT)


def test_a_full_rate_replaces_what_was_stored_under_a_key():
    _, keys, values, _, _, memory = random_case(2)
    keys = keys[:, :, :1].expand(-1, -1, 2, -1)
    none, full = torch.zeros(2, 3, 2).double(), torch.ones(2, 3, 2).double()
    read, _ = chunked_delta(keys, keys, values, none, full, memory)
    torch.testing.assert_close(read, values.detach().clone(), **EXACT)


def test_a_rate_of_zero_stores_nothing_and_decay_only_shrinks():
    queries, keys, values, decay, rate, memory = random_case(20)
    _, end = chunked_delta(queries, keys, values, decay, 0 * rate, memory)
    torch.testing.assert_close(end, memory * decay.sum(2)[..., None, None].exp())


def test_mixer_equals_the_rule_written_out():
    """Projection, convolution, gates and norm, one token and one head at a time."""
    mixer, x = random_mixer(), torch.randn(2, 9, 32).double()
    H, K, D = CONFIG.heads, CONFIG.delta_channels, CONFIG.head_channels
    per_head = 2 * K + D
    given = mixer.project_in(x)
    expected = torch.zeros(2, 9, H * D).double()
    for b, h in product(range(2), range(H)):
        memory = torch.zeros(K, D).double()
        for t in range(9):
            mixed = torch.zeros(per_head).double()
            for n, back in product(range(per_head), range(4)):
                if t - back >= 0:
                    weight = mixer.convolution[h * per_head + n, 3 - back]
                    mixed[n] += weight * given[b, t - back, h * per_head + n]
            query, key, value = F.silu(mixed).split([K, K, D])
            query, key = query / query.norm(), key / key.norm()
            gate = F.silu(given[b, t, H * per_head + h * D :][:D])
            decay, rate = given[b, t, H * (per_head + D) :].view(2, H)[:, h]
            step = (1 + (decay + mixer.decay_shift[h]).exp()).log()
            memory = memory * (-mixer.decay_speed[h].exp() * step).exp()
            error = value - key @ memory
            memory = memory + torch.outer(key, torch.sigmoid(rate) * error)
            read = query @ memory
            read = read / (read.square().mean() + torch.finfo(read.dtype).eps).sqrt()
            expected[b, t, h * D : (h + 1) * D] = read * mixer.read_gain * gate
    torch.testing.assert_close(mixer(x)[0], mixer.project_out(expected), **EXACT)


def test_gradients_of_every_weight_equal_finite_differences():
    config = replace(CONFIG, channels=4, heads=2, head_channels=2, delta_channels=2)
    mixer = random_mixer(config)
    x = torch.randn(1, 5, 4).double()
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def run(x, *weights):
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(mixer, given, (x,))[0]

    weights = [w.detach().clone().requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights))


@pytest.mark.parametrize("t", [0, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_no_token_reads_the_future_across_chunks(t):
    mixer, x = random_mixer(), torch.randn(1, 2 * CHUNK + 2, 32).double()
    changed = x.clone()
    changed[:, t + 1 :] += 1
    assert torch.equal(mixer(changed)[0][:, : t + 1], mixer(x)[0][:, : t + 1])


@pytest.mark.parametrize("prefix", [1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1])
def test_token_by_token_after_any_prefix_is_reading_at_once(prefix):
    mixer, x = random_mixer(), torch.randn(2, CHUNK + 5, 32).double()
    whole, end = mixer(x)
    y, state = mixer(x[:, :prefix])
    parts = [y]
    for t in range(prefix, x.size(1)):
        y, state = mixer(x[:, t : t + 1], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **EXACT)
    torch.testing.assert_close(vars(state), vars(end), **EXACT)


def test_rows_of_different_lengths_stack_and_read_on():
    mixer, x = random_mixer(), torch.randn(2, 12, 32).double()
    _, first = mixer(x[:1, :2])
    _, second = mixer(x[1:, :9])
    together = DeltaState.stack([first, second])
    assert together.position.tolist() == [2, 9]
    y, state = mixer(x[:, 9:11], together)
    torch.testing.assert_close(y[:1], mixer(x[:1, 9:11], first)[0], **EXACT)
    torch.testing.assert_close(y[1:], mixer(x[1:, 9:11], second)[0], **EXACT)
    assert state.position.tolist() == [4, 11]


@pytest.mark.parametrize("tokens", [1, 2, 100])
def test_the_state_has_one_size_and_its_bytes_are_known(tokens):
    mixer = GatedDelta(CONFIG)
    _, state = mixer(torch.randn(3, tokens, 32))
    assert state.nbytes == 3 * COSTS["D"].state_bytes(CONFIG, tokens, 4)
    copy = state.clone()
    copy.memory.add_(1)
    assert not torch.equal(copy.memory, state.memory)


def test_under_autocast_the_memory_stays_in_float32():
    generator = torch.Generator().manual_seed(0)
    mixer, x = random_mixer().float(), torch.randn(1, 200, 32, generator=generator)
    exact, _ = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = mixer(x)
        _, state = mixer(x[:, :1], state)
    assert state.memory.dtype == torch.float32
    assert (y - exact).norm() < 0.03 * exact.norm()


def test_costs_are_those_of_real_tensors_and_counted_operations():
    for config in (CONFIG, replace(CONFIGS["cort33x"], pattern="D")):
        real = sum(weights.numel() for weights in GatedDelta(config).parameters())
        assert real == COSTS["D"].parameters(config)
    assert real == 795_724
    H, K, D = config.heads, config.delta_channels, config.head_channels
    for tokens in (64, 100, 1024):
        with FlopCounterMode(display=False) as counter:
            GatedDelta(config)(torch.zeros(1, tokens, config.channels))
        chunks = -(-tokens // CHUNK)
        solved = H * chunks * CHUNK * (CHUNK - 1) * (K + D)  # torch does not count it
        ours = tokens * sum(COSTS["D"].flops(config, tokens))
        assert counter.get_total_flops() + solved == ours


def test_heads_start_with_memories_from_ten_to_a_thousand_tokens():
    mixer = Transformer(replace(CONFIGS["cort33x"], pattern="D")).blocks[0].mixer
    per_token = mixer.decay_speed.exp() * F.softplus(mixer.decay_shift)
    assert per_token.tolist() == pytest.approx(
        [10 ** (-1 - 2 * head / 5) for head in range(6)], rel=1e-4
    )
    given = torch.randn(1, 3, 768)
    tail = torch.randn(1, 3, 768)
    assert torch.equal(short_convolution(given, tail, mixer.convolution), given)


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("fla") is None,
    reason="needs a GPU and flash-linear-attention",
)
@pytest.mark.parametrize("tokens", [64, 100, 1024])
def test_the_fused_kernel_is_ours_within_two_per_cent(tokens):
    case = [
        x.detach().cuda().requires_grad_()
        for x in random_case(tokens, strength=0.05, dtype=torch.float32, K=32, D=64)
    ]
    given = torch.randn(2, 3, tokens, 64, device="cuda")

    def with_gradients(rule):
        read, memory = rule(*case)
        return read, memory, *torch.autograd.grad((read * given).sum(), case)

    expected, fused = with_gradients(chunked_delta), with_gradients(fused_delta)
    for ours, theirs in zip(expected, fused, strict=True):
        assert (ours - theirs).norm() < 0.02 * ours.norm()
