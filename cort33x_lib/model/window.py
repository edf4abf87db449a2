"""Windowed attention: each token reads itself and the few tokens before it.

Chosen: a block of queries meets the keys that it can reach and no others, so that time
and memory fall with the window, gradients included; a cache of as many slots as the
window, written in turn. Left out: a kernel written for one kind of machine.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cort33x_lib.model.attention import Attention, KeyValueState, attend, readable
from cort33x_lib.model.config import ModelConfig

BLOCK = 64  # queries that are answered together
Made = tuple[Tensor, Tensor, Tensor]  # queries, keys, values; or a result and a ring


def reach(tokens: int, slots: int, window: int) -> Iterator[tuple[slice, slice]]:
    """The queries in blocks, each with the slots that it can reach.

    The last query stands at the last slot.
    """
    for start in range(0, tokens, BLOCK):
        end = min(start + BLOCK, tokens)
        first = max(slots - tokens + start - window + 1, 0)
        yield slice(start, end), slice(first, slots - tokens + end)


def fold(x: Tensor, groups: int) -> Tensor:
    """Heads that share keys under each other, so that one product serves them.

    (B, H, T, D) -> (B, G, H / G * T, D)
    """
    return x.unflatten(1, (groups, -1)).flatten(2, 3)


def block_scores(queries: Tensor, keys: Tensor, read: Tensor, window: int) -> Tensor:
    """Scores of one block, minus infinity where a query may not read.

    (B, H, T, D), (B, G, S, D), (B,) -> (B, G, H / G * T, S)
    """
    scores = fold(queries, keys.size(1)) @ keys.mT
    seen = readable(read, queries.size(2), keys.size(2), window).to(keys.device)
    by_head = scores.unflatten(2, (-1, queries.size(2)))  # (B, G, H / G, T, S)
    by_head.masked_fill_(~seen.unsqueeze(1), -torch.inf)
    return scores


def read_blocks(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    read: Tensor,
    window: int,
    total: bool,
) -> tuple[Tensor, Tensor | None]:
    """What each query reads; if wanted, the logarithm of the sum that divides weights.

    (B, H, T, D), two of (B, G, S, D), (B,) -> (B, H, T, D), (B, H, T) or None
    """
    result, T = torch.empty_like(queries), queries.size(2)
    totals = torch.empty_like(queries[..., 0]) if total else None
    for rows, slots in reach(T, keys.size(2), window):
        block = queries[:, :, rows] * queries.size(3) ** -0.5
        filled = read - T + rows.stop
        scores = block_scores(block, keys[:, :, slots], filled, window)
        weights = scores.softmax(dim=-1)  # (B, G, H / G * BLOCK, slots)
        result[:, :, rows] = (weights @ values[:, :, slots]).view_as(block)
        if total:
            largest = scores.amax(dim=-1) - weights.amax(dim=-1).log()
            totals[:, :, rows] = largest.view_as(block[..., 0])
    return result, totals


def block_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    slopes: Tensor,
    rest: Tensor,
    read: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; each block's weights are found again.

    `slopes` are those of what was read, `rest` (B, H, T, 1) what the softmax takes off.
    """
    queries, keys, values = inputs
    T, G, scale = queries.size(2), keys.size(1), queries.size(3) ** -0.5
    of_queries = torch.empty_like(queries)
    of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
    for rows, slots in reach(T, keys.size(2), window):
        block, slope = queries[:, :, rows] * scale, fold(slopes[:, :, rows], G)
        filled = read - T + rows.stop
        weights = block_scores(block, keys[:, :, slots], filled, window).softmax(-1)
        of_values[:, :, slots] += weights.mT @ slope
        of_scores = slope @ values[:, :, slots].mT
        of_scores -= fold(rest[:, :, rows], G)
        of_scores *= weights
        of_block = (of_scores @ keys[:, :, slots]).view_as(block)
        of_queries[:, :, rows] = of_block.mul_(scale)
        of_keys[:, :, slots] += of_scores.mT @ fold(block, G)
    return of_queries, of_keys, of_values


