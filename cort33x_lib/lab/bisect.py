"""What made the difference between two runs: each change in and out, in paired runs.

    found = bisect(plan_of(a.manifest), plan_of(b.manifest), seeds=range(4))

Every set of changes is trained with the same seeds, so that chance is alike in all of
them. With up to FULL changes all 2^k sets are trained and the difference is split by
Shapley's (1953) rule: what a change adds, averaged over all orders in which the changes
can be made. With more, over two orders a seed, one of them drawn and one the reverse.
Intervals are Student's over the seeds, 95% for all changes together. Left out: machine
and versions, which cannot be changed from inside; the seed, which is chance.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations, permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cort33x_lib.lab.evaluation import evaluate
from cort33x_lib.lab.launch import collect, cut_long, make_tokenizer
from cort33x_lib.lab.plan import Plan, plan_of
from cort33x_lib.lab.uncertainty import student_quantile
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.training.loop import train

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
    bench: "Workbench | None" = None,
) -> Bisection:
    """Train what is between two plans and split the difference in bits per byte.

    All are examined on the first plan's held-out documents. `code` gives two folders
    that hold a `cort33x_lib` each, as `git worktree add` makes them: then the code is a
    change like the others. `done` is called after each run. `bench`, made for the same
    first plan, keeps what it has prepared. Raises ValueError for plans that do not
    differ, and where two changes cannot be made one without the other.
    """
    names = plan_differences(one, other) + ["code"] * bool(code)
    if not names:
        raise ValueError("the plans differ in nothing but the seed, expected a change")
    wanted = needed_arms(names, seeds)
    plans = {arm: mixed_plan(one, other, *arm) for arm in wanted}
    scores: Scores = {}
    bench = bench or Workbench(one)
    for arm in wanted:
        if not code:
            scores[arm] = bench.score(plans[arm])
            done(arm)
    for folder, new in zip(code or (), (False, True), strict=False):
        here = [arm for arm in wanted if ("code" in arm[0]) == new]
        told = score_elsewhere(folder, one, [plans[arm] for arm in here])
        scores |= dict(zip(here, told, strict=True))
        for arm in here:
            done(arm)
    return attribute_difference(scores, names, [*seeds])


class Workbench:
    """Trains plans and scores them on one plan's held-out documents."""

    def __init__(self, judge: Plan):
        self.examined = collect(judge.corpus)[1]
        self._ready: dict[tuple, tuple[Tokens, Tokens]] = {}

    def prepare(self, plan: Plan) -> tuple[Tokens, Tokens]:
        """What a plan reads and what it is examined with, made once for like plans."""
        sizes = plan.model.vocabulary, plan.model.context
        key = (plan.corpus, plan.tokenizer, *sizes)
        if key not in self._ready:
            documents, _ = collect(plan.corpus)
            tokenizer = make_tokenizer(plan, documents)
            held_out = encode_documents(tokenizer, self.examined)
            held_out = cut_long(held_out, tokenizer, plan.model.context)
            self._ready[key] = encode_documents(tokenizer, documents), held_out
        return self._ready[key]

    def score(self, plan: Plan) -> float:
        """The bits per byte that a plan ends at; nothing is recorded."""
        tokens, held_out = self.prepare(plan)
        recipe, model = plan.recipe, Transformer(plan.model, seed=plan.recipe.seed)
        batches = Batches(tokens, recipe.rows, recipe.length, recipe.seed)
        for _ in train(model, batches, recipe):
            pass
        return evaluate(model, held_out).bits_per_byte


def score_elsewhere(folder: Path, judge: Plan, plans: list[Plan]) -> list[float]:
    """The same by the code in another folder, in a process of its own.

    Raises ValueError for a folder without a library, and RuntimeError with what that
    process complained of.
    """
    if not (folder / "cort33x_lib" / "__init__.py").exists():
        raise ValueError(
            f"{folder} holds no cort33x_lib, expected a copy of the project"
        )
    with TemporaryDirectory() as between:
        asked, told = Path(between, "asked.json"), Path(between, "told.json")
        asked.write_text(json.dumps([*map(manifest_of, [judge, *plans])]))
        call = "import sys; from cort33x_lib.lab.bisect import answer as a; "
        call += "a(*sys.argv[1:])"
        command = [sys.executable, "-c", call, str(asked), str(told)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise RuntimeError(f"the code in {folder} cannot train these plans: {last}")
        return json.loads(told.read_text())


def manifest_of(plan: Plan) -> dict:
    """What `plan_of` makes into the plan again."""
    parts = asdict(plan)
    kept = {part: parts[part] for part in ("corpus", "tokenizer")}
    return {"model": parts["model"], "recipe": parts["recipe"], "plan": kept}


def answer(asked: str, told: str) -> None:
    """Score the plans in one file, the first of which is the judge, into another."""
    judge, *plans = map(plan_of, json.loads(Path(asked).read_text()))
    bench = Workbench(judge)
    Path(told).write_text(json.dumps([bench.score(plan) for plan in plans]))
