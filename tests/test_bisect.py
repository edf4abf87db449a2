"""Attribution: known games are split as they must be, and a planted cause is found."""

import random
import shutil
from dataclasses import replace
from itertools import combinations

import pytest

from cort33x_lib.files import PROJECT
from cort33x_lib.lab.bisect import (
    FULL,
    attribute_difference,
    bisect,
    change_orders,
    mixed_plan,
    needed_arms,
    plan_differences,
)
from cort33x_lib.lab.plan import PLANS
from cort33x_lib.lab.uncertainty import student_quantile
from cort33x_lib.text.corpus import Document, save_corpus
from cort33x_lib.text.story_world import World

PLAN = replace(PLANS["tiny"], recipe=replace(PLANS["tiny"].recipe, steps=8))


def scores_of(names, seeds, value):
    return {(made, s): value(made, s) for made, s in needed_arms(names, seeds)}


def test_shares_of_a_game_that_is_known():
    """a adds 1, b adds 2, both together 3 more: shares 2.5 and 3.5, interaction 3."""
    names, seeds = ["a", "b", "c"], [0, 1, 2]

    def value(made, seed):
        return 10 + seed + ("a" in made) + 2 * ("b" in made) + 3 * ({"a", "b"} <= made)

    found = attribute_difference(scores_of(names, seeds, value), names, seeds)
    shares = {effect.name: effect for effect in found.effects}
    assert [e.name for e in found.effects] == ["b", "a", "c"]
    assert shares["a"].mean == pytest.approx(2.5)
    assert shares["b"].mean == pytest.approx(3.5)
    assert (shares["c"].mean, shares["c"].verdict) == (0, "nothing")
    assert found.total.mean == pytest.approx(6) and found.total.verdict == "costs"
    together = {effect.name: effect.mean for effect in found.interactions}
    assert together == pytest.approx({"a and b": 3, "a and c": 0, "b and c": 0})


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_shares_sum_to_the_difference(count):
    names, seeds = [f"n{n}" for n in range(count)], [0, 1, 2, 3]
    noise = random.Random(0)
    kept = {}

    def value(made, seed):
        return kept.setdefault((made, seed), noise.gauss(0, 1))

    scores = scores_of(names, seeds, value)
    found = attribute_difference(scores, names, seeds)
    assert sum(e.mean for e in found.effects) == pytest.approx(found.total.mean)
    expected = 2**count if count <= FULL else 2 * (count - 1) + 2
    assert len(scores) <= expected * 4
    assert bool(found.interactions) == (2 <= count <= FULL)


def test_intervals_cover_a_true_effect():
    """Of 300 games with noise, the interval leaves out the truth in about 5%."""
    drawn, missed = random.Random(1), 0
    for _ in range(300):
        noise = {seed: drawn.gauss(0, 1) for seed in range(4)}
        own = {seed: drawn.gauss(0.3, 0.1) for seed in range(4)}
        scores = scores_of(
            ["a"], range(4), lambda made, s, n=noise, o=own: n[s] + o[s] * ("a" in made)
        )
        effect = attribute_difference(scores, ["a"], range(4)).effects[0]
        missed += not effect.low <= 0.3 <= effect.high
    assert 4 <= missed <= 30


def test_students_quantiles_are_those_of_the_tables():
    for freedom, level, table in [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.975, 4.177),
        (30, 0.99, 2.750),
    ]:
        assert student_quantile(freedom, level) == pytest.approx(table, abs=2e-3)


def test_too_few_seeds_are_refused():
    with pytest.raises(ValueError, match="1 seeds, expected at least 2"):
        attribute_difference({}, ["a"], [0])


def test_every_order_or_one_and_its_reverse():
    assert len(change_orders("abcd", 0)) == 24
    one, back = change_orders("abcde", 0)
    assert one == back[::-1] and sorted(one) == [*"abcde"]
    assert change_orders("abcde", 0) == change_orders("abcde", 0)


def test_plans_differ_in_keys_and_mix():
    other = replace(
        PLAN,
        model=replace(PLAN.model, window=4),
        recipe=replace(PLAN.recipe, clip=2.0, seed=5, save_every=3),
    )
    names = plan_differences(PLAN, other)
    assert names == ["model.window", "recipe.clip"]
    for count in range(3):
        for made in combinations(names, count):
            plan = mixed_plan(PLAN, other, made, 9)
            assert plan.model.window == (4 if "model.window" in made else 8)
            assert plan.recipe.clip == (2.0 if "recipe.clip" in made else 1.0)
            assert (plan.recipe.seed, plan.recipe.save_every) == (9, 10)


def test_plans_that_are_the_same_are_refused():
    with pytest.raises(ValueError, match="nothing but the seed"):
        bisect(PLAN, mixed_plan(PLAN, PLAN, [], 3))


def test_a_planted_cause_is_found_beside_one_that_does_nothing():
    other = replace(
        PLAN,
        model=replace(PLAN.model, latent_channels=32),
        recipe=replace(PLAN.recipe, peak_rate=3e-4),
    )
    seen = []
    found = bisect(PLAN, other, seeds=range(3), done=seen.append)
    assert len(seen) == len(found.scores) == 12
    rate, latent = found.effects
    assert (rate.name, rate.verdict) == ("recipe.peak_rate", "costs")
    assert (latent.name, latent.verdict) == ("model.latent_channels", "nothing")
    assert "not one bit moved" in " ".join(found.sentences())


def test_planted_code_is_a_cause_like_others(tmp_path, monkeypatch):
    """A copy of the library whose rate never rises, in a process of its own.

    The corpus is named as it is seen from here, which is neither copy.
    """
    documents = [
        Document(story.text, f"{number}", "story world", "CC0-1.0")
        for number, story in enumerate(World.load().stories("train", 200))
    ]
    save_corpus(tmp_path / "here" / "tales", documents)
    monkeypatch.chdir(tmp_path / "here")
    plan = replace(PLAN, corpus=replace(PLAN.corpus, source="tales"))
    shutil.copytree(PROJECT / "cort33x_lib", tmp_path / "cort33x_lib")
    (tmp_path / "data").symlink_to(PROJECT / "data")
    file = tmp_path / "cort33x_lib" / "training" / "schedule.py"
    text = file.read_text()
    old = "return recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * height"
    assert text.count(old) == 1
    file.write_text(text.replace(old, "return recipe.final_rate / 100"))
    seen = []
    code = PROJECT, tmp_path
    found = bisect(plan, plan, seeds=range(2), code=code, done=seen.append)
    assert seen == [*found.scores] and len(seen) == 4
    assert [(e.name, e.verdict) for e in found.effects] == [("code", "costs")]


def test_code_that_cannot_train_says_why(tmp_path):
    with pytest.raises(ValueError, match="holds no cort33x_lib"):
        bisect(PLAN, PLAN, seeds=range(2), code=(tmp_path, tmp_path))
    (tmp_path / "cort33x_lib").mkdir()
    (tmp_path / "cort33x_lib" / "__init__.py").write_text("raise OSError('broken')")
    with pytest.raises(RuntimeError, match="cannot train these plans: OSError: broken"):
        bisect(PLAN, PLAN, seeds=range(2), code=(tmp_path, tmp_path))
