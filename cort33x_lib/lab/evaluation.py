"""Evaluation: how well a model predicts held-out text, in units that compare.

Nats per token depend on the tokenizer; bits per byte do not. Where the text has an
exactly known likelihood, the floor, so has the distance that is left to it.
"""

from dataclasses import dataclass, field
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Tokens


@dataclass(frozen=True)
class Evaluation:
    """The negative log-likelihood of some documents, and their size."""

    nats: float  # of all documents, their end tokens included
    tokens: int
    nbytes: int
    by_document: np.ndarray | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_tokens(cls, nats: np.ndarray, tokens: Tokens) -> "Evaluation":
        """From the nats of each token, (tokens,); `by_document` has nats and bytes.

        by_document: (N, 2) for N documents.
        """
        sums = np.add.reduceat(nats, tokens.starts[:-1], dtype=np.float64)
        by_document = np.column_stack([sums, tokens.nbytes])
        size = len(tokens.ids), int(tokens.nbytes.sum())
        return cls(float(sums.sum()), *size, by_document)

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
    nats = np.zeros(len(tokens.ids))
    shown = dict(unit=" batches", delay=1, leave=False, disable=None)  # in a terminal
    for place in tqdm(range(0, len(order), rows), "evaluate", **shown):
        chosen = order[place : place + rows]
        T = int(lengths[chosen].max())
        inputs = torch.full((len(chosen), T), tokens.end)  # (B, T)
        targets = torch.full((len(chosen), T), -100)  # (B, T), -100 is not counted
        for row, document in enumerate(chosen):
            ids = torch.from_numpy(tokens.document(document).astype(np.int64))
            inputs[row, 1 : len(ids)] = ids[:-1]  # what ended the one before is first
            targets[row, : len(ids)] = ids
        logits, _ = model(inputs.to(device))  # (B, T, V)
        surprise = F.cross_entropy(
            logits.transpose(1, 2), targets.to(device), reduction="none"
        )  # (B, T)
        for document, found in zip(chosen, surprise.cpu().numpy(), strict=True):
            first, end = tokens.starts[document : document + 2]
            nats[first:end] = found[: end - first]
    return Evaluation.of_tokens(nats, tokens)


def unigram(training: Tokens, held_out: Tokens, vocabulary: int) -> Evaluation:
    """The baseline that knows how often each token comes, and nothing else.

    Counts from the training tokens, one added to each so that none is impossible.
    """
    counts = np.bincount(training.ids, minlength=vocabulary) + 1
    surprise = -np.log(counts / counts.sum())  # (V,), nats
    return Evaluation.of_tokens(surprise[held_out.ids], held_out)


def share_closed(baseline: float, model: float, floor: float) -> float:
    """How much of the way from a baseline to the floor a model has gone, from 0 to 1.

    All three in one unit. Below 0 is worse than the baseline; above 1 would be under
    the floor, which no model can be but by chance or by having seen the text.
    """
    return (baseline - model) / (baseline - floor)
