"""The batch finder, with real processes and their real peaks of memory."""

from dataclasses import replace

import pytest
import torch

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer
from cort33x_lib.training.batch_finder import find_batch, find_compiled
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES

WIDE = replace(CONFIGS["tiny"], feed_forward=1024, context=512)
RECIPE = replace(RECIPES["tiny"], rows=31, length=512)  # 31 rows: one by one, or all


def test_rows_are_found_within_a_limit_and_tokens_a_step_stay():
    found, trials = find_batch(WIDE, RECIPE)
    assert [trial.rows for trial in trials] == [1, 31]
    assert found.tokens_per_step == RECIPE.tokens_per_step
    one, all_rows = (trial.peak_bytes for trial in trials)
    assert all_rows > one + 50e6
    fastest = min(trials, key=lambda trial: trial.seconds / trial.rows)
    assert found.rows == fastest.rows

    found, trials = find_batch(WIDE, RECIPE, memory=(one + all_rows) // 2)
    assert [trial.rows for trial in trials] == [1]
    assert found == replace(RECIPE, rows=1, accumulation=31)

    message = "one row of 512 tokens needs .* bytes, expected at most 1,000 bytes"
    with pytest.raises(ValueError, match=message):
        find_batch(WIDE, RECIPE, memory=1000)


def test_other_rows_learn_the_same():
    config = replace(CONFIGS["tiny"], vocabulary=257)
    tokens = encode_documents(Tokenizer(()), World.load().stories("train", 50))
    models = []
    for rows, accumulation in ((4, 1), (2, 2), (1, 4)):
        recipe = replace(RECIPES["tiny"], rows=rows, accumulation=accumulation)
        model = Transformer(config).double()
        batches = Batches(tokens, rows, recipe.length, recipe.seed)
        losses = [measured["loss"] for measured in train(model, batches, recipe)]
        models.append((torch.tensor(losses), model))
    for losses, model in models[1:]:
        torch.testing.assert_close(losses, models[0][0], atol=1e-9, rtol=0)
        for one, other in zip(
            model.parameters(), models[0][1].parameters(), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


def test_a_compiler_that_takes_longer_than_it_saves_is_not_used():
    recipe = replace(RECIPES["tiny"], steps=1)
    found, seconds = find_compiled(CONFIGS["tiny"], recipe)
    assert found.compiled is False
    assert seconds["compiling"] > 0 > seconds["saved"]
    spared = seconds["eager"] - seconds["compiled"]
    assert seconds["saved"] == pytest.approx(spared - seconds["compiling"])
