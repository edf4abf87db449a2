"""Checkers of exercises: they say what is right, or which mistake it looks like."""

from collections.abc import Callable


def number(
    right: float, mistakes: dict[float, str], tolerance: float = 0.01
) -> Callable[[object], str]:
    """A checker for an answer that is one number, within a relative tolerance.

    `mistakes` says, for numbers that a likely mistake leads to, what the mistake is.
    Raises ValueError when one of them would pass as right.
    """

    def near(answer: float, other: float) -> bool:
        return abs(answer - other) <= tolerance * abs(other)

    for mistake, reason in mistakes.items():
        if near(mistake, right):
            raise ValueError(f"{mistake} ({reason}) would pass as {right}")

    def check(answer: object) -> str:
        if answer is None:
            return "Put your number in the place of None and run the cell again."
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            return f"Expected a number, got {answer!r}."
        if near(answer, right):
            return f"Right: {right:.4g}."
        for mistake, reason in mistakes.items():
            if near(answer, mistake):
                return f"Not {answer:.4g}: {reason}."
        return f"Not {answer:.4g}. Take the text above once more, step by step."

    return check
