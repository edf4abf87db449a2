"""Norm, feed-forward layer and block: values, gradients, memory, first weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.layers import Block, FeedForward, SquaredReLU
from cort33x_lib.model.mixers import MIXERS
from cort33x_lib.model.norm import Norm, ScaleToOne
from cort33x_lib.model.transformer import Transformer, initialise

TINY = CONFIGS["tiny"]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_backward_passes_of_our_own_equal_finite_differences():
    assert torch.autograd.gradcheck(ScaleToOne.apply, (random(2, 3, 4), random(4)))
    matrices = random(6, 4), random(4, 6)
    assert torch.autograd.gradcheck(SquaredReLU.apply, (random(2, 3, 4), *matrices))


def test_norm_and_feed_forward_equal_what_torch_composes():
    x, norm, layer = random(2, 5, 32), Norm(32).double(), FeedForward(TINY).double()
    for weights in (*norm.parameters(), *layer.parameters()):
        weights.data.normal_()
    expected = F.rms_norm(x, (32,), norm.gain)
    torch.testing.assert_close(norm(x), expected, atol=1e-12, rtol=0)
    expected = (x @ layer.widen.weight.T).relu() ** 2 @ layer.narrow.weight.T
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():  # another path, the same numbers
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(norm(2 * x), norm(x))


@pytest.mark.parametrize(("layer", "kept"), [(Norm(32), 33), (FeedForward(TINY), 96)])
def test_a_layer_keeps_few_numbers_a_token_for_its_backward_pass(layer, kept):
    """The norm its input and one number; the other layer its input and its middle."""
    saved, weights = {}, {w.data_ptr() for w in layer.parameters()}

    def pack(x):
        if x.data_ptr() not in weights:
            saved[x.data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = layer(torch.randn(1, 10, 32, requires_grad=True))
    assert sum(x.numel() for x in saved.values()) == 10 * kept
    y.sum().backward()


@pytest.mark.parametrize("letter", MIXERS)
def test_what_is_made_again_gives_the_same_gradients(letter, monkeypatch):
    block, generator = Block(letter, TINY), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in block.parameters():
            weights.normal_(0, 0.2, generator=generator)
    first = torch.randn(2, 20, 32, generator=generator)
    shares, made = torch.tensor([0.7, 0.4]), []
    for norm in (block.mixer_norm, block.feed_forward_norm):
        norm.register_forward_hook(lambda *given: made.append(given))

    def gradients(worth):
        monkeypatch.setattr("cort33x_lib.model.layers.WORTH_IT", worth)
        made.clear()
        x = first.flip(1).requires_grad_()
        y, _ = block(2 * x, None, first, shares)
        inputs = [x, *block.parameters()]
        slopes = torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)
        return slopes, len(made)

    kept, once = gradients(first.nbytes + 1)
    again, often = gradients(first.nbytes)
    assert once == 2 < often
    for one, other in zip(kept, again, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_a_layer_computes_in_half_precision_under_autocast():
    layer, x = FeedForward(TINY), torch.randn(1, 8, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=3e-2, rtol=3e-2)
    y.sum().backward()
    assert layer.widen.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("letter", MIXERS)
def test_first_weights_are_those_of_the_table(letter):
    """Every tensor falls into one row of the table of `initialise`, and obeys it."""
    config = replace(TINY, pattern=letter * 2, channels=128, feed_forward=256)
    model, rows = Transformer(config, seed=5), set()
    for name, weights in model.named_parameters():
        if name == "embedding.weight":
            rows.add("embedding")
            assert weights.std().item() == pytest.approx(0.02, rel=0.05)
        elif name == "residual":
            rows.add("residual")
            assert weights.tolist() == [[1, 0], [1, 0]]
        elif name.endswith(("project_out.weight", "narrow.weight")):
            rows.add("back")
            assert (weights == 0).all()
        elif name.endswith(("gain", "sinks")):
            rows.add("gains")
            assert (weights == 1).all()
        elif name.endswith(("decay_speed", "decay_shift", "convolution")):
            assert letter == "D" and torch.isfinite(weights).all()
        elif name.endswith("weight") and weights.dim() == 2:
            rows.add("into")
            spread = weights.size(1) ** -0.5
            assert weights.std().item() == pytest.approx(spread, rel=0.25)
            assert weights.mean().abs() < 0.2 * spread
        else:
            raise AssertionError(f"{name} is in no row of the table")
    assert rows == {"embedding", "residual", "back", "gains", "into"}
    wide = Transformer(replace(config, channels=512))
    assert wide.embedding.weight.std().item() == pytest.approx(0.005, rel=0.05)
    again = Transformer(config, seed=6)
    initialise(again, 5)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("letter", MIXERS)
def test_a_new_block_changes_nothing(letter):
    model = Transformer(replace(TINY, pattern=letter))
    x = torch.randn(1, 9, 32)
    assert torch.equal(model.blocks[0](x)[0], x)
