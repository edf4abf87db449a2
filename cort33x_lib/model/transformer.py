"""The whole model: embedding, one block a letter of the pattern, norm, tied head."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.layers import Block
from cort33x_lib.model.loss import chunked_loss
from cort33x_lib.model.norm import Norm


class Transformer(nn.Module):
    """A decoder-only transformer whose layers are spelled by `config.pattern`.

    The table that turns a token into channels also turns channels into logits: Press
    and Wolf (2017). Before each layer stands a mix of what the layers before it made
    and of the embedding, by two learned numbers: Jordan et al. (2024), modded-nanogpt.
    Weights are a function of the config and the seed alone.
    """

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.channels)
        self.residual = nn.Parameter(torch.empty(len(config.pattern), 2))
        self.blocks = nn.ModuleList(Block(letter, config) for letter in config.pattern)
        self.norm = Norm(config.channels)
        initialise(self, seed)

    def read(
        self, ids: Tensor, states: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]:
        """What the model makes of each token, and the states of all layers.

        (B, T) -> (B, T, C), L states
        """
        x = first = self.embedding(ids)  # (B, T, C)
        after = []
        for block, shares, state in zip(
            self.blocks, self.residual, states or [None] * len(self.blocks), strict=True
        ):
            x, state = block(x, state, first, shares)
            after.append(state)
        return self.norm(x), after

    def forward(
        self, ids: Tensor, states: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Logits for the token after each token, and the states of all layers.

        (B, T) -> (B, T, V), L states
        """
        x, states = self.read(ids, states)
        return self.head(x), states

    def head(self, x: Tensor) -> Tensor:
        """Logits for the next token: (..., C) -> (..., V)."""
        return F.linear(x, self.embedding.weight)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of the targets, in nats per token.

        (B, T), (B, T) -> (). A target of -100 is not counted.
        """
        x = self.read(inputs)[0]  # (B, T, C)
        return chunked_loss(x.flatten(0, 1), self.embedding.weight, targets.flatten())


def embedding_deviation(config: ModelConfig) -> float:
    """Standard deviation of the numbers in a new embedding: 0.02, less if C is large.

    Of a new model, the logit of the token just read is C times it; at most 2.56 then.
    """
    return min(0.02, 2.56 / config.channels)


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Set every weight, from a generator of its own.

    | weights | values |
    |---|---|
    | embedding | normal, standard deviation of `embedding_deviation` |
    | matrices into a mixer or feed-forward layer | normal, deviation: inputs ** -0.5 |
    | matrices back into the residual stream | zero: a new block changes nothing |
    | gains, and the sinks of an `S` layer | one |
    | decay and convolution of a `D` layer | as the layer makes them, no chance in it |
    | residual | (1, 0): the layer before, and nothing of the embedding |
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        if name == "embedding.weight":
            deviation = embedding_deviation(model.config)
            weights.normal_(0, deviation, generator=generator)
        elif name == "residual":
            weights.copy_(torch.tensor([1.0, 0.0]))
        elif name.endswith(("project_out.weight", "narrow.weight")):
            weights.zero_()
        elif name.endswith(("decay_speed", "decay_shift", "convolution")):
            continue
        elif weights.dim() == 2:
            weights.normal_(0, weights.size(1) ** -0.5, generator=generator)
        else:
            weights.fill_(1)
