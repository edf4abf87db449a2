"""Schedules: how large the learning rate is at each step.

Chosen: a straight rise, then half a cosine, or a level stretch and a straight fall.
Left out: restarts.
"""

from math import cos, pi

from cort33x_lib.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, counted from 1.

    It rises to `peak_rate` in the warm-up, and the last step has exactly `final_rate`.
    """
    rise = round(recipe.steps * recipe.warmup)
    if step <= rise:
        return recipe.peak_rate * step / rise
    height = FALLS[recipe.schedule](recipe, step, rise)  # from 1 to 0
    return recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * height


def cosine(recipe: Recipe, step: int, rise: int) -> float:
    """Half a cosine over all steps after the warm-up. Loshchilov and Hutter (2017)."""
    progress = (step - rise) / (recipe.steps - rise)  # from 0 to 1
    return (1 + cos(pi * progress)) / 2


def stay_then_fall(recipe: Recipe, step: int, rise: int) -> float:
    """Level, then a straight fall over the last `cooldown` share of all steps.

    Hu et al. (2024), MiniCPM, who call it warm-up, stable, decay.
    """
    fall = max(round(recipe.steps * recipe.cooldown), 1)
    return min((recipe.steps - step) / fall, 1.0)


FALLS = {"cosine": cosine, "wsd": stay_then_fall}
