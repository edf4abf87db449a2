"""A run as one plan: corpus, tokenizer, model and recipe, all that decides its bits.

A plan comes from a name, a TOML file and single changes, in this order; see `launch`
for what starts it. Left out: mixtures of several sources.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

from cort33x_lib.model.config import CONFIGS, ModelConfig
from cort33x_lib.training.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class CorpusPlan:
    """What is read: the story world, the standard library, or a folder of a corpus.

    Raises ValueError for numbers below 1.
    """

    source: str = "stories"  # or "standard-library", or the path of a saved corpus
    documents: int = 6000  # at most so many to train on
    held_out: int = 50  # at most so many to examine with

    def __post_init__(self):
        for name in ("documents", "held_out"):
            refuse_below_one(f"corpus.{name}", getattr(self, name))


@dataclass(frozen=True)
class TokenizerPlan:
    """Where the tokenizer comes from: learnt here, or a file.

    Raises ValueError for documents below 1.
    """

    documents: int = 2000  # of the corpus, from which the merges are learnt
    file: str = ""  # of a saved tokenizer, which is then used instead

    def __post_init__(self):
        refuse_below_one("tokenizer.documents", self.documents)


def refuse_below_one(name: str, value: int) -> None:
    """Raises ValueError for a count that is none."""
    if value < 1:
        raise ValueError(f"{name} is {value}, expected a whole number from 1")


@dataclass(frozen=True)
class Plan:
    """All that a run depends on but code and machine. The recipe has the seed."""

    model: ModelConfig
    recipe: Recipe
    corpus: CorpusPlan = field(default_factory=CorpusPlan)
    tokenizer: TokenizerPlan = field(default_factory=TokenizerPlan)


KINDS = {
    bool: "true or false,",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
}
PLANS = {
    # For tests: a second or two.
    "tiny": Plan(
        replace(CONFIGS["tiny"], vocabulary=512, context=512),
        replace(RECIPES["tiny"], examine_every=10),
        CorpusPlan(documents=200, held_out=10),
        TokenizerPlan(documents=200),
    ),
    # Chapter 1.
    "tour": Plan(CONFIGS["tour"], replace(RECIPES["tour"], examine_every=100)),
    # A million parameters, for experiments: two micro-batches a step.
    "small": Plan(
        CONFIGS["tour"],
        replace(RECIPES["tour"], steps=300, accumulation=2, examine_every=50),
    ),
    # The reference model, on stories that are read about ten times.
    "cort33x": Plan(
        CONFIGS["cort33x"],
        replace(RECIPES["cort33x"], examine_every=100),
        CorpusPlan(documents=400_000, held_out=200),
        TokenizerPlan(documents=20_000),
    ),
}


def read_plan(
    name: str = "tour", file: str | Path | None = None, changes: Iterable[str] = ()
) -> Plan:
    """The plan of a name, changed by a TOML file, then by "part.key=value" strings.

    The file has tables [corpus], [tokenizer], [model] and [recipe]; `plan = "small"` at
    its head names another plan to start from. Raises ValueError for a name or key that
    is unknown, a value of another kind, and numbers that no run can have.
    """
    tables: dict = {}
    if file:
        try:
            tables = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise ValueError(f"{file} is not TOML: {fault}") from None
        name = tables.pop("plan", name)
    if name not in PLANS:
        raise ValueError(f"no plan {name!r}, expected one of {', '.join(PLANS)}")
    plan = PLANS[name]
    for part, table in tables.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"{file}: {part!r} is {table!r}, expected a table")
        plan = changed(plan, part, dict(table))
    for change in changes:
        key, equals, text = change.partition("=")
        part, dot, key = key.strip().partition(".")
        if not (equals and dot):
            raise ValueError(f"change {change!r}, expected part.key=value")
        plan = changed(plan, part, {key: value_of(text.strip())})
    return plan


def value_of(text: str) -> object:
    """A number, a truth value or a list as JSON writes it, and else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def changed(plan: Plan, part: str, table: dict) -> Plan:
    """The plan with some keys of one part set. Raises as `read_plan` does."""
    refuse_unknown(part, [each.name for each in fields(plan)])
    old = getattr(plan, part)
    for key, value in table.items():
        refuse_unknown(f"{part}.{key}", [f"{part}.{each.name}" for each in fields(old)])
        was = getattr(old, key)
        if isinstance(was, tuple) and isinstance(value, list):
            value = tuple(value)
        if isinstance(was, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(was):
            kind = KINDS[type(was)]
            like = json.dumps(was)
            raise ValueError(f"{part}.{key} is {value!r}, expected {kind} like {like}")
        table[key] = value
    return replace(plan, **{part: replace(old, **table)})


def refuse_unknown(name: str, known: list[str]) -> None:
    """Raises ValueError for a name that is not known, with those that are like it."""
    if name not in known:
        near = get_close_matches(name, known) or known
        raise ValueError(f"no key {name!r}, expected one of {', '.join(near)}")


def plan_of(kept: dict) -> Plan:
    """The plan that a manifest was written from. Raises ValueError for another kind."""
    try:
        recipe = kept["recipe"] | {"betas": tuple(kept["recipe"]["betas"])}
        return Plan(
            ModelConfig(**kept["model"]),
            Recipe(**recipe),
            CorpusPlan(**kept["plan"]["corpus"]),
            TokenizerPlan(**kept["plan"]["tokenizer"]),
        )
    except (KeyError, TypeError) as fault:
        raise ValueError(
            f"the manifest holds no plan of this version: {fault}"
        ) from None
