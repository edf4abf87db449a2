"""Optimizers against PyTorch's and against arithmetic done another way."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import (
    AdamW,
    Descent,
    FusedAdamW,
    Muon,
    Together,
    adamw,
    make_optimizer,
    orthogonalise,
)
from cort33x_lib.training.optimizer_state import recall, remembered
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.step import take_step

TINY = CONFIGS["tiny"]
RECIPE = RECIPES["tiny"]


def random_weights(count=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5,), (3, 4, 2), ()][:count]
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in shapes
    ]


def groups_of(weights):
    first = {"params": weights[:2], "weight_decay": 0.1}
    return [first, {"params": weights[2:], "weight_decay": 0.0, "lr": 2e-3}]


@pytest.mark.parametrize("kind", [AdamW, FusedAdamW])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_equals_pytorchs_over_1000_steps(kind, fused):
    ours, theirs = random_weights(), random_weights()
    numbers = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    pair = (
        kind(groups_of(ours), **numbers),
        torch.optim.AdamW(groups_of(theirs), **numbers, fused=fused),
    )
    generator, furthest = torch.Generator().manual_seed(1), 0.0
    for step in range(1000):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(
                one.shape, generator=generator, dtype=torch.float64
            ) * (10.0 if step % 7 == 0 else 0.01)
            other.grad = one.grad.clone()
        if step % 10 == 3:  # a weight that takes no part now and then
            ours[0].grad = theirs[0].grad = None
        for optimizer in pair:
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 + step / 100)
            optimizer.step()
        apart = [
            (a - b).detach().abs().max() for a, b in zip(ours, theirs, strict=True)
        ]
        furthest = max(furthest, *map(float, apart))
    assert furthest < 1e-12
    for one, other in zip(ours, theirs, strict=True):
        states = pair[0].state[one], pair[1].state[other]
        assert set(states[0]) == set(states[1])
        for name, value in states[0].items():
            assert (value.shape, value.dtype) == (
                states[1][name].shape,
                states[1][name].dtype,
            )
            torch.testing.assert_close(value, states[1][name], atol=1e-12, rtol=0)


def steps_of(model, optimizer, count, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        ids = torch.randint(0, 64, (2, 17), generator=generator)
        take_step(model, optimizer, [(ids[:, :-1], ids[:, 1:])], 1e-3, 1.0)


@pytest.mark.parametrize("ours", [AdamW, FusedAdamW])
@pytest.mark.parametrize("ours_first", [True, False])
def test_one_goes_on_from_the_state_of_the_other(ours, ours_first):
    kinds = [ours, torch.optim.AdamW]
    kinds = kinds if ours_first else kinds[::-1]
    whole, model = Transformer(TINY).double(), Transformer(TINY).double()
    steps_of(whole, before := kinds[0](whole.parameters(), lr=1e-3), 5, seed=0)
    steps_of(model, first := kinds[0](model.parameters(), lr=1e-3), 5, seed=0)
    second = kinds[1](model.parameters(), lr=1e-3)
    tensors = {name: x.clone() for name, x in remembered(model, first).items()}
    recall(model, second, tensors)
    steps_of(model, second, 5, seed=1)
    steps_of(whole, before, 5, seed=1)
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_the_fused_form_is_taken_where_there_is_one():
    weights = torch.zeros(2, 2)
    assert type(adamw([{"params": [weights]}], RECIPE)) is FusedAdamW
    assert type(adamw([{"params": [weights.to("meta")]}], RECIPE)) is AdamW


@pytest.mark.parametrize("kind", [AdamW, FusedAdamW, Descent])
def test_a_group_without_gradients_stays_as_it_is(kind):
    still, moved = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = kind([{"params": [still]}, {"params": [moved]}], lr=0.5)
    moved.grad = torch.ones(2)
    optimizer.step()
    optimizer.zero_grad()
    assert torch.equal(still, torch.ones(2)) and moved.grad is None
    torch.testing.assert_close(
        moved.detach(), torch.full((2,), 0.5), atol=0.006, rtol=0
    )


def test_a_step_does_not_load_the_compiler():
    """It takes time and memory, and nothing here is compiled by it."""
    code = """
