"""Leakage: shared n-grams are found, equal to a slow count, and nothing else is."""

import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from cort33x_lib.text.leakage import leaked_shares
from run import ROOT


def slow_shares(training: list[str], held_out: list[str], n: int) -> list[float]:
    """The definition, with tuples of words in a set."""

    def grams(text: str) -> list[tuple[str, ...]]:
        words = re.findall(r"\w+|[^\w\s]", text)
        last = max(len(words) - n, 0)
        return [tuple(words[at : at + n]) for at in range(last + 1)] if words else []

    seen = {gram for text in training for gram in grams(text)}
    found = [[gram in seen for gram in grams(text)] for text in held_out]
    return [sum(one) / len(one) if one else 0.0 for one in found]


def random_text(chance: random.Random) -> str:
    words = ["a", "b", "naïve", "日本", "x1", "(", ")", "+=", "👍", "\u0301", "_", "A"]
    joined = (chance.choice(words) for _ in range(chance.randrange(60)))
    return chance.choice([" ", "\n", "\t "]).join(joined)


def test_shares_equal_a_slow_count() -> None:
    chance = random.Random(0)
    kinds = set()
    for _ in range(300):
        training = [random_text(chance) for _ in range(chance.randrange(6))]
        held_out = [random_text(chance) for _ in range(5)]
        pieces = [text[len(text) // 3 :] for text in training[:2]]
        held_out += [held_out[0] + " " + piece for piece in pieces]
        n = chance.randrange(1, 15)
        found = leaked_shares(iter(training), held_out, n)
        assert found.dtype == np.float64 and found.shape == (len(held_out),)
        assert found.tolist() == slow_shares(training, held_out, n)
        kinds.update((0 < found) * 1 + (found == 1))
    assert kinds == {0, 1, 2}  # nothing, a part and the whole


def test_a_copied_part_counts_and_a_changed_word_costs_its_n_grams() -> None:
    words = [f"word{number}" for number in range(100)]
    held_out = " ".join(words)
    words[50] = "other"
    assert leaked_shares([" ".join(words)], [held_out])[0] == (88 - 13) / 88
    assert leaked_shares(["\n  ".join(words)], [held_out])[0] == (88 - 13) / 88


def test_no_n_gram_runs_over_the_end_of_a_text() -> None:
    text = "one two three four"
    assert leaked_shares(["one two", "three four"], [text], n=3).tolist() == [0]
    assert leaked_shares(["zero one two three"], [text], n=3).tolist() == [0.5]


def test_a_short_text_is_one_n_gram_and_an_empty_one_leaks_nothing() -> None:
    shares = leaked_shares(["Good night.", "", "a b"], ["Good night .", "", " ", "a"])
    assert shares.tolist() == [1, 0, 0, 0]
    assert leaked_shares([], ["a b c"]).tolist() == [0]
    assert leaked_shares(["a"], []).shape == (0,)


def test_n_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        leaked_shares([], [], n=0)


def test_shares_are_the_same_in_every_process() -> None:
    script = """
from cort33x_lib.text.leakage import leaked_shares
text = " ".join(f"w{n % 37}" for n in range(200))
print(*leaked_shares([text[:300]], [text, text[100:500] + " x"], n=5))
"""
    found = set()
    for seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        found.add(subprocess.check_output(command, env=environment, cwd=ROOT))
    assert len(found) == 1 and b"0." in found.pop()
