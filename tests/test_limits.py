"""What mixers become at their limits, beside PyTorch's attention, and in bfloat16."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_proofs import SMALL, WINDOW, channels, make, shaken
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from cort33x_lib.model.attention import attend
from cort33x_lib.model.delta import chunked_delta
from cort33x_lib.model.mixers import MIXERS
from cort33x_lib.model.transformer import Transformer

START = torch.zeros(1, dtype=torch.int64)
GPU = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("letter", ["F", "W", "S"])
def test_reading_equals_flex_attention_and_a_dense_mask(letter):
    """In float32, within 1e-5 of both."""
    mixer, x = make(letter, torch.float32), channels(2, 70, 12, dtype=torch.float32)
    window = WINDOW if letter in "WS" else 70
    queries, keys, values = mixer.project(x, START)

    def inside(score, row, head, query, key):
        seen = (key <= query) & (key > query - window)
        return torch.where(seen, score, -torch.inf)

    flex, found = flex_attention(
        queries, keys, values, inside, enable_gqa=True, return_aux=AuxRequest(lse=True)
    )
    place = torch.arange(70)
    mask = (place <= place.view(-1, 1)) & (place > place.view(-1, 1) - window)
    mask = torch.zeros(4, 70, 70).masked_fill(~mask, -torch.inf)
    keys, values = (z.repeat_interleave(2, dim=1) for z in (keys, values))
    if letter == "S":  # one more key, whose score is the sink and whose value is zero
        flex = flex * (found.lse - mixer.sinks.view(-1, 1)).sigmoid().unsqueeze(3)
        mask = torch.cat([mixer.sinks.view(-1, 1, 1).expand(-1, 70, 1), mask], dim=2)
        keys, values = F.pad(keys, (0, 0, 1, 0)), F.pad(values, (0, 0, 1, 0))
    dense = F.scaled_dot_product_attention(queries, keys, values, mask)
    for read in (flex, dense):
        expected = mixer.join_heads(read)
        off = (mixer(x)[0] - expected).abs().max()
        assert off < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("window", [30, 31, 500])
@pytest.mark.parametrize("letter", ["W", "S"])
def test_a_window_that_holds_everything_is_full_attention(letter, window):
    full, windowed = make("F"), make(letter, window=window)
    windowed.load_state_dict(full.state_dict(), strict=False)
    if letter == "S":
        windowed.sinks.data.fill_(-torch.inf)
    x = channels(2, 30, 12)
    torch.testing.assert_close(windowed(x)[0], full(x)[0], atol=1e-12, rtol=0)


def test_without_positions_the_order_of_earlier_tokens_is_not_seen():
    keys, values, query = (channels(1, 2, 9, 4, seed=n) for n in range(3))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    read, mixed = (
        attend(query[:, :, -1:], keys[:, :, places], values[:, :, places])
        for places in (slice(None), order)
    )
    torch.testing.assert_close(mixed, read, atol=1e-12, rtol=0)


@pytest.mark.parametrize("letter", MIXERS)
def test_a_mixer_sees_the_order_of_earlier_tokens(letter):
    mixer, x = make(letter), channels(1, WINDOW, 12)
    swapped = x[:, [1, 0, *range(2, WINDOW)]]
    assert (mixer(swapped)[0][:, -1] - mixer(x)[0][:, -1]).abs().max() > 1e-3


def test_without_decay_the_gated_rule_is_the_delta_rule():
    """The memory is a product of erasures, and each write is erased by those after."""
    T, K, D = 70, 3, 4
    keys = F.normalize(channels(1, 1, T, K), dim=3)
    values, rate = channels(1, 1, T, D, seed=3), channels(1, 1, T, seed=4).sigmoid()
    start = channels(1, 1, K, D, seed=5)
    zero = torch.zeros_like(rate)
    memory = chunked_delta(keys, keys, values, zero, rate, start)[1][0, 0]
    expected = start[0, 0]
    for key, value, b in zip(keys[0, 0], values[0, 0], rate[0, 0], strict=True):
        erase = torch.eye(K).double() - b * torch.outer(key, key)
        expected = erase @ expected + b * torch.outer(key, value)
    torch.testing.assert_close(memory, expected, atol=1e-10, rtol=0)


def test_without_its_correction_the_rule_is_linear_attention_that_fades():
    """A rate near nothing for values near infinity corrects nothing, and writes all."""
    T, K, D, rate = 70, 3, 4, torch.full((1, 1, 70), 1e-12).double()
    queries, keys, values = (
        channels(1, 1, T, width, seed=n) for n, width in enumerate((K, K, D))
    )
    decay, empty = -channels(1, 1, T).abs() / 10, torch.zeros(1, 1, K, D).double()
    read, _ = chunked_delta(queries, keys, values / rate[0, 0, 0], decay, rate, empty)
    total = decay.cumsum(2)
    kept = (total.unsqueeze(3) - total.unsqueeze(2)).tril().exp().tril()
    expected = (queries @ keys.mT * kept) @ values
    torch.testing.assert_close(read, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("letter", MIXERS)
def test_only_sinks_and_memories_tell_a_token_from_many_copies_of_it(letter):
    """The mean of equal values is that value, whatever their number and weights."""
    mixer, x = make(letter), channels(1, 1, 12).expand(1, 12, 12)
    apart = (mixer(x)[0] - mixer(x[:, :1])[0]).abs().amax(dim=2)[0]  # (T,)
    if letter in "SD":
        assert apart[1:].min() > 1e-3
    else:
        assert apart.max() < 1e-12


@pytest.mark.parametrize("letter", MIXERS)
def test_one_batch_is_learned_by_heart(letter):
    """Below 0.05 nats per token, where a guess costs 2.8."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 16, (4, 2 * WINDOW + 3), generator=generator)
    ids[:, 0], ids[:, 1] = torch.arange(4), torch.arange(4, 8)  # rows begin apart
    model = Transformer(replace(SMALL, pattern=letter, channels=32, feed_forward=64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(50):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("letter", MIXERS)
def test_bfloat16_stays_near_float32(letter, device):
    """Logits within 3% and all gradients together within 5%, in root mean square."""
    model = shaken(Transformer(replace(SMALL, pattern=letter * 2))).to(device)
    for weights in model.parameters():
        weights.data.mul_(0.5)
    ids = torch.randint(0, 16, (4, 101), generator=torch.Generator().manual_seed(0))
    inputs, targets = ids[:, :-1].to(device), ids[:, 1:].to(device)

    def results():
        model.zero_grad()
        logits, states = model(inputs[:, :90])
        more, _ = model(inputs[:, 90:], states)
        loss = model.loss(inputs, targets)
        loss.backward()
        slopes = torch.cat([weights.grad.flatten() for weights in model.parameters()])
        return torch.cat([logits, more], dim=1).float(), slopes, loss.item()

    exact = results()
    with torch.autocast(device, torch.bfloat16):
        rough = results()
    for ours, theirs, tolerance in zip(rough, exact, (0.03, 0.05), strict=False):
        assert (ours - theirs).norm() < tolerance * theirs.norm()
    assert rough[2] == pytest.approx(exact[2], rel=1e-3)