class BlockedAttention(torch.autograd.Function):
    """`read_blocks` with its gradients. No weights are kept for them.

    Found again block by block, as in Dao et al. (2022), FlashAttention.
    """

    @staticmethod
    def forward(
        context: Any, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor | None]:
        result, totals = read_blocks(queries, keys, values, *rest)
        context.save_for_backward(queries, keys, values, result)
        context.read, context.window, _ = rest
        return result, totals

    @staticmethod
    @once_differentiable
    def backward(
        context: Any, slopes: Tensor, of_totals: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *inputs, result = context.saved_tensors
        rest = (slopes * result).sum(dim=-1, keepdim=True)
        if of_totals is not None:
            rest -= of_totals.unsqueeze(-1)
        given = block_gradients(inputs, slopes, rest, context.read, context.window)
        return *given, None, None, None


def blocked_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    window: int,
    read: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """What each query reads of the `window` slots that end with its own.

    (B, H, T, D), two of (B, G, S, D) -> (B, H, T, D). The last query stands at the last
    slot. Rows that have `read` (B,) tokens fill the last slots; without it, all do.
    `sinks` (H,) are scores of one more place to look at, where nothing is: OpenAI
    (2025), gpt-oss. Blocks: Beltagy et al. (2020), Longformer.
    """
    kind = queries.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        queries, keys, values = (x.to(dtype) for x in (queries, keys, values))
    read = torch.tensor([keys.size(2)]) if read is None else read
    result, totals = BlockedAttention.apply(
        queries, keys, values, read, window, sinks is not None
    )
    if sinks is None:
        return result
    share = (totals - sinks.unsqueeze(1)).sigmoid()  # (B, H, T), the tokens' part
    return result * share.unsqueeze(-1)


def turn_ring(x: Tensor, position: Tensor) -> Tensor:
    """From the order of a ring to the order of reading, oldest first, or back.

    (B, G, W, D), (B,) -> (B, G, W, D). Token p lies in the ring's slot -1 - p modulo W,
    so that a ring fills from its last slot; `position` tokens have been read.
    """
    slots = torch.arange(x.size(2))
    place = (-1 - position.unsqueeze(1) - slots) % x.size(2)  # (B, W)
    return x.gather(2, place.view(-1, 1, x.size(2), 1).to(x.device).expand_as(x))


def write_slot(ring: Tensor, x: Tensor, position: Tensor) -> Tensor:
    """The ring in which token number `position` has taken the place of the oldest.

    (B, G, W, D), (B, G, 1, D), (B,) -> (B, G, W, D). In inference mode it is the same
    memory, elsewhere a copy.
    """
    place = ((-1 - position) % ring.size(2)).view(-1, 1, 1, 1).to(x.device)
    write = ring.scatter_ if torch.is_inference_mode_enabled() else ring.scatter
    return write(2, place.expand_as(x), x)


def make_ring(x: Tensor, window: int, position: Tensor) -> Tensor:
    """A ring of the last `window` of some slots, which end at `position`.

    (B, G, S, D), (B,) -> (B, G, W, D)
    """
    missing = max(window - x.size(2), 0)
    return turn_ring(F.pad(x[:, :, -window:], (0, 0, missing, 0)), position)


class WindowAttention(Attention):
    """The mixer `W`. Its state holds `window` slots, a ring that new tokens overwrite.

    In inference mode a state shares its memory with the one before: clone it to go on
    from it twice.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.register_parameter("sinks", None)

    def forward(
        self, x: Tensor, state: KeyValueState | None = None
    ) -> tuple[Tensor, KeyValueState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        position = state.position if state else torch.zeros(len(x), dtype=torch.int64)
        one_more = state is not None and x.size(1) == 1
        read = self.read_one if one_more else self.read_many
        result, *ring = read(self.project(x, position), position, state)
        return self.join_heads(result), KeyValueState(*ring, position + x.size(1))

    def read_one(self, made: Made, position: Tensor, state: KeyValueState) -> Made:
        """What one token a row reads, and the ring that it was written into."""
        queries, keys, values = made
        keys = write_slot(state.keys, keys, position)  # (B, G, W, D)
        values = write_slot(state.values, values, position)  # (B, G, W, D)
        if self.sinks is None:
            mask = readable(position + 1, 1, self.window).to(keys.device)
            return attend(queries, keys, values, mask), keys, values
        inputs = queries, keys, values, self.window, position + 1, self.sinks
        return blocked_attention(*inputs), keys, values

    def read_many(
        self, made: Made, position: Tensor, state: KeyValueState | None
    ) -> Made:
        """What the tokens read, of each other and of the ring, and the ring after."""
        queries, *slots = made
        after, read = position + queries.size(2), None
        if state:
            before = (turn_ring(x, position) for x in (state.keys, state.values))
            slots = [torch.cat(x, dim=2) for x in zip(before, slots, strict=True)]
            read = after
        result = blocked_attention(queries, *slots, self.window, read, self.sinks)
        return result, *(make_ring(x, self.window, after) for x in slots)


class SinkAttention(WindowAttention):
    """The mixer `S`: `W` with a learned score a head for reading nothing at all.

    OpenAI (2025), gpt-oss; Xiao et al. (2024) found why it is wanted.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.sinks = nn.Parameter(torch.zeros(config.heads))
