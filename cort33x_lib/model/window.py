"""Windowed attention: each token reads itself and the few tokens before it.

Computed in blocks as long as the window, so that time and memory fall with it: a block
of queries needs its own keys and those of the block before, nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cort33x_lib.model.attention import Attention, KeyValueState, attend, readable


def blocked_attention(
    queries: Tensor, keys: Tensor, values: Tensor, window: int
) -> Tensor:
    """Each token's reading of its window. Beltagy et al. (2020), Longformer.

    (B, H, T, D), two of (B, G, T, D) -> (B, H, T, D)
    """
    B, H, T, D = queries.shape
    blocks = -(-T // window)
    padding = (0, 0, 0, blocks * window - T)

    def split(x: Tensor) -> Tensor:
        x = F.pad(x, padding).unflatten(2, (blocks, window))
        return x.transpose(1, 2)  # (B, blocks, H, W, D)

    def with_block_before(x: Tensor) -> Tensor:
        x = split(x)
        before = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return torch.cat([before, x], dim=3).flatten(0, 1)  # (B * blocks, H, 2W, D)

    read = torch.arange(window, T + window, window)  # the first block has none before
    mask = readable(read, window, 2 * window, window)  # (blocks, 1, W, 2W)
    read = attend(
        split(queries).flatten(0, 1),  # (B * blocks, H, W, D)
        with_block_before(keys),
        with_block_before(values),
        mask.repeat(B, 1, 1, 1).to(queries.device),
    )
    read = read.view(B, blocks, H, window, D).transpose(1, 2)  # (B, H, blocks, W, D)
    return read.reshape(B, H, blocks * window, D)[:, :, :T]


class WindowAttention(Attention):
    """The mixer `W`. Its state holds the last window - 1 keys and values, no more."""

    def forward(
        self, x: Tensor, state: KeyValueState | None = None
    ) -> tuple[Tensor, KeyValueState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        position = state.position if state else torch.zeros(len(x), dtype=torch.int64)
        queries, keys, values = self.project(x, position)
        position = position + x.size(1)
        if state:
            keys = torch.cat([state.keys, keys], dim=2)  # (B, G, S, D)
            values = torch.cat([state.values, values], dim=2)  # (B, G, S, D)
            mask = readable(position, x.size(1), keys.size(2), self.window)
            read = attend(queries, keys, values, mask.to(x.device))
        elif x.size(1) <= self.window:
            read = attend(queries, keys, values)
        else:
            read = blocked_attention(queries, keys, values, self.window)
        kept = max(keys.size(2) - self.window + 1, 0)
        state = KeyValueState(keys[:, :, kept:], values[:, :, kept:], position)
        return self.join_heads(read), state
