"""What stops a run before its first update."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.start import (
    TOLERANCE,
    DeviceError,
    FirstLossError,
    check_device,
    check_first_loss,
    device_error,
    expected_first_loss,
)

BYTES = Tokenizer(())
CONFIG = replace(CONFIGS["tiny"], vocabulary=BYTES.vocabulary)
RECIPE = RECIPES["tiny"]


@pytest.fixture(scope="module")
def batches():
    tokens = encode_documents(BYTES, World.load().stories("train", 200))
    return Batches(tokens, RECIPE.rows, RECIPE.length, RECIPE.seed)


class Forgetful(TorchDispatchMode):
    """A device that loses a little of every product of float32 matrices."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.mm.default and found.dtype == torch.float32:
            found *= 0.99
        return found


def test_the_cpu_computes_rightly():
    assert 0 < device_error("cpu") <= TOLERANCE
    check_device("cpu")


def test_a_run_on_a_device_that_forgets_is_stopped(batches):
    model = Transformer(CONFIG)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    check_device.cache_clear()
    with Forgetful():
        assert device_error("cpu") > 3 * TOLERANCE
        for _ in range(2):  # a failure is not remembered as a success
            with pytest.raises(
                DeviceError, match="cpu are off by .*do not train on it"
            ):
                next(train(model, batches, RECIPE))
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, before[name])
    next(train(model, batches, RECIPE))


SIZES = {
    "tiny": CONFIG,
    "wide": replace(CONFIG, channels=256, pattern="F"),
    "all letters": replace(CONFIG, pattern="WFSLD"),
    "large vocabulary": replace(CONFIG, vocabulary=5000),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_first_loss_of_a_new_model_is_as_expected(name, batches, capsys):
    """Never stopped by chance: 50 new models of each kind on 50 batches of text."""
    config, furthest = SIZES[name], 0.0
    for seed in range(50):
        model, batch = Transformer(config, seed), batches[seed]
        check_first_loss(model, batch)
        expected, error = expected_first_loss(config, batch)
        with torch.no_grad():
            away = abs(model.loss(*batch).item() - expected)
        furthest = max(furthest, away / (4 * error + 0.05))
    assert furthest < 1
    with capsys.disabled():
        print(f"\n{name}: n = 50, furthest at {furthest:.2f} of the allowed", end="")


def test_a_narrow_model_starts_at_the_logarithm_of_its_vocabulary(batches):
    expected, error = expected_first_loss(CONFIG, batches[0])
    assert expected == pytest.approx(math.log(257), abs=0.05)
    assert error < 0.02


def trained(batches):
    model = Transformer(CONFIG)
    for _ in train(model, batches, replace(RECIPE, peak_rate=0.01)):
        pass
    return model


def test_trained_weights_are_refused_untouched(batches):
    model = trained(batches)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(FirstLossError, match="its weights are trained already"):
        next(train(model, batches, RECIPE))
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, before[name])


def test_another_vocabulary_is_refused(batches):
    model = trained(batches)
    shuffled = torch.randperm(257, generator=torch.Generator().manual_seed(0))
    inputs, targets = batches[0]
    with pytest.raises(FirstLossError, match="trained with another vocabulary"):
        check_first_loss(model, (shuffled[inputs], shuffled[targets]))


def test_large_first_weights_are_refused(batches):
    model = Transformer(CONFIG)
    model.embedding.weight.data *= 10
    with pytest.raises(
        FirstLossError, match=r"first loss .* expected 5\.\d+ \+- 0\.\d+"
    ):
        check_first_loss(model, batches[0])


def test_targets_that_are_not_moved_are_refused(batches):
    inputs, _ = batches[0]
    with pytest.raises(FirstLossError, match="expected the tokens that follow"):
        check_first_loss(Transformer(CONFIG), (inputs, inputs))
