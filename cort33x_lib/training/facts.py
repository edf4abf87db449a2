"""What must be the same for a run to go on, and what two such lists differ in."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.record import Run


def facts_of(run: Run, batches: Batches | Mixture, recipe: Recipe) -> dict:
    """What must be the same to go on: corpus, tokenizer, order of documents, recipe."""
    return run.facts | {"permutation_seed": batches.seed, "recipe": asdict(recipe)}


def differences(saved: dict, given: dict) -> list[str]:
    """What two nested dictionaries differ in: "recipe.seed 0, expected 1"."""
    left, right = dict(flatten(saved)), dict(flatten(given))
    return [
        f"{name} {left.get(name)!r}, expected {right.get(name)!r}"
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    ]


def flatten(nested: dict, start: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its path, as JSON gives it back."""
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", list(value) if isinstance(value, tuple) else value
