"""Attention against its formula: what is read, by whom, and how far it may look."""

from itertools import product

import pytest
import torch

from cort33x_lib.model.attention import attend, readable
from cort33x_lib.model.reference import naive_attention


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def heads_of(H: int, G: int, T: int, S: int, B: int = 2) -> list[torch.Tensor]:
    return [some(B, H, T, 4, seed=1), *some(2, B, G, S, 4, seed=2)]


@pytest.mark.parametrize(("H", "G"), [(1, 1), (3, 3), (6, 2), (4, 1)])
@pytest.mark.parametrize("T", [1, 2, 17])
def test_each_query_reads_the_weighted_mean_of_what_came_before(H, G, T):
    queries, keys, values = heads_of(H, G, T, T)
    expected = naive_attention(queries, keys, values)
    read = attend(queries, keys, values)
    torch.testing.assert_close(read, expected, atol=1e-12, rtol=0)
    single = attend(queries.float(), keys.float(), values.float())
    torch.testing.assert_close(single.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("H", "G"), [(3, 3), (6, 2)])
@pytest.mark.parametrize("new", [1, 2, 5])
def test_new_queries_read_the_slots_before_them_too(H, G, new):
    queries, keys, values = heads_of(H, G, 9, 9)
    expected = naive_attention(queries, keys, values)[:, :, -new:]
    mask = readable(torch.tensor([9, 9]), new, 9)
    read = attend(queries[:, :, -new:], keys, values, mask)
    torch.testing.assert_close(read, expected, atol=1e-12, rtol=0)
    if new == 1:  # one query, all slots filled: no mask is needed
        alone = attend(queries[:, :, -1:], keys, values)
        torch.testing.assert_close(alone, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("H", "G"), [(2, 2), (6, 2)])
@pytest.mark.parametrize("window", [0, 1, 3, 8, 50])
@pytest.mark.parametrize("new", [1, 4])
def test_rows_of_different_lengths_read_as_they_would_alone(H, G, window, new):
    lengths = [8, 5, 4]
    queries, keys, values = heads_of(H, G, new, 8, B=3)
    mask = readable(torch.tensor(lengths), new, 8, window)
    together = attend(queries, keys, values, mask)
    for row, length in enumerate(lengths):
        own = slice(row, row + 1), slice(None), slice(8 - length, 8)
        before = torch.zeros(1, H, length - new, 4, dtype=torch.float64)
        padded = torch.cat([before, queries[own[:2]]], dim=2)
        alone = naive_attention(padded, keys[own], values[own], window)[:, :, -new:]
        torch.testing.assert_close(together[own[:2]], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("read", "queries", "slots", "window"),
    [*product([[1], [3, 6], [6, 2, 5]], [1, 3, 6], [6], [0, 1, 2, 9])],
)
def test_the_mask_says_for_each_pair_what_the_words_say(read, queries, slots, window):
    mask = readable(torch.tensor(read), queries, slots, window)
    assert mask.shape == (len(read), 1, queries, slots)
    for row, t, s in product(range(len(read)), range(queries), range(slots)):
        at = slots - queries + t  # where this query stands
        filled = s >= slots - read[row]
        near = s > at - window if window else True
        assert mask[row, 0, t, s].item() == (filled and s <= at and near)


def test_a_key_with_a_huge_score_takes_everything_and_breaks_nothing():
    queries, keys, values = heads_of(2, 2, 6, 6)
    read = attend(1e4 * queries, 1e4 * keys, values)
    assert read.isfinite().all()
    scores = (queries @ keys.mT).masked_fill(~readable(torch.tensor([6]), 6, 6), -1e9)
    best = scores.argmax(-1, keepdim=True).expand(-1, -1, -1, 4)
    torch.testing.assert_close(read, values.gather(2, best))


@pytest.mark.parametrize(("H", "G", "T"), [(2, 2, 4), (2, 1, 4), (2, 1, 1)])
def test_gradients_equal_finite_differences(H, G, T):
    inputs = [x[:1, ..., :2].clone().requires_grad_() for x in heads_of(H, G, T, 4)]
    mask = None if T == 4 else readable(torch.tensor([3]), T, 4)
    assert torch.autograd.gradcheck(lambda *x: attend(*x, mask), inputs)


def test_the_reference_itself_is_right_for_three_tokens_on_paper():
    """Chapter 8's example: scores 2, 0 and 1; a sink of score 0 takes a share."""
    query = torch.tensor([[2.0, 0, 0, 2]]).expand(3, 4)[None, None]
    keys = torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 1]])[None, None]
    values = torch.eye(3)[None, None]
    shares = naive_attention(query, keys, values)[0, 0]
    right = torch.tensor([[1, 0, 0], [0.8808, 0.1192, 0], [0.6652, 0.0900, 0.2447]])
    torch.testing.assert_close(shares, right.double(), atol=5e-5, rtol=0)
    windowed = naive_attention(query, keys, values, window=2)[0, 0, 2]
    torch.testing.assert_close(
        windowed, torch.tensor([0, 0.2689, 0.7311]).double(), atol=5e-5, rtol=0
    )
    sunk = naive_attention(query, keys, values, sinks=torch.zeros(1))[0, 0, 2]
    with_sink = torch.tensor([0.6103, 0.0826, 0.2245]).double()
    torch.testing.assert_close(sunk, with_sink, atol=5e-5, rtol=0)
