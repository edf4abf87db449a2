"""The optimizer and its learning rate.

Chosen: AdamW, decay on matrices only, warm-up and cosine. Left out: other schedules.
"""

from math import cos, pi

import torch
from torch import nn

from cort33x_lib.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, counted from 1: a straight rise, then half a cosine.

    The last step has exactly `final_rate`. Loshchilov and Hutter (2017), SGDR.
    """
    rise = round(recipe.steps * recipe.warmup)
    if step <= rise:
        return recipe.peak_rate * step / rise
    progress = (step - rise) / (recipe.steps - rise)  # from 0 to 1
    height = (1 + cos(pi * progress)) / 2  # from 1 to 0
    return recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * height


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW in two groups: matrices, which decay, and all other weights, which do not.

    The embedding is a table, one row a token, and does not decay either; nor do the
    numbers that mix the residual stream. Loshchilov and Hutter (2019).
    """
    matrices, others = [], []
    for name, weights in model.named_parameters():
        decays = name.endswith(".weight") and not name.startswith("embedding")
        (matrices if decays else others).append(weights)
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.peak_rate, betas=recipe.betas, fused=True
    )
