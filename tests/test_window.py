"""Windows: blocks against a dense mask, the ring against a cache that keeps all."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cort33x_lib.model import window
from cort33x_lib.model.attention import KeyValueState, attend, readable
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.mixers import make_mixer
from cort33x_lib.model.window import blocked_attention

TINY = CONFIGS["tiny"]  # window 8


def made(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def inputs_of(tokens, slots=None, rows=2, heads=4, groups=2):
    queries = made(rows, heads, tokens, 6)
    keys, values = made(2, rows, groups, slots or tokens, 6, seed=1)
    return [x.requires_grad_() for x in (queries, keys, values)]


def dense(queries, keys, values, window, read=None):
    read = torch.tensor([keys.size(2)]) if read is None else read
    mask = readable(read, queries.size(2), keys.size(2), window)
    return attend(queries, keys, values, mask)


def random_mixer(letter, **changes):
    mixer = make_mixer(letter, replace(TINY, **changes)).double()
    generator = torch.Generator().manual_seed(1)
    for weights in mixer.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return mixer


EDGES = [window.BLOCK + d for d in (-1, 0, 1)] + [1, 3 * window.BLOCK + 7]


@pytest.mark.parametrize("tokens", EDGES)
@pytest.mark.parametrize("span", [1, 5, window.BLOCK, window.BLOCK + 1, 1000])
def test_blocks_and_their_gradients_are_those_of_a_dense_mask(tokens, span):
    inputs, slopes = inputs_of(tokens), made(2, 4, tokens, 6, seed=2)
    ours, theirs = blocked_attention(*inputs, span), dense(*inputs, span)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, slopes),
        torch.autograd.grad(theirs, inputs, slopes),
        atol=1e-10,
        rtol=0,
    )


@pytest.mark.parametrize("tokens", [1, 9, window.BLOCK + 3])
def test_rows_that_read_less_see_less(tokens):
    inputs, read = inputs_of(tokens, tokens + 20), torch.tensor([tokens, tokens + 13])
    ours, theirs = (way(*inputs, 11, read) for way in (blocked_attention, dense))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def sink_by_hand(queries, keys, values, span, sinks):
    """One more key for each head, whose score is the sink and whose value is zero."""
    tokens, shared = queries.size(2), queries.size(1) // keys.size(1)
    keys, values = (x.repeat_interleave(shared, 1) for x in (keys, values))
    scores = queries @ keys.mT * queries.size(3) ** -0.5
    seen = readable(torch.tensor([tokens]), tokens, tokens, span)
    column = sinks.view(1, -1, 1, 1).expand(len(queries), -1, tokens, 1)
    scores = torch.cat([scores.masked_fill(~seen, -torch.inf), column], dim=3)
    return scores.softmax(dim=3)[..., :-1] @ values


@pytest.mark.parametrize("tokens", [1, 7, window.BLOCK + 9])
def test_a_sink_is_one_more_key_without_a_value(tokens):
    inputs, slopes = inputs_of(tokens), made(2, 4, tokens, 6, seed=2)
    sinks = made(4, seed=3).requires_grad_()
    ours = blocked_attention(*inputs, 5, sinks=sinks)
    theirs = sink_by_hand(*inputs, 5, sinks)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    leaves = [*inputs, sinks]
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, slopes),
        torch.autograd.grad(theirs, leaves, slopes),
        atol=1e-10,
        rtol=0,
    )


def test_a_sink_of_minus_infinity_takes_nothing():
    with_sinks, without, x = random_mixer("S"), random_mixer("W"), made(2, 20, 32)
    with_sinks.sinks.data.fill_(-torch.inf)
    with_sinks.load_state_dict(without.state_dict(), strict=False)
    assert torch.equal(with_sinks(x)[0], without(x)[0])
    with_sinks.sinks.data.fill_(50.0)
    assert with_sinks(x)[0].abs().max() < 1e-10


@pytest.mark.parametrize("tokens", [256, 512])
def test_work_falls_with_the_window_and_is_what_the_blocks_say(tokens):
    def flops(way, span, slopes=False):
        counter = FlopCounterMode(display=False)
        with counter, torch.set_grad_enabled(slopes):
            way(*inputs_of(tokens, rows=1), span)
        return counter.get_total_flops()

    for span in (16, 64, 200):
        pairs = sum(
            (rows.stop - rows.start) * (slots.stop - slots.start)
            for rows, slots in window.reach(tokens, tokens, span)
        )
        assert flops(blocked_attention, span) == 2 * 2 * 4 * 6 * pairs
        assert tokens * span / 2 < pairs <= tokens * (span + window.BLOCK)

        def both_passes(*inputs):
            blocked_attention(*inputs).sum().backward()

        assert flops(both_passes, span, slopes=True) == 2 * 7 * 4 * 6 * pairs


class LargestTensor(TorchDispatchMode):
    """Notes the numbers of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("span", [16, 64, 200])
