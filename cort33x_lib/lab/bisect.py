"""What made the difference between two runs: each change in and out, in paired runs.

    found = bisect(plan_of(a.manifest), plan_of(b.manifest), seeds=range(4))

Every set of changes is trained with the same seeds, so that chance is alike in all of
them. With up to FULL changes all 2^k sets are trained and the difference is split by
Shapley's (1953) rule: what a change adds, averaged over all orders in which the changes
can be made. With more, over two orders a seed, one of them drawn and one the reverse.
Intervals are Student's over the seeds, 95% for all changes together. Left out: machine
and versions, which cannot be changed from inside; the seed, which is chance.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations, permutations
from pathlib import Path

import numpy as np

from cort33x_lib.lab.plan import Plan
from cort33x_lib.lab.uncertainty import student_quantile
from cort33x_lib.lab.workbench import Workbench, scores_elsewhere

FULL = 4
PASSED_OVER = {"recipe.seed", "recipe.save_every", "recipe.examine_every"}
Arm = tuple[frozenset[str], int]  # the changes that are made, and the seed
Scores = dict[Arm, float]  # bits per byte


@dataclass(frozen=True)
class Effect:
    """How many bits per byte a change adds, with its interval; less is better."""

    name: str
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether it "costs" or "gains", or "nothing" has moved, or "undecided"."""
        if self.low == self.high == 0:
            return "nothing"
        return "costs" if self.low > 0 else "gains" if self.high < 0 else "undecided"


@dataclass(frozen=True)
class Bisection:
    """The difference between two plans, split; `effects` sum to `total`."""

    total: Effect
    effects: list[Effect]  # the largest first
    interactions: list[Effect]  # of each two changes; only where all sets were trained
    scores: Scores

    def sentences(self) -> list[str]:
        """What was found, a sentence each."""
        said = [
            f"All changes, in {len(self.scores)} short runs: {in_words(self.total)}."
        ]
        said += [f"{each.name}: {in_words(each)}." for each in self.effects]
        said += [
            f"{x.name} together: {in_words(x)}." for x in self.interactions if x.mean
        ]
        return said


def in_words(effect: Effect) -> str:
    """An effect in words."""
    if effect.verdict == "nothing":
        return "not one bit moved"
    interval = (
        f"{effect.mean:+.4f} bits per byte [{effect.low:+.4f}, {effect.high:+.4f}]"
    )
    return f"{interval}, {effect.verdict}"


