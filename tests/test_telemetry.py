"""Telemetry: what it says of a step, against what can be worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from test_training import BYTES, CONFIG, RECIPE, make_batches

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.loop import train
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.record import Run, make_manifest
from cort33x_lib.training.step import layer_group, take_step
from cort33x_lib.training.telemetry import (
    PROBE_EVERY,
    Telemetry,
    probe_model,
    recordable,
    sampled,
    softmax_weights,
)

PATTERN = "WFSLD"


def one_step(model, batches):
    watcher, optimizer = Telemetry(model, batches), make_optimizer(model, RECIPE)
    old = {name: w.detach().clone() for name, w in model.named_parameters()}
    _, norm = take_step(model, optimizer, [batches[0]], 1e-2, 0.5, watcher=watcher)
    return watcher.measure(1, 1), old, norm


def test_gradient_norms_are_those_before_clipping():
    measured, _, norm = one_step(Transformer(CONFIG), make_batches())
    norms = measured["gradient_norms"]
    assert norm > 0.5  # clipped
    assert math.hypot(*norms.values()) == pytest.approx(norm, rel=1e-4)


def test_update_ratios_are_how_far_weights_moved():
    model = Transformer(CONFIG)
    measured, old, _ = one_step(model, make_batches())
    moved, size = {}, {}
    for name, weights in model.named_parameters():
        group = layer_group(name)
        change = (weights.detach() - old[name]).square().sum().item()
        moved[group] = moved.get(group, 0) + change
        size[group] = size.get(group, 0) + old[name].square().sum().item()
    for group, ratio in measured["update_ratios"].items():
        assert ratio == pytest.approx((moved[group] / size[group]) ** 0.5, rel=0.03)


def test_a_frozen_layer_shows_as_zero():
    model = Transformer(CONFIG)
    model.blocks[0].mixer.requires_grad_(False)
    measured, *_ = one_step(model, make_batches())
    assert measured["gradient_norms"]["blocks.0.mixer"] == 0
    assert measured["update_ratios"]["blocks.0.mixer"] == 0
    assert measured["gradient_norms"]["blocks.1.mixer"] > 0


@pytest.mark.parametrize("shape", [(5,), (7, 3), (512, 512), (2048, 128)])
def test_a_sample_is_a_view_that_reaches_every_column(shape):
    weights = torch.arange(math.prod(shape)).view(shape)
    found = sampled(weights)
    assert found.data_ptr() == weights.data_ptr()
    assert len(set((found % shape[-1]).tolist())) == shape[-1]


@pytest.mark.parametrize("letter", "WFSL")
def test_weights_found_again_give_what_the_mixer_reads(letter):
    torch.manual_seed(0)
    model = Transformer(replace(CONFIG, pattern=letter))
    mixer, T = model.blocks[0].mixer, 40
    x = torch.randn(2, T, CONFIG.channels)
    weights = softmax_weights(mixer, x)
    assert weights.shape == (2, CONFIG.heads, T, T + (letter == "S"))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, CONFIG.heads, T))
    if letter in "FWS":
        _, _, values = mixer.project(x, torch.zeros(1, dtype=torch.int64))
        values = values.repeat_interleave(CONFIG.heads // CONFIG.key_value_heads, 1)
        torch.nn.init.normal_(mixer.project_out.weight)
        expected = mixer.join_heads(weights[..., :T] @ values)
        torch.testing.assert_close(mixer(x)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_probe_measures_each_kind_of_layer():
    model = Transformer(replace(CONFIG, pattern=PATTERN))
    found = probe_model(model, make_batches()[0][0][:1])
    assert [*found["activations"]] == ["embedding", *(f"blocks.{n}" for n in range(5))]
    assert [*found["entropies"]] == ["0.W", "1.F", "2.S", "3.L"]
    assert [*found["sinks"]] == ["2.S"] and [*found["decays"]] == ["4.D"]
    assert 0 < found["sinks"]["2.S"] < 1 and 0.8 < found["decays"]["4.D"] < 1
    assert found["entropies"]["0.W"] < math.log(CONFIG.window)
    assert found["logits"]["lowest"] < 0 < found["logits"]["highest"]


def test_a_probe_leaves_no_trace_in_the_model():
    model = Transformer(replace(CONFIG, pattern=PATTERN))
    probe_model(model, make_batches()[0][0][:1])
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(weights.grad is None for weights in model.parameters())


def test_telemetry_does_not_change_a_run(tmp_path):
    run = Run.create(tmp_path, "x", make_manifest(CONFIG, RECIPE, "c", BYTES.name))
    watched, alone = Transformer(CONFIG), Transformer(CONFIG)
    recorded = [m["loss"] for m in train(watched, make_batches(), RECIPE, run)]
    assert recorded == [m["loss"] for m in train(alone, make_batches(), RECIPE)]
    lines = run.metrics()
    assert all(len(line["gradient_norms"]) == 11 for line in lines)
    probes = [line["step"] for line in lines if "entropies" in line]
    assert probes == [1, *range(PROBE_EVERY, RECIPE.steps + 1, PROBE_EVERY)]
    tokens = make_batches().tokens
    share = tokens.nbytes.sum() / len(tokens.ids)
    assert lines[-1]["bytes"] == pytest.approx(lines[-1]["tokens"] * share, abs=1)
    assert lines[-1]["memory"]["resident"] > 10_000_000


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null(number):
    assert recordable(number) is None
    model = Transformer(CONFIG)
    model.norm.gain.data[0] = number
    found = probe_model(model, make_batches()[0][0][:1])
    assert found["logits"]["highest"] is None or found["logits"]["lowest"] is None
