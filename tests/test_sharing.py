"""Heads that share keys and values, their norms, and the cache of what they keep."""

from dataclasses import replace

import pytest
import torch

from cort33x_lib.model.attention import FullAttention, KeyValueState
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import fit_to_budget, full_state_bytes, parameters

CONFIG = replace(CONFIGS["tiny"], heads=6, key_value_heads=6, head_channels=8)
SHARED = [1, 2, 3, 6]


def random_attention(shared, seed=1):
    """Full attention in which every weight, the gains too, is random."""
    mixer = FullAttention(replace(CONFIG, key_value_heads=shared)).double()
    generator = torch.Generator().manual_seed(seed)
    for weights in mixer.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return mixer


def random_tokens(rows, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, 32, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("tokens", [1, 13])
def test_grouped_heads_are_heads_with_repeated_keys_and_values(shared, tokens):
    grouped, own = random_attention(shared), random_attention(6)
    heads = grouped.project_in.weight.detach().unflatten(0, (-1, 8))  # (6 + 2 G, D, C)
    queries, keys, values = heads.split([6, shared, shared])
    repeated = [x.repeat_interleave(6 // shared, dim=0) for x in (keys, values)]
    weights = dict(grouped.state_dict())
    weights["project_in.weight"] = torch.cat([queries, *repeated]).flatten(0, 1)
    own.load_state_dict(weights)
    x = random_tokens(2, tokens)
    torch.testing.assert_close(grouped(x)[0], own(x)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("shared", SHARED)
def test_reading_in_parts_is_reading_at_once(shared):
    mixer, x = random_attention(shared), random_tokens(2, 12)
    whole, _ = mixer(x)
    for prefix in range(1, 12):
        _, state = mixer(x[:, :prefix])
        rest, _ = mixer(x[:, prefix:], state)
        torch.testing.assert_close(rest, whole[:, prefix:], atol=1e-10, rtol=0)
        for t in range(prefix, 12):
            y, state = mixer(x[:, t : t + 1], state)
            torch.testing.assert_close(y, whole[:, t : t + 1], atol=1e-10, rtol=0)
        assert state.position.tolist() == [12, 12]
        assert state.nbytes == full_state_bytes(mixer_config(shared), 2 * 12, 8)


def mixer_config(shared):
    return replace(CONFIG, key_value_heads=shared)


@pytest.mark.parametrize("shared", SHARED)
def test_rows_of_different_lengths_go_on_together(shared):
    mixer = random_attention(shared)
    alone = [mixer(random_tokens(1, tokens, seed=tokens))[1] for tokens in (3, 9, 6)]
    together = KeyValueState.stack(alone)
    for step, tokens in enumerate((1, 4, 1)):
        x = random_tokens(3, tokens, seed=100 + step)
        y, together = mixer(x, together)
        for row in range(3):
            expected, alone[row] = mixer(x[row : row + 1], alone[row])
            torch.testing.assert_close(y[row : row + 1], expected, atol=1e-10, rtol=0)
    assert together.position.tolist() == [9, 15, 12]


def test_what_fills_the_slots_of_shorter_rows_is_never_read():
    mixer = random_attention(2)
    states = [mixer(random_tokens(1, tokens))[1] for tokens in (2, 7)]
    together, spoilt = KeyValueState.stack(states), KeyValueState.stack(states)
    spoilt.keys[0, :, :5] = 1e3
    spoilt.values[0, :, :5] = 1e3
    x = random_tokens(2, 1)
    assert torch.equal(mixer(x, together)[0], mixer(x, spoilt)[0])


def test_a_clone_shares_no_memory():
    _, state = random_attention(2)(random_tokens(1, 5))
    copy = state.clone()
    for tensor in (copy.keys, copy.values, copy.position):
        tensor.add_(1)
    assert not torch.equal(copy.keys, state.keys)
    assert not torch.equal(copy.values, state.values)
    assert state.position.tolist() == [5]


def test_the_norm_makes_scores_blind_to_the_size_of_the_weights():
    mixer, x = random_attention(2), random_tokens(1, 9)
    mixer.query_gain.data.fill_(1.5)
    mixer.key_gain.data.fill_(1.0)
    zero = torch.zeros(1, dtype=torch.int64)
    queries, keys, _ = mixer.project(x, zero)
    limit = 1.5 * CONFIG.head_channels**0.5  # sqrt(D) times the gains
    keys = keys.repeat_interleave(3, dim=1)
    assert (queries @ keys.mT / CONFIG.head_channels**0.5).abs().max() <= limit
    queries = queries.clone()
    mixer.project_in.weight.data[: 8 * 8] *= 100  # all queries and all keys
    larger, larger_keys, _ = mixer.project(x, zero)
    torch.testing.assert_close(larger, queries, atol=1e-6, rtol=0)
    repeated = larger_keys.repeat_interleave(3, dim=1)
    torch.testing.assert_close(repeated, keys, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_what_sharing_saves_moves_to_the_feed_forward(shared):
    """(H - G) D columns a layer: a head's keys and values cost 2 C D, a column 2 C."""
    total = sum(parameters(CONFIG).values())
    moved = fit_to_budget(mixer_config(shared), total, multiple=1)
    assert sum(parameters(moved).values()) == total
    freed = (6 - shared) * CONFIG.head_channels
    assert moved.feed_forward - CONFIG.feed_forward == freed


@pytest.mark.parametrize("shared", [4, 5, 12])
def test_groups_must_divide_the_heads(shared):
    with pytest.raises(ValueError, match=f"6 heads, {shared} of keys and values"):
        mixer_config(shared)