def change_orders(names: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """The orders in which changes are made: all of them, or one and its reverse."""
    if len(names) <= FULL:
        return [*permutations(names)]
    drawn = random.Random(seed).sample([*names], len(names))
    return [(*drawn,), (*reversed(drawn),)]


def needed_arms(names: Sequence[str], seeds: Iterable[int]) -> list[Arm]:
    """The runs that `attribute_difference` needs, each once."""
    return [
        *dict.fromkeys(
            (frozenset(order[:count]), seed)
            for seed in seeds
            for order in change_orders(names, seed)
            for count in range(len(names) + 1)
        )
    ]


def added_by(name: str, names: Sequence[str], seed: int, scores: Scores) -> float:
    """What a change adds when it is made, averaged over the orders of a seed."""
    found = []
    for order in change_orders(names, seed):
        before = frozenset(order[: order.index(name)])
        found.append(scores[before | {name}, seed] - scores[before, seed])
    return float(np.mean(found))


def beyond_sum(
    one: str, two: str, names: Sequence[str], seed: int, scores: Scores
) -> float:
    """What two changes add together beyond what each adds, over all sets of others."""
    rest = [name for name in names if name not in (one, two)]
    sizes = range(len(rest) + 1)
    found = []
    for others in map(frozenset, chain(*(combinations(rest, size) for size in sizes))):
        parts = others | {one, two}, others | {one}, others | {two}, others
        together, left, right, none = (scores[part, seed] for part in parts)
        found.append(together - left - right + none)
    return float(np.mean(found))


def attribute_difference(
    scores: Scores, names: Sequence[str], seeds: Sequence[int]
) -> Bisection:
    """Share out the difference between no change and all of them.

    Raises ValueError for fewer than two seeds, of which no interval can be had.
    """
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds, expected at least 2")
    whole, none = frozenset(names), frozenset()
    total = [scores[whole, seed] - scores[none, seed] for seed in seeds]
    effects = [
        effect_of(name, [added_by(name, names, s, scores) for s in seeds], len(names))
        for name in names
    ]
    two = [*combinations(names, 2)] if len(names) <= FULL else []
    beyond = [
        effect_of(
            " and ".join(pair),
            [beyond_sum(*pair, names, seed, scores) for seed in seeds],
            len(two),
        )
        for pair in two
    ]
    effects.sort(key=lambda each: -abs(each.mean))
    return Bisection(effect_of("all changes", total, 1), effects, beyond, scores)


def effect_of(name: str, values: Sequence[float], among: int) -> Effect:
    """The mean of a value a seed, and its interval as one of `among` at once."""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = student_quantile(len(values) - 1, 1 - 0.05 / among) * spread
    reach /= len(values) ** 0.5
    return Effect(name, mean, mean - reach, mean + reach)


def plan_differences(one: Plan, other: Plan) -> list[str]:
    """The keys in which two plans differ, as "recipe.clip".

    The seed is not one, nor what says only when something is written or examined.
    """
    before, after = asdict(one), asdict(other)
    return [
        f"{part}.{key}"
        for part, table in before.items()
        for key, value in table.items()
        if value != after[part][key] and f"{part}.{key}" not in PASSED_OVER
    ]


def change_names(
    one: Plan, other: Plan, code: tuple[Path, Path] | None = None
) -> list[str]:
    """The keys in which two plans differ, and "code" where two folders hold it.

    Raises ValueError where there is nothing to change.
    """
    names = plan_differences(one, other) + ["code"] * bool(code)
    if not names:
        raise ValueError("the plans differ in nothing but the seed, expected a change")
    return names


def mixed_plan(one: Plan, other: Plan, names: Iterable[str], seed: int) -> Plan:
    """The first plan with some keys of the other, and a seed. Raises ValueError."""
    plan, names = one, [name for name in names if name != "code"]
    for part in dict.fromkeys(name.split(".")[0] for name in names):
        keys = [n.split(".")[1] for n in names if n.split(".")[0] == part]
        theirs = {key: getattr(getattr(other, part), key) for key in keys}
        plan = replace(plan, **{part: replace(getattr(plan, part), **theirs)})
    return replace(plan, recipe=replace(plan.recipe, seed=seed))


def bisect(
    one: Plan,
    other: Plan,
    seeds: Sequence[int] = range(4),
    code: tuple[Path, Path] | None = None,
    done: Callable[[Arm], None] = lambda arm: None,
    bench: Workbench | None = None,
) -> Bisection:
    """Train what is between two plans and split the difference in bits per byte.

    All are examined on the first plan's held-out documents. `code` gives two folders
    that hold a `cort33x_lib` each, as `git worktree add` makes them: then the code is a
    change like the others. `done` is called after each run. `bench`, made for the same
    first plan, keeps what it has prepared. Raises ValueError for plans that do not
    differ, and where two changes cannot be made one without the other.
    """
    names = change_names(one, other, code)
    wanted = needed_arms(names, seeds)
    plans = {arm: mixed_plan(one, other, *arm) for arm in wanted}
    scores: Scores = {}
    bench = bench or (None if code else Workbench(one))
    for arm in wanted:
        if not code:
            scores[arm] = bench.score(plans[arm])
            done(arm)
    for folder, new in zip(code or (), (False, True), strict=False):
        here = [arm for arm in wanted if ("code" in arm[0]) == new]
        told = scores_elsewhere(folder, one, [plans[arm] for arm in here])
        for arm, score in zip(here, told, strict=True):
            scores[arm] = score
            done(arm)
    return attribute_difference(scores, names, [*seeds])
