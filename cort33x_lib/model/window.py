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
    """The queries in blocks, each with the slots that it can reach, and one more.

    The last query stands at the last slot. With one more slot than needed, the numbers
    of slots are round, and processors like round numbers.
    """
    for start in range(0, tokens, BLOCK):
        end = min(start + BLOCK, tokens)
        first = max(slots - tokens + start - window, 0)
        yield slice(start, end), slice(first, slots - tokens + end)


def fold(x: Tensor, groups: int) -> Tensor:
    """Heads that share keys under each other, so that one product serves them.

    (B, H, T, D) -> (B * G, H / G * T, D)
    """
    return x.reshape(len(x) * groups, -1, x.size(3))


class Blocks:
    """Queries and keys of windowed attention, cut into blocks; scores of each.

    (B, H, T, D), (B, G, S, D), (B,) or None. What a block may not read is the same for
    all whole blocks, so it is found once: minus infinity, to be added to scores.
    """

    def __init__(self, queries: Tensor, keys: Tensor, read: Tensor | None, window: int):
        (H, T, D), (G, S) = queries.shape[1:], keys.shape[1:3]
        self.queries, self.keys, self.groups = queries, keys.flatten(0, 1), G
        self.scale, self.cuts = D**-0.5, list(reach(T, S, min(window, S)))
        slots = BLOCK + min(window, S)
        seen = readable(torch.tensor([slots]), BLOCK, slots, window)[0, 0]
        hidden = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        self.hidden = hidden.to(queries).repeat(H // G, 1, 1)  # (H / G, BLOCK, slots)
        self.empty = None
        if read is not None:  # some rows have not filled all slots
            empty = torch.arange(S) < (S - read).view(-1, 1, 1)  # (B, 1, S)
            empty = torch.zeros(empty.shape).masked_fill_(empty, -torch.inf)
            self.empty = empty.to(queries).repeat_interleave(G, 0)  # (B * G, 1, S)

    def scores(self, rows: slice, slots: slice) -> tuple[Tensor, Tensor]:
        """The queries of a block, folded, and their scores with the slots."""
        queries = fold(self.queries[:, :, rows], self.groups)
        high, wide = rows.stop - rows.start, slots.stop - slots.start
        hidden = self.hidden[:, -high:, -wide:].flatten(0, 1)  # (H / G * high, wide)
        if self.empty is not None:
            hidden = hidden + self.empty[:, :, slots]
        keys = self.keys[:, slots].mT
        return queries, torch.baddbmm(hidden, queries, keys, alpha=self.scale)


def read_blocks(
    blocks: Blocks, values: Tensor, total: bool
) -> tuple[Tensor, Tensor | None]:
    """What each query reads; if wanted, the logarithm of the sum that divides weights.

    (B, G, S, D) -> (B, H, T, D), (B, H, T) or None
    """
    result, values = torch.empty_like(blocks.queries), values.flatten(0, 1)
    totals = torch.empty_like(result[..., 0]) if total else None
    for rows, slots in blocks.cuts:
        scores = blocks.scores(rows, slots)[1]
        weights = scores.softmax(dim=-1)  # (B * G, H / G * BLOCK, slots)
        block = result[:, :, rows]
        block.copy_((weights @ values[:, slots]).view(block.shape))
        if total:
            largest = scores.amax(dim=-1) - weights.amax(dim=-1).log()
            totals[:, :, rows] = largest.view(block.shape[:3])
    return result, totals


def block_gradients(
    blocks: Blocks, values: Tensor, slopes: Tensor, rest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; each block's weights are found again.

    `slopes` are those of what was read, `rest` (B, H, T, 1) what the softmax takes off.
    """
    keys, values, shape = blocks.keys, values.flatten(0, 1), values.shape
    of_queries = torch.empty_like(blocks.queries)
    of_keys, of_values = torch.zeros(2, *keys.shape).to(keys)
    for rows, slots in blocks.cuts:
        queries, scores = blocks.scores(rows, slots)
        weights = scores.softmax(dim=-1)
        slope = fold(slopes[:, :, rows], blocks.groups)
        of_values[:, slots] += weights.mT @ slope
        off = fold(rest[:, :, rows], blocks.groups)
        of_scores = torch.baddbmm(off, slope, values[:, slots].mT, beta=-1)
        of_scores *= weights
        block = of_queries[:, :, rows]
        block.copy_((of_scores @ keys[:, slots]).view(block.shape))
        of_keys[:, slots] += of_scores.mT @ queries
    of_queries *= blocks.scale
    of_keys *= blocks.scale
    return of_queries, of_keys.view(shape), of_values.view(shape)


class BlockedAttention(torch.autograd.Function):
    """`read_blocks` with its gradients. No weights are kept for them.

    Found again block by block, as in Dao et al. (2022), FlashAttention.
    """

    @staticmethod
    def forward(
        context: Any, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor | None]:
        *cut, total = rest
        result, totals = read_blocks(Blocks(queries, keys, *cut), values, total)
        context.save_for_backward(queries, keys, values, result)
        context.cut = cut
        return result, totals

    @staticmethod
    @once_differentiable
    def backward(
        context: Any, slopes: Tensor, of_totals: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        queries, keys, values, result = context.saved_tensors
        rest = (slopes * result).sum(dim=-1, keepdim=True)
        if of_totals is not None:
            rest -= of_totals.unsqueeze(-1)
        blocks = Blocks(queries, keys, *context.cut)
        return *block_gradients(blocks, values, slopes, rest), None, None, None


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
