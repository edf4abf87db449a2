"""Evaluation: how well a model predicts held-out text, in units that compare.

Nats per token depend on the tokenizer; bits per byte do not. Where the text has an
exactly known likelihood, the floor, so has the distance that is left to it.
"""

from dataclasses import dataclass
from math import log

import numpy as np
import torch

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Tokens


@dataclass(frozen=True)
class Evaluation:
    """The negative log-likelihood of some documents, and their size."""

    nats: float  # of all documents, their end tokens included
    tokens: int
    nbytes: int

    @property
    def nats_per_token(self) -> float:
        """The loss, as training measures it."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """The same in bits per byte of UTF-8 text, whatever the tokenizer."""
        return self.nats / log(2) / self.nbytes


@torch.inference_mode()
def evaluate(model: Transformer, tokens: Tokens, rows: int = 16) -> Evaluation:
    """Score every document whole, each read from its own start.

    Documents of like length share a batch of `rows`. Raises ValueError for a document
    longer than the model's context.
    """
    lengths = np.diff(tokens.starts)
    if lengths.max() > model.config.context:
        raise ValueError(
            f"the longest document has {lengths.max()} tokens, "
            f"the model's context only {model.config.context}"
        )
    device = model.embedding.weight.device
    order = np.argsort(lengths, kind="stable")
    nats = 0.0
    for first in range(0, len(order), rows):
        chosen = order[first : first + rows]
        T = int(lengths[chosen].max())
        inputs = torch.full((len(chosen), T), tokens.end)  # (B, T)
        targets = torch.full((len(chosen), T), -100)  # (B, T), -100 is not counted
        for row, document in enumerate(chosen):
            ids = torch.from_numpy(tokens.document(document).astype(np.int64))
            inputs[row, 1 : len(ids)] = ids[
                :-1
            ]  # what ended the one before comes first
            targets[row, : len(ids)] = ids
        counted = int((targets != -100).sum())
        nats += counted * model.loss(inputs.to(device), targets.to(device)).item()
    return Evaluation(nats, int(lengths.sum()), int(tokens.nbytes.sum()))


def unigram(training: Tokens, held_out: Tokens, vocabulary: int) -> Evaluation:
    """The baseline that knows how often each token comes, and nothing else.

    Counts from the training tokens, one added to each so that none is impossible.
    """
    counts = np.bincount(training.ids, minlength=vocabulary) + 1
    surprise = -np.log(counts / counts.sum())  # (V,), nats
    nats = float(surprise[held_out.ids].sum())
    return Evaluation(nats, len(held_out.ids), int(held_out.nbytes.sum()))


def share_closed(baseline: float, model: float, floor: float) -> float:
    """How much of the way from a baseline to the floor a model has gone, from 0 to 1.

    All three in one unit. Below 0 is worse than the baseline; above 1 would be under
    the floor, which no model can be but by chance or by having seen the text.
    """
    return (baseline - model) / (baseline - floor)