def test_no_tensor_of_either_pass_is_wider_than_a_block_and_its_window(span):
    found = {}
    for tokens in (512, 1024):
        inputs = [x.detach().requires_grad_() for x in inputs_of(tokens, rows=1)]
        with LargestTensor() as mode:
            blocked_attention(*inputs, span).sum().backward()
        scores = 4 * window.BLOCK * (span + window.BLOCK)
        found[tokens] = mode.largest
        assert mode.largest <= max(scores, *(x.numel() for x in inputs))
    assert found[1024] <= 2 * found[512]  # where a square would take four times


@pytest.mark.parametrize("letter", "WS")
def test_the_ring_written_in_place_gives_what_copies_give(letter):
    mixer, x = random_mixer(letter), made(2, 40, 32)
    whole = mixer(x)[0]
    for prefix in (1, 7, 8, 9, 20):
        with torch.inference_mode():
            y, state = mixer(x[:, :prefix])
            parts, first = [y], state.keys.data_ptr()
            for t in range(prefix, 40):
                y, state = mixer(x[:, t : t + 1], state)
                parts.append(y)
            assert state.keys.data_ptr() == first
            assert state.keys.size(2) == TINY.window
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-10, rtol=0)


def test_elsewhere_a_step_leaves_the_state_before_as_it_was():
    mixer, x = random_mixer("W"), made(1, 30, 32)
    _, state = mixer(x[:, :20])
    before = state.clone()
    for t in range(20, 30):
        _, after = mixer(x[:, t : t + 1], state)
        assert torch.equal(state.keys, before.keys)
        assert not torch.equal(after.keys, before.keys)


@torch.inference_mode()
def test_a_clone_can_be_continued_twice():
    mixer, x = random_mixer("W"), made(1, 30, 32)
    _, state = mixer(x[:, :20])
    kept, first, second = state.clone(), [], []
    for parts, start in ((first, state), (second, kept)):
        state = start
        for t in range(20, 30):
            y, state = mixer(x[:, t : t + 1], state)
            parts.append(y)
    assert torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.parametrize("letter", "WS")
def test_rows_of_different_lengths_go_on_as_if_alone(letter):
    mixer, lengths = random_mixer(letter), (1, 6, 8, 21)
    prompts = [made(1, length, 32, seed=length) for length in lengths]
    more = made(len(lengths), 14, 32, seed=99)
    states = [mixer(prompt)[1] for prompt in prompts]
    together = KeyValueState.stack(states)
    parts, start = [], 0
    for end in (1, 2, 6, 7, 14):
        y, together = mixer(more[:, start:end], together)
        parts.append(y)
        start = end
    for row, prompt in enumerate(prompts):
        alone = mixer(torch.cat([prompt, more[row : row + 1]], dim=1))[0]
        alone = alone[0, prompt.size(1) :]
        torch.testing.assert_close(torch.cat(parts, 1)[row], alone, atol=1e-10, rtol=0)


def test_bfloat16_by_autocast_is_near():
    inputs = [x.detach().float().requires_grad_() for x in inputs_of(150)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = blocked_attention(*inputs, 20, sinks=torch.zeros(4))
    wanted = blocked_attention(*inputs, 20, sinks=torch.zeros(4))
    assert (ours - wanted).abs().max() < 0.05
    slopes = torch.autograd.grad(ours.sum(), inputs)
    exact = torch.autograd.grad(wanted.sum(), inputs)
    for rough, right in zip(slopes, exact, strict=True):
        assert (rough - right).abs().max() < 0.05 * right.abs().max()
