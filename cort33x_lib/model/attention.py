"""Full attention: each token reads every token before it, and itself.

Chosen: normalised queries and keys, rotary positions, no biases. Left out: keys and
values shared between heads.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.positions import rotary_angles, rotate


@dataclass(frozen=True)
class KeyValueState:
    """The keys and values that later tokens may still read."""

    keys: Tensor  # (B, H, S, D)
    values: Tensor  # (B, H, S, D)
    position: int  # tokens read so far, at least S

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.keys.nbytes + self.values.nbytes

    def clone(self) -> Self:
        """A copy that shares no memory with this state."""
        return replace(self, keys=self.keys.clone(), values=self.values.clone())


class Attention(nn.Module):
    """What full and windowed attention share: projections, norms and positions."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.head_channels = config.heads, config.head_channels
        self.window = config.window
        inner = config.heads * config.head_channels
        self.project_in = nn.Linear(config.channels, 3 * inner, bias=False)
        self.project_out = nn.Linear(inner, config.channels, bias=False)
        self.query_gain = nn.Parameter(torch.ones(config.head_channels))
        self.key_gain = nn.Parameter(torch.ones(config.head_channels))

    def project(self, x: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, the first two normalised and rotated.

        (B, T, C) -> three of (B, H, T, D). Normalised as in Dehghani et al. (2023).
        """
        B, T, _ = x.shape
        joint = self.project_in(x).view(B, T, 3, self.heads, self.head_channels)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        angles = rotary_angles(position, T, self.head_channels)
        queries = F.rms_norm(queries, (self.head_channels,), self.query_gain)
        keys = F.rms_norm(keys, (self.head_channels,), self.key_gain)
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
        position = state.position if state else 0
        queries, keys, values = self.project(x, position)
        if state:
            keys = torch.cat([state.keys, keys], dim=2)  # (B, H, S, D)
            values = torch.cat([state.values, values], dim=2)  # (B, H, S, D)
        T, S = queries.size(2), keys.size(2)
        if S == T:
            read = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
            read = F.scaled_dot_product_attention(queries, keys, values, mask)
        return self.join_heads(read), KeyValueState(keys, values, position + x.size(1))