import sys, torch
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.start import check_device
from cort33x_lib.training.step import take_step
check_device("cpu")
model = Transformer(CONFIGS["tiny"])
ids = torch.zeros(1, 9, dtype=torch.int64)
optimizer = make_optimizer(model, RECIPES["tiny"])
take_step(model, optimizer, [(ids[:, :-1], ids[:, 1:])], 1e-3, 1.0)
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_one_step_by_hand():
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([{"params": [weight]}], lr=0.1, betas=(0.9, 0.99), eps=0.0)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    weight.grad = torch.tensor([4.0], dtype=torch.float64)
    optimizer.step()
    assert weight.item() == pytest.approx(2 * (1 - 0.05) - 0.1)  # whatever the gradient
    weight.grad = torch.tensor([-4.0], dtype=torch.float64)
    optimizer.step()
    mean = (0.9 * 0.4 - 0.4) / (1 - 0.81)
    assert weight.item() == pytest.approx(1.8 * 0.95 - 0.1 * mean / 4)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24), (5, 16, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    found = orthogonalise(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.65 < values.min() and values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest = left @ right  # orthogonal, with the same directions
    assert torch.linalg.matrix_norm(found - nearest).max() < 0.35 * shape[-1] ** 0.5
    torch.testing.assert_close(orthogonalise(100 * matrix), found, atol=1e-6, rtol=0)
    torch.testing.assert_close(orthogonalise(matrix.mT), found.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (3, 192, 64), (64, 192)])
@pytest.mark.parametrize("fall", [0, 1, 2])
def test_small_singular_values_stay_small_in_less_precision(shape, fall, dtype):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    values = torch.arange(1, 65, dtype=torch.float64) ** -fall
    matrix = left * values @ right
    found = orthogonalise(matrix.to(dtype))
    assert found.dtype == dtype
    assert torch.linalg.svdvals(found.double()).max() < 1.3
    wanted = orthogonalise(matrix)
    error = torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted)
    assert error < (1e-2 if dtype == torch.float32 else 0.4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_muon_works_in_the_precision_of_the_recipe_and_remembers_in_float32(precision):
    model = Transformer(TINY)
    recipe = replace(RECIPE, optimizer="muon", precision=precision, decay=0.0)
    muon = make_optimizer(model, recipe).parts[0]
    one = muon.param_groups[0]["params"][0]
    before = one.detach().clone()
    one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    muon.step()
    update = (before - one.detach()).double()
    update /= torch.linalg.vector_norm(update)
    wanted = orthogonalise(one.grad.double())
    wanted /= torch.linalg.vector_norm(wanted)
    error = torch.linalg.vector_norm(update - wanted)
    low, high = (1e-3, 0.1) if precision == "bfloat16" else (0, 1e-4)
    assert low < error < high
    assert muon.state[one]["momentum"].dtype == torch.float32


def muon_reference(weight, gradients, rate, decay, momentum=0.95):
    """The same updates by a singular value decomposition and the scalar polynomial."""
    mean = torch.zeros_like(weight)
    for gradient in gradients:
        mean = momentum * mean + (1 - momentum) * gradient
        ahead = momentum * mean + (1 - momentum) * gradient
        left, values, right = torch.linalg.svd(ahead, full_matrices=False)
        values = values / (values.square().sum().sqrt() + 1e-7)
        for _ in range(5):
            values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
        size = max(1, len(weight) / weight.size(1)) ** 0.5
        update = left @ values.diag() @ right * size
        weight = weight * (1 - rate * decay) - rate * update
    return weight


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (6, 6)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_muon_equals_its_reference(shape, decay):
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn((6, *shape), generator=generator).double()
    weight = start.clone().requires_grad_()
    optimizer = Muon([{"params": [weight]}], lr=0.02, weight_decay=decay)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    expected = muon_reference(start, gradients, 0.02, decay)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-9, rtol=0)


def test_matrices_that_are_stacked_get_the_updates_of_single_ones(monkeypatch):
    """Shapes mixed, one matrix without a gradient, stacks of at most two."""
    monkeypatch.setattr("cort33x_lib.training.optimizer.STACK", 2 * 4 * 6)
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 6), (6, 4), (4, 6), (4, 6), (5, 5)]
    starts = [torch.randn(s, generator=generator).double() for s in shapes]
    gradients = [torch.randn(s, generator=generator).double() for s in shapes]
    weights = [start.clone().requires_grad_() for start in starts]
    for one, gradient in zip(weights[:-1], gradients, strict=False):
        one.grad = gradient
    Muon([{"params": weights}], lr=0.02, weight_decay=0.1).step()
    assert torch.equal(weights[-1], starts[-1])
    for one, start, gradient in list(zip(weights, starts, gradients, strict=True))[:-1]:
        expected = muon_reference(start, [gradient], 0.02, 0.1)
        torch.testing.assert_close(one.detach(), expected, atol=1e-9, rtol=0)


def test_muon_has_a_rate_of_its_own_that_follows_the_schedule():
    model = Transformer(TINY)
    recipe = replace(RECIPE, optimizer="muon", matrix_rate=0.05)
    optimizer = make_optimizer(model, recipe)
    assert isinstance(optimizer, Together)
    ids = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
    half = recipe.peak_rate / 2
    take_step(model, optimizer, [(ids[:, :-1], ids[:, 1:])], half, 1.0)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.025, half])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    muon, adamw = optimizer.parts
    names = {weights: name for name, weights in model.named_parameters()}
    assert all(names[weights].startswith("blocks.") for weights in muon.state)
    assert all(set(state) == {"momentum"} for state in muon.state.values())
    assert len(muon.state) + len(adamw.state) == len(names)
    assert all(weights.grad is None for weights in names)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_optimizer_learns(kind):
    model = Transformer(TINY)
    optimizer = make_optimizer(model, replace(RECIPE, optimizer=kind))
    ids = torch.randint(0, 64, (4, 33), generator=torch.Generator().manual_seed(0))
    batch = ids[:, :-1], ids[:, 1:]
    losses = [take_step(model, optimizer, [batch], 3e-3, 1.0)[0] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
