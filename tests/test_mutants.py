"""The planted bugs of tests/mutants.py still fit the library, and are really run."""

import ast

import pytest
from mutants import MUTANTS, Mutant, first_failure


def test_there_are_twelve_and_each_still_fits():
    assert len({mutant.what for mutant in MUTANTS}) == 12
    for mutant in MUTANTS:
        ast.parse(mutant.planted())


def test_a_bug_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="loss.py has 0 times 'logits == 3'"):
        Mutant("nothing", "loss.py", "logits == 3", "").planted()


def test_a_planted_bug_is_caught_for_real():
    bug = next(mutant for mutant in MUTANTS if mutant.file == "latent.py")
    some = ["tests/test_proofs.py", "-k", "any_prefix and L"]
    assert first_failure(bug, some).startswith("test_any_prefix")
