"""Windowed attention: each token reads itself and the few tokens before it.

Computed in blocks as long as the window, so that time and memory fall with it: a block
of queries needs its own keys and those of the block before, nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cort33x_lib.model.attention import Attention, KeyValueState


def window_mask(queries: int, keys: int, window: int) -> Tensor:
    """Which key each query may read, when the last query stands at the last key.

    -> (queries, keys), True where the distance lies from 0 to window - 1.
    """
    row = torch.arange(keys - queries, keys).unsqueeze(1)  # (queries, 1)
    distance = row - torch.arange(keys)  # (queries, keys)
    return (distance >= 0) & (distance < window)


def blocked_attention(
    queries: Tensor, keys: Tensor, values: Tensor, window: int
) -> Tensor:
    """Each token's reading of its window. Beltagy et al. (2020), Longformer.

    three of (B, H, T, D) -> (B, H, T, D)
    """
    B, H, T, D = queries.shape
    blocks = -(-T // window)
    padding = (0, 0, 0, blocks * window - T)

    def split(x: Tensor) -> Tensor:
        x = F.pad(x, padding).view(B, H, blocks, window, D)
        return x.transpose(1, 2)  # (B, blocks, H, W, D)

    def with_block_before(x: Tensor) -> Tensor:
        x = split(x)
        before = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return torch.cat([before, x], dim=3).flatten(0, 1)  # (B * blocks, H, 2W, D)

    mask = window_mask(window, 2 * window, window).repeat(blocks, 1, 1, 1)
    mask[0, :, :, :window] = False  # nothing stands before the first block
    read = F.scaled_dot_product_attention(
        split(queries).flatten(0, 1),  # (B * blocks, H, W, D)
        with_block_before(keys),
        with_block_before(values),
        attn_mask=mask.repeat(B, 1, 1, 1).to(queries.device),  # (B * blocks, 1, W, 2W)
    )
    read = read.view(B, blocks, H, window, D).transpose(1, 2)  # (B, H, blocks, W, D)
    return read.reshape(B, H, blocks * window, D)[:, :, :T]


class WindowAttention(Attention):
    """The mixer `W`. Its state holds the last window - 1 keys and values, no more."""

    def forward(
        self, x: Tensor, state: KeyValueState | None = None
    ) -> tuple[Tensor, KeyValueState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        position = state.position if state else 0
        queries, keys, values = self.project(x, position)
        if state:
            keys = torch.cat([state.keys, keys], dim=2)  # (B, H, S, D)
            values = torch.cat([state.values, values], dim=2)  # (B, H, S, D)
            mask = window_mask(queries.size(2), keys.size(2), self.window)
            mask = mask.to(x.device)
            read = F.scaled_dot_product_attention(queries, keys, values, mask)
        elif x.size(1) <= self.window:
            read = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            read = blocked_attention(queries, keys, values, self.window)
        kept = max(keys.size(2) - self.window + 1, 0)
        state = KeyValueState(
            keys[:, :, kept:], values[:, :, kept:], position + x.size(1)
        )
        return self.join_heads(read), state
