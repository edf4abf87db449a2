"""The compiled step writes what PyTorch writes, and keeps the same states."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from cort33x_lib.lab.generation import (
    generate,
    generate_batch,
    next_logits,
    one_more,
    prefill,
)
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.decoding import ROWS, CompiledStep, compilable
from cort33x_lib.model.int8 import (
    Int8Transformer,
    compiled,
    dequantise,
    matrix_names,
    quantise,
)
from cort33x_lib.model.transformer import Transformer
from run import ROOT

CONFIG = replace(CONFIGS["tiny"], heads=4, key_value_heads=2, head_channels=8)
TIE = 1e-3  # logits nearer than this may change places in single precision
PROMPTS = [[5, 6, 7], [1], list(range(30)), list(range(50, 58))]
CLOSE = dict(rtol=1e-3, atol=1e-4)


def random_model(pattern="WF", seed=0, **changes):
    model = Transformer(replace(CONFIG, pattern=pattern, **changes))
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        chance = torch.randn(weights.shape, generator=generator)
        if name == "residual":
            weights.data.copy_(
                0.2 + 0.1 * chance
            )  # the context counts, not the last id
        elif weights.dim() == 2:
            weights.data.copy_(0.3 * chance)
        else:
            weights.data.copy_(1 + 0.2 * chance)
    return model


def precise(model, rounded=False):
    """The same model in double precision, its matrices rounded to int8 if wanted."""
    copy = Transformer(model.config)
    copy.load_state_dict(model.state_dict())
    for name, weights in copy.named_parameters():
        if rounded and name in matrix_names(copy):
            weights.data.copy_(dequantise(*quantise(weights)))
    return copy.double()


@torch.inference_mode()
def assert_greedy(model, prompt, ids):
    """Each id is the likeliest of a model that reads all of them at once, uncached."""
    logits = model(torch.tensor([prompt + ids]))[0][0, len(prompt) - 1 : -1]
    taken = logits.gather(1, torch.tensor(ids).unsqueeze(1))[:, 0]
    assert (logits.amax(1) - taken < TIE).all()
    assert (logits.argmax(1) == torch.tensor(ids)).sum() > len(ids) - 5


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("pattern", ["F", "W", "S", "WSFWF"])
def test_greedy_is_greedy_without_a_cache_500_tokens_past_the_window(pattern, kind):
    model = random_model(pattern, seed=2)  # with 0, S writes seven different ids
    small = Int8Transformer(model) if kind == "int8" else model
    assert compilable(small, 1)
    ids = list(generate(small, PROMPTS[0], CONFIG.window + 500, temperature=0))
    assert_greedy(precise(model, rounded=kind == "int8"), PROMPTS[0], ids)
    assert len(set(ids)) > 10


def test_each_row_of_a_batch_is_greedy_without_a_cache():
    model = random_model("WSF")
    assert compilable(model, len(PROMPTS))
    rows = list(zip(*generate_batch(model, PROMPTS, 90, temperature=0), strict=True))
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert_greedy(precise(model), prompt, list(row))


@torch.inference_mode()
def both_read(model, prompts, count):
    """Logits of the last step and the states, compiled and by PyTorch; ids read."""
    generator = torch.Generator().manual_seed(3)
    chance = torch.randint(64, (count, len(prompts), 1), generator=generator)
    _, states = prefill(model, prompts)
    before = [state.clone() for state in states]
    step = one_more(model, states)
    assert isinstance(step, CompiledStep)
    for ids in chance:
        logits = step(ids)
    for state, copy in zip(states, before, strict=True):  # no memory is shared
        assert all(torch.equal(x, vars(copy)[name]) for name, x in vars(state).items())
    for ids in chance:
        expected, states = next_logits(model, ids, states)
    return step, logits, expected, states


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:3]])
@pytest.mark.parametrize("count", [1, 40, 130])
def test_logits_and_states_are_those_of_pytorch(prompts, count):
    model = random_model("WSFF")
    step, logits, expected, states = both_read(model, prompts, count)
    torch.testing.assert_close(logits, expected, **CLOSE)
    for ours, theirs in zip(step.states(), states, strict=True):
        assert torch.equal(ours.position, theirs.position)
        assert ours.nbytes == theirs.nbytes
        for row, read in enumerate(ours.position.tolist()):
            for x, y in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
                torch.testing.assert_close(
                    x[row, :, -read:], y[row, :, -read:], **CLOSE
                )


@torch.inference_mode()
def test_pytorch_and_another_step_go_on_from_its_states():
    model, ids = random_model("WSFF"), torch.tensor([[9]])
    step, _, _, _ = both_read(model, PROMPTS[:1], 30)
    after, more = step.states(), torch.tensor([[9, 3, 4]])
    logits, _ = model(more, [state.clone() for state in after])
    again = CompiledStep(model, after)
    for place in range(3):
        torch.testing.assert_close(step(ids), logits[:, place], **CLOSE)
        torch.testing.assert_close(again(ids), logits[:, place], **CLOSE)
        ids = more[:, place + 1 : place + 2]
    assert after[0].position.item() + 3 == again.states()[0].position.item()


@torch.inference_mode()
def test_weights_that_change_are_seen_at_once_and_in_the_next_call():
    model, other = random_model("WF"), random_model("WF", seed=1)
    _, states = prefill(model, PROMPTS[:1])
    step, ids = CompiledStep(model, states), torch.tensor([[9]])
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(step(ids), next_logits(model, ids, states)[0], **CLOSE)
    for weights in model.parameters():
        weights.data = weights.data * 1.1  # in other memory than before
    moved = list(generate(model, PROMPTS[0], 60, temperature=0))
    assert_greedy(precise(model), PROMPTS[0], moved)


def test_what_it_cannot_compute_goes_the_other_way():
    model = random_model("WF")
    assert compilable(model, 1) and compilable(model, ROWS)
    assert not compilable(model, ROWS + 1)
    assert not compilable(random_model("WF").double(), 1)
    assert not compilable(random_model("WD"), 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not compilable(model, 1)
    seen = []
    model.blocks[0].register_forward_hook(lambda *given: seen.append(given))
    list(generate(model, [1], 5))
    assert len(seen) == 5
    other = random_model("WF")
    other.blocks[1].mixer = torch.nn.Identity()
    assert not compilable(other, 1)


SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
if sys.argv[1] == "without":
    sys.modules["numba"] = None
from cort33x_lib.lab.generation import generate
from cort33x_lib.model.decoding import compilable
from tests.test_decoding import random_model
models = [random_model("WSF", seed) for seed in range(4)]
assert compilable(models[0], 1) == (sys.argv[1] == "with")
write = lambda model: list(generate(model, [1, 2], 60, temperature=0))
alone = [write(model) for model in models]
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(write, models)) == alone
print(alone)
"""


@pytest.mark.parametrize("pool", ["workqueue", "default"])
def test_without_numba_the_text_is_the_same_and_threads_may_write_at_once(pool):
    found = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, kind],
            cwd=ROOT,
            env=dict(os.environ, NUMBA_THREADING_LAYER=pool, OMP_NUM_THREADS="2"),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kind in ("with", "without")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [torch.float32, torch.int8])
@pytest.mark.parametrize("count", [*range(1, 10), 33])
def test_any_number_of_matrix_rows_is_multiplied(count, kind):
    generator = torch.Generator().manual_seed(count)
    numbers = torch.randint(-127, 128, (count, 21), generator=generator).to(kind)
    scales = torch.rand(count, generator=generator)
    x, product = torch.randn(3, 21, generator=generator), torch.full((3, count), 1e9)
    arrays = [each.numpy() for each in (x, numbers, scales, product)]
    compiled().multiply_rows(*arrays)
    wanted = x.double() @ (numbers.double() * scales.double().unsqueeze(1)).T
    torch.testing.assert_close(product.double(), wanted, rtol=1e-5, atol=1e-3)
