"""Full attention: each token reads every token before it, and itself.

Chosen: normalised queries and keys, rotary positions, keys and values shared by groups
of heads, no biases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.norm import normalise
from cort33x_lib.model.positions import rotary_angles, rotate


def readable(read: Tensor, queries: int, slots: int, window: int = 0) -> Tensor:
    """Which slot each query may read, when the last query stands at the last slot.

    -> (B, 1, queries, slots), bool. A row that has `read` (B,) tokens fills the last
    slots; a query reads its own slot and those before, at most `window` if that is set.
    """
    row = torch.arange(slots - queries, slots).unsqueeze(1)  # (queries, 1)
    column = torch.arange(slots)  # (slots,)
    seen = (column <= row) & (column > row - (window or slots))
    filled = column >= (slots - read).view(-1, 1, 1, 1)  # (B, 1, 1, slots)
    return seen & filled


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """What each query reads: the mean of the values, weighted by softmax of the scores.

    (B, H, T, D), two of (B, G, S, D) -> (B, H, T, D). Without a mask, each query reads
    up to itself and the last one stands at slot S: T is S, or 1. Vaswani et al. (2017),
    Ainslie et al. (2023).
    """
    B, H, T, D = queries.shape
    G = keys.size(1)
    if T == 1 and (mask is None or mask.size(1) == 1):
        queries = queries.reshape(B, G, H // G, D)  # heads that share keys ask together
        read = F.scaled_dot_product_attention(queries, keys, values, mask)
        return read.reshape(B, H, 1, -1)
    if H > G and queries.is_cuda:  # there, kernels that take masks share no heads
        keys, values = (x.repeat_interleave(H // G, dim=1) for x in (keys, values))
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        mask,
        is_causal=mask is None,
        enable_gqa=keys.size(1) < H,
    )


@dataclass(frozen=True)
class SlotState:
    """A slot for each token that later tokens may still read, in tensors (B, ., S, .).

    Rows may have read different numbers of tokens: each fills the last slots. A class
    of states names its tensors; `position` (B,) int64, on the CPU, counts the tokens
    that each row has read.
    """

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.nbytes for name, x in vars(self).items() if name != "position")

    def clone(self) -> Self:
        """A copy that shares no memory with this state."""
        copies = {name: value.clone() for name, value in vars(self).items()}
        return replace(self, **copies)

    @classmethod
    def stack(cls, states: Sequence[Self]) -> Self:
        """One state for a batch, from the states of its rows."""

        def joined(name: str) -> Tensor:
            parts = [getattr(state, name) for state in states]
            if name == "position":
                return torch.cat(parts)
            slots = max(part.size(2) for part in parts)
            return torch.cat([F.pad(x, (0, 0, slots - x.size(2), 0)) for x in parts])

        return cls(**{name: joined(name) for name in vars(states[0])})


@dataclass(frozen=True)
class KeyValueState(SlotState):
    """The keys and values of the tokens read so far."""

    keys: Tensor  # (B, G, S, D)
    values: Tensor  # (B, G, S, D)
    position: Tensor  # (B,)


class Attention(nn.Module):
    """What full and windowed attention share: projections, norms and positions."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.key_value_heads = config.heads, config.key_value_heads
        self.head_channels, self.window = config.head_channels, config.window
        together = config.heads + 2 * config.key_value_heads
        self.project_in = nn.Linear(
            config.channels, together * config.head_channels, bias=False
        )
        self.project_out = nn.Linear(
            config.heads * config.head_channels, config.channels, bias=False
        )
        self.query_gain = nn.Parameter(torch.ones(config.head_channels))
        self.key_gain = nn.Parameter(torch.ones(config.head_channels))

    def project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, the first two normalised and rotated.

        (B, T, C), (B,) or (1,) -> (B, H, T, D) and two of (B, G, T, D). Normalised as
        in Dehghani et al. (2023).
        """
        heads = self.project_in(x).unflatten(2, (-1, self.head_channels))
        queries, keys, values = heads.transpose(1, 2).split(
            [self.heads, self.key_value_heads, self.key_value_heads], dim=1
        )
        angles = rotary_angles(position, x.size(1), self.head_channels)
        queries = normalise(queries, self.query_gain)
        keys = normalise(keys, self.key_gain)
        return rotate(queries, angles), rotate(keys, angles), values

    def join_heads(self, read: Tensor) -> Tensor:
        """Put the heads side by side and project them back.

        (B, H, T, D) -> (B, T, C)
        """
        return self.project_out(read.transpose(1, 2).flatten(2))


class FullAttention(Attention):
    """The mixer `F`. Vaswani et al. (2017).

    Its state holds the keys and values of all tokens and grows by one with each.
    """

    def forward(
        self, x: Tensor, state: KeyValueState | None = None
    ) -> tuple[Tensor, KeyValueState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        position = state.position if state else torch.zeros(len(x), dtype=torch.int64)
        queries, keys, values = self.project(x, position)
        position, mask = position + x.size(1), None
        if state:
            keys = torch.cat([state.keys, keys], dim=2)  # (B, G, S, D)
            values = torch.cat([state.values, values], dim=2)  # (B, G, S, D)
            mask = readable(position, x.size(1), keys.size(2)).to(x.device)
        read = attend(queries, keys, values, mask)
        return self.join_heads(read), KeyValueState(keys, values, position)
