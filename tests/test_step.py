"""One step: accumulation, clipping, precision, what is refused before the update."""

import math
from dataclasses import replace

import pytest
import torch

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import Run, make_manifest
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.step import add_gradients, take_step

BYTES = Tokenizer(())
CONFIG = replace(CONFIGS["tiny"], vocabulary=BYTES.vocabulary)
RECIPE = RECIPES["tiny"]


@pytest.fixture(scope="module")
def tokens():
    return encode_documents(BYTES, World.load().stories("train", 200))


def eight_rows(tokens, uneven):
    """(8, T) inputs and targets; rows count 32, 31, ... targets where uneven."""
    inputs, targets = Batches(tokens, 8, 32, 0)[0]
    if uneven:
        for row, target in enumerate(targets):
            target[32 - 4 * row :] = -100  # row 0 counts all
        targets[3] = -100  # and row 3 none: with rows one by one, a batch without any
    return inputs, targets


def gradients_of(batch, rows, dtype, model=None):
    model = model or Transformer(CONFIG).to(dtype)
    parts = [*zip(*(ids.split(rows) for ids in batch), strict=True)]
    shares = add_gradients(model, parts)
    gradients = torch.cat([weights.grad.flatten() for weights in model.parameters()])
    return sum(share.item() for share in shares), gradients


def awake(dtype):
    """A model whose gradients are all there: a new one's blocks add nothing."""
    model = Transformer(CONFIG)
    generator = torch.Generator().manual_seed(1)
    for weights in model.parameters():
        weights.data.normal_(0, 0.2, generator=generator)
    return model.to(dtype)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
def test_gradients_are_those_of_one_large_batch(tokens, uneven, rows, dtype, bound):
    batch = eight_rows(tokens, uneven)
    whole = gradients_of(batch, 8, dtype, awake(dtype))
    parts = gradients_of(batch, rows, dtype, awake(dtype))
    assert parts[0] == pytest.approx(whole[0], rel=bound)
    size = 1.0 if dtype == torch.float64 else whole[1].abs().max()
    assert (parts[1] - whole[1]).abs().max() <= bound * size
    assert whole[1].abs().max() > 1e-3


def test_a_mean_of_means_would_be_found(tokens):
    """The bug that the test above is for changes gradients far above its bound."""
    batch, model = eight_rows(tokens, uneven=True), awake(torch.float64)
    _, whole = gradients_of(batch, 8, torch.float64, awake(torch.float64))
    for inputs, targets in zip(*batch, strict=True):
        if (targets != -100).any():
            (model.loss(inputs[None], targets[None]) / 7).backward()
    wrong = torch.cat([weights.grad.flatten() for weights in model.parameters()])
    assert (wrong - whole).abs().max() > 1e-3


def test_logged_loss_is_the_token_mean_of_100_steps(tokens):
    """Recomputed offline from logits, by the weights as they were before each step."""
    recipe = replace(RECIPE, steps=100, rows=2, accumulation=3)
    batches = Uneven(tokens, recipe.rows, recipe.length, 0)
    model, twin = Transformer(CONFIG), Transformer(CONFIG)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    for measured in train(model, batches, recipe):
        twin.load_state_dict(before)
        first = 3 * (measured["step"] - 1)
        parts = [batches[number] for number in range(first, first + 3)]
        assert measured["loss"] == pytest.approx(token_mean(twin, parts), abs=1e-6)
        before = {name: x.clone() for name, x in model.state_dict().items()}


class Uneven(Batches):
    """Batches in which a third of the micro-batches count few targets."""

    def __getitem__(self, step):
        inputs, targets = super().__getitem__(step)
        if step % 3 == 0:
            targets[:, 5:] = -100
        return inputs, targets


@torch.no_grad()
def token_mean(model, parts):
    total = count = 0
    for inputs, targets in parts:
        logits, _ = model(inputs)
        chances = logits.double().log_softmax(2)
        counted = targets != -100
        picked = chances.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
        total -= picked[counted].sum().item()
        count += counted.sum().item()
    return total / count


def test_no_target_that_counts_is_refused(tokens):
    inputs, targets = eight_rows(tokens, uneven=False)
    model = Transformer(CONFIG)
    optimizer = torch.optim.SGD(model.parameters())
    nothing = inputs, torch.full_like(targets, -100)
    with pytest.raises(ValueError, match="no target counts in 2 micro-batches"):
        take_step(model, optimizer, [nothing, nothing], 0.1, 1.0)


def test_clipping_shortens_the_gradient_and_keeps_its_direction(tokens):
    batch, model = eight_rows(tokens, uneven=False), awake(torch.float64)
    _, gradients = gradients_of(batch, 8, torch.float64, awake(torch.float64))
    before = torch.cat([w.detach().flatten() for w in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters())
    _, norm = take_step(model, optimizer, [batch], rate=0.5, clip=0.01)
    moved = before - torch.cat([w.detach().flatten() for w in model.parameters()])
    assert norm == pytest.approx(gradients.norm().item())
    assert moved.norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    torch.testing.assert_close(moved / moved.norm(), gradients / gradients.norm())


def test_clipped_steps_are_counted_on_after_a_stop(tokens, tmp_path):
    recipe = replace(RECIPE, clip=1.4)
    manifest = make_manifest(CONFIG, recipe, "c", BYTES.name)
    run = Run.create(tmp_path, "clip", manifest)
    batches = Batches(tokens, recipe.rows, recipe.length, 0)
    for measured in train(Transformer(CONFIG), batches, recipe, run):
        if measured["step"] == 7:
            break
    lines = [*train(Transformer(CONFIG), batches, recipe, run)]
    recorded = run.metrics()
    flags = [line["gradient_norm"] > 1.4 for line in recorded]
    assert 0 < sum(flags) < len(flags) == 20
    assert [line["clipped"] for line in recorded] == flags
    assert [line["clipped_steps"] for line in recorded] == [
        sum(flags[: n + 1]) for n in range(20)
    ]
    assert lines[-1]["clipped_steps"] == sum(flags)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_half_precision_is_near_and_weights_stay_whole(tokens):
    batch = eight_rows(tokens, uneven=True)
    found = {}
    for precision in ("float32", "bfloat16"):
        model = awake(torch.float32)
        optimizer = torch.optim.SGD(model.parameters())
        found[precision] = take_step(model, optimizer, [batch], 0.1, 1.0, precision)
        assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)


def test_warmup_stays_then_falls_in_a_straight_line():
    recipe = replace(
        RECIPES["cort33x"], steps=1000, schedule="wsd", warmup=0.02, cooldown=0.2
    )
    rates = [learning_rate(recipe, step) for step in range(1, 1001)]
    assert rates[:20] == pytest.approx([3e-4 * n / 20 for n in range(1, 21)])
    assert rates[19:800] == [3e-4] * 781
    assert rates[-1] == pytest.approx(3e-5)
    falls = [a - b for a, b in zip(rates[799:], rates[800:], strict=False)]
    assert falls == pytest.approx([(3e-4 - 3e-5) / 200] * 200)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.5])
def test_every_short_schedule_is_between_its_ends(schedule, steps, warmup):
    recipe = replace(RECIPE, schedule=schedule, steps=steps, warmup=warmup)
    rates = [learning_rate(recipe, step) for step in range(1, steps + 1)]
    assert all(0 < rate <= recipe.peak_rate * (1 + 1e-12) for rate in rates)
    assert all(map(math.isfinite, rates))
    if steps > 1:
        assert rates[-1] == pytest.approx(recipe.final_rate)
