"""Twelve ways to break a training run, each planted by a few lines.

A fault never touches what a record says was meant: plan, recipe and logged learning
rate stay those of a healthy run. It sits in what the step is given: model, batches,
optimizer or the rates that the optimizer gets. Left out: two faults at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cort33x_lib.lab.launch import Training
from cort33x_lib.model.attention import Attention
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.loop import is_due, micro_batches
from cort33x_lib.training.optimizer import Optimizer, Together, make_optimizer
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.step import MicroBatch, take_step
from cort33x_lib.training.telemetry import Telemetry


@dataclass
class Patient:
    """What the steps of a run are made from; a fault changes one part of it."""

    training: Training
    model: Transformer
    batches: Batches
    optimizer: Optimizer | Together
    rate: Callable[[int], float]  # the learning rate that a step really gets


def admit(training: Training) -> Patient:
    """A healthy patient: everything as the plan says."""
    recipe, model = training.plan.recipe, training.model
    optimizer = make_optimizer(model, recipe)
    rate = partial(learning_rate, recipe)
    return Patient(training, model, training.batches, optimizer, rate)


def observe(patient: Patient) -> Iterator[dict]:
    """Train a patient and yield one dictionary of measurements a step.

    Those of `train` but for the time, and those of `telemetry` but for the memory.
    `learning_rate` is what the schedule asks for, whatever the optimizer is given.
    """
    model, recipe = patient.model, patient.training.plan.recipe
    telemetry = Telemetry(model, patient.batches)
    for step in range(1, recipe.steps + 1):
        numbers = range((step - 1) * recipe.accumulation, step * recipe.accumulation)
        parts = micro_batches(model, patient.batches, numbers)
        loss, norm = take_step(
            model,
            patient.optimizer,
            parts,
            patient.rate(step),
            recipe.clip,
            recipe.precision,
            telemetry,
        )
        measured = {
            "step": step,
            "loss": loss,
            "learning_rate": learning_rate(recipe, step),
            "gradient_norm": norm,
            "clipped": norm > recipe.clip,
            "tokens": step * recipe.tokens_per_step,
        }
        if is_due(recipe, step):
            measured["held_out"] = patient.training.examine(model)
        measured |= telemetry.measure(step, recipe.accumulation)
        del measured["memory"]
        yield measured


def sum_gradients(patient: Patient) -> None:
    """Gradients of the micro-batches are summed, where their mean was meant."""
    mean_loss, count = patient.model.loss, patient.training.plan.recipe.accumulation

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        value = mean_loss(inputs, targets)
        return count * value - (count - 1) * value.detach()  # value as it was

    patient.model.loss = loss


class Shifted(Batches):
    """Batches whose targets lie one token further ahead than they should."""

    def __getitem__(self, step: int) -> MicroBatch:
        inputs, targets = super().__getitem__(step)
        return inputs[:, :-1].contiguous(), targets[:, 1:].contiguous()


def shift_targets(patient: Patient) -> None:
    """Targets are shifted twice: each token is asked for the one after the next."""
    old = patient.batches
    patient.batches = Shifted(old.tokens, old.rows, old.length, old.seed)


def read_everything(
    mixer: Attention, x: Tensor, state: None = None
) -> tuple[Tensor, None]:
    """Full attention when nobody covers the future: (B, T, C) -> (B, T, C), None."""
    queries, keys, values = mixer.project(x, torch.zeros(1, dtype=torch.int64))
    read = F.scaled_dot_product_attention(queries, keys, values)
    return mixer.join_heads(read), None


def leak_mask(patient: Patient) -> None:
    """Full attention has lost its mask, in training and after."""
    for letter, block in zip(
        patient.model.config.pattern, patient.model.blocks, strict=True
    ):
        if letter == "F":
            block.mixer.forward = partial(read_everything, block.mixer)


class InOrder(Batches):
    """Rows filled from documents in their order, the same in every epoch."""

    def _pack(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        count, lengths = len(self.tokens), np.diff(self.tokens.starts)
        order = np.arange(2 * count) % count
        bounds, filled = [self._used[epoch]], 0
        for place in range(bounds[0], 2 * count):
            filled += lengths[order[place]]
            if filled >= self.length:
                bounds.append(place + 1)
                filled = 0
                if place + 1 >= count:
                    break
        return order, bounds


def leave_unshuffled(patient: Patient) -> None:
    """Documents come as a sorted list of files gives them, and nobody shuffles."""
    training, old = patient.training, patient.batches
    ordered = sorted(training.documents, key=lambda document: document.text)
    tokens = encode_documents(training.tokenizer, ordered)
    patient.batches = InOrder(tokens, old.rows, old.length, old.seed)


def train_on_held_out(patient: Patient) -> None:
    """The held-out documents are among those trained on."""
    training, old = patient.training, patient.batches
    everything = [*training.documents, *training.examined]
    tokens = encode_documents(training.tokenizer, everything)
    patient.batches = Batches(tokens, old.rows, old.length, old.seed)


def mistake_tokenizer(patient: Patient) -> None:
    """Training texts are encoded by a tokenizer of the same size from other stories."""
    training, old = patient.training, patient.batches
    stories = World.load().stories("composition", 200, seed=1)
    other = train_tokenizer(
        (story.text for story in stories), training.tokenizer.vocabulary
    )
    tokens = encode_documents(other, training.documents)
    patient.batches = Batches(tokens, old.rows, old.length, old.seed)


def never_decay(patient: Patient) -> None:
    """The rate rises and stays: after the warm-up, nobody asks the schedule."""
    recipe = patient.training.plan.recipe
    level = replace(recipe, final_rate=recipe.peak_rate)
    patient.rate = partial(learning_rate, level)


def enlarge_epsilon(patient: Patient) -> None:
    """The epsilon of AdamW is 1e-2, not 1e-8: larger than almost every gradient."""
    for group in patient.optimizer.param_groups:
        group["eps"] = 1e-2


def spike_rate(patient: Patient) -> None:
    """In three steps, just past the middle, the optimizer gets ten times the rate."""
    asked, steps = patient.rate, patient.training.plan.recipe.steps
    first = round(0.55 * steps)
    patient.rate = lambda step: asked(step) * (10 if first <= step < first + 3 else 1)


def kill_layer(patient: Patient) -> None:
    """Both matrices of a feed-forward layer start at zero: no gradient gets there."""
    with torch.no_grad():
        patient.model.blocks[2].feed_forward.widen.weight.zero_()


def freeze_embedding(patient: Patient) -> None:
    """The embedding is in no group of the optimizer, so it is never updated."""
    frozen = patient.model.embedding.weight
    for group in patient.optimizer.param_groups:
        group["params"] = [w for w in group["params"] if w is not frozen]


def mistype_decay(patient: Patient) -> None:
    """The weight decay of the matrices is a hundred times the one that was meant."""
    for group in patient.optimizer.param_groups:
        group["weight_decay"] *= 100


FAULTS: dict[str, Callable[[Patient], None]] = {
    "unscaled accumulation": sum_gradients,
    "shifted target": shift_targets,
    "leaking mask": leak_mask,
    "unshuffled data": leave_unshuffled,
    "validation in training": train_on_held_out,
    "wrong tokenizer": mistake_tokenizer,
    "schedule never decays": never_decay,
    "large epsilon": enlarge_epsilon,
    "learning-rate spike": spike_rate,
    "dead layer": kill_layer,
    "frozen embedding": freeze_embedding,
    "wrong weight decay": mistype_decay,
}
