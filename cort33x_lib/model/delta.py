"""The gated delta rule: a memory of fixed size that each token reads, and corrects.

Chosen: gated decay, short convolution, normalised keys and output gate as in Gated
DeltaNet; no positions, the memory knows the order. Left out: negative eigenvalues.
K is the number of key channels per head; values have D, and the memory is (K, D).
"""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.model.attention import SlotState
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.norm import normalise

CHUNK, TAPS = 64, 4  # tokens handled at once; tokens that the convolution sees


def remaining(logarithm: Tensor) -> Tensor:
    """What is left of something: e to this power, and nothing below e ** -40.

    Processors are slow with numbers near the smallest that they know.
    """
    return F.threshold(logarithm, -40, -torch.inf).exp()


def recurrent_delta(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    decay: Tensor,
    rate: Tensor,
    memory: Tensor,
) -> tuple[Tensor, Tensor]:
    """What each token reads from the memory, token by token, and the last memory.

    Two of (B, H, T, K), (B, H, T, D), two of (B, H, T), (B, H, K, D) -> (B, H, T, D)
    and (B, H, K, D). `decay` is a logarithm. Yang et al. (2025), Gated DeltaNet.
    """
    read = []
    for t in range(keys.size(2)):
        key = keys[:, :, t].unsqueeze(2)  # (B, H, 1, K)
        memory = memory * decay[:, :, t, None, None].exp()
        error = values[:, :, t].unsqueeze(2) - key @ memory  # (B, H, 1, D)
        memory = memory + key.mT @ (rate[:, :, t, None, None] * error)
        read.append(queries[:, :, t].unsqueeze(2) @ memory)
    return torch.cat(read, dim=2), memory


def chunked_delta(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    decay: Tensor,
    rate: Tensor,
    memory: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """The same as `recurrent_delta`, `chunk` tokens at a time.

    All that does not depend on the memory is found for all chunks at once; a chunk then
    changes the memory by one product and one sum. Yang et al. (2024), DeltaNet.
    """
    T, (K, D) = keys.size(2), memory.shape[2:]

    def split(x: Tensor) -> Tensor:
        x = x if T % chunk == 0 else F.pad(x, (0, 0, 0, -T % chunk))
        return x.unflatten(2, (-1, chunk))  # (B, H, N, chunk, ...)

    queries, keys, values = split(queries), split(keys), split(values)
    decay, rate = split(decay.unsqueeze(3)), split(rate.unsqueeze(3))
    total = decay.cumsum(3)  # (B, H, N, chunk, 1)
    future = torch.full((chunk, chunk), -torch.inf).triu(1).to(keys)
    kept = remaining(total - total.mT + future)  # (B, H, N, chunk, chunk)
    fresh, left = remaining(total), remaining(total[:, :, :, -1:] - total)

    overlap = rate * (keys @ keys.mT) * kept
    wanted = torch.cat([rate * values, (rate * fresh) * keys], dim=4)
    solved = torch.linalg.solve_triangular(
        overlap, wanted, upper=False, unitriangular=True
    )
    writes, erased = solved.split([D, K], dim=4)
    kept_keys = (left * keys).mT
    added, gone = (kept_keys @ solved).split([D, K], dim=4)  # (B, H, N, K, ...)
    same = torch.eye(K, dtype=keys.dtype, device=keys.device)
    carried = fresh[:, :, :, -1:] * same - gone  # (B, H, N, K, K)
    before = []
    for change, keep in zip(added.unbind(2), carried.unbind(2), strict=True):
        before.append(memory)
        memory = change + keep @ memory
    start = torch.stack(before, dim=2)  # (B, H, N, K, D)
    seen = (queries @ keys.mT) * kept
    read = (fresh * queries) @ start + seen @ (writes - erased @ start)
    return read.flatten(2, 3)[:, :, :T], memory


def fused_delta(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    decay: Tensor,
    rate: Tensor,
    memory: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same as `chunked_delta` by a fused GPU kernel, in bfloat16.

    The memory stays in float32. Needs a CUDA device and the package of Yang and Zhang
    (2024), flash-linear-attention.
    """
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    given = [x.transpose(1, 2).bfloat16() for x in (queries, keys, values)]
    gates = [x.transpose(1, 2).float() for x in (decay, rate)]
    read, memory = chunk_gated_delta_rule(
        *given, *gates, scale=1.0, initial_state=memory, output_final_state=True
    )
    return read.transpose(1, 2).to(values.dtype), memory


def fusible(x: Tensor) -> bool:
    """Whether the fused kernel is at hand and half precision was asked for."""
    device = x.device.type
    return (
        device == "cuda"
        and torch.is_autocast_enabled(device)
        and find_spec("fla") is not None
    )


def precise_type(x: Tensor) -> torch.dtype:
    """The type for sums over many tokens: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def short_convolution(x: Tensor, tail: Tensor, weights: Tensor) -> Tensor:
    """Mix each channel with itself in the tokens just before.

    (B, T, N), (B, TAPS - 1, N), (N, TAPS) -> (B, T, N). `tail` stands before `x`.
    """
    joined = torch.cat([tail, x], dim=1).mT  # (B, N, TAPS - 1 + T)
    return F.conv1d(joined, weights.unsqueeze(1), groups=len(weights)).mT


@dataclass(frozen=True)
class DeltaState(SlotState):
    """The memory, and what the convolution still needs: one size at any length.

    N counts the channels that are convolved: those of queries, keys and values.
    """

    memory: Tensor  # (B, H, K, D), float32 or finer
    tail: Tensor  # (B, TAPS - 1, N)
    position: Tensor  # (B,)


class DeltaProjections(nn.Module):
    """What the rule needs of a token, made from its channels.

    How fast a head forgets is learned (`decay_speed`, a logarithm), and how much of
    that applies, each token decides. At the start the heads forget from a tenth to a
    thousandth of their memory with each token, and the convolution changes nothing.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        H, K, D = config.heads, config.delta_channels, config.head_channels
        self.heads, self.parts = H, [K, K, D]  # of a head: queries, keys, values
        self.widths = [H * sum(self.parts), H * D, H, H]  # these, gate, decay, rate
        self.project_in = nn.Linear(config.channels, sum(self.widths), bias=False)
        self.project_out = nn.Linear(H * D, config.channels, bias=False)
        alone = F.one_hot(torch.tensor(TAPS - 1), TAPS).float()
        self.convolution = nn.Parameter(alone.repeat(self.widths[0], 1))
        forgotten = torch.logspace(-1, -3, H)
        self.decay_shift = nn.Parameter(forgotten.expm1().log())  # undoes softplus
        self.decay_speed = nn.Parameter(torch.zeros(H))
        self.read_gain = nn.Parameter(torch.ones(D))

    def project(self, x: Tensor, tail: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Queries, keys, values, decay and rate as in `recurrent_delta`; gate; tail.

        (B, T, C), (B, TAPS - 1, N) -> five tensors, (B, T, H * D), (B, TAPS - 1, N)
        """
        x, gate, decay, rate = self.project_in(x).split(self.widths, dim=2)
        mixed = short_convolution(x, tail, self.convolution).to(precise_type(x))
        tail = torch.cat([tail, x], dim=1)[:, 1 - TAPS :].clone()
        heads = mixed.unflatten(2, (self.heads, -1)).transpose(1, 2).contiguous()
        queries, keys, values = F.silu(heads).split(self.parts, dim=3)  # (B, H, T, ...)
        queries, keys = F.normalize(queries, dim=3), F.normalize(keys, dim=3)
        step = F.softplus(decay.to(values.dtype) + self.decay_shift)  # (B, T, H)
        decay, rate = -self.decay_speed.exp() * step, rate.to(values.dtype).sigmoid()
        return [queries, keys, values, decay.mT, rate.mT], F.silu(gate), tail


class GatedDelta(DeltaProjections):
    """The mixer `D`: a memory for each head, of fixed size. Yang et al. (2025).

    The memory has the precision of float32 under autocast as well.
    """

    def start(self, x: Tensor) -> DeltaState:
        """The state before the first token, an empty memory: (B, T, C) -> state."""
        (K, _, D), rows = self.parts, len(x)
        memory = x.new_zeros(rows, self.heads, K, D, dtype=precise_type(x))
        tail = x.new_zeros(rows, TAPS - 1, self.widths[0])
        return DeltaState(memory, tail, torch.zeros(rows, dtype=torch.int64))

    def forward(
        self, x: Tensor, state: DeltaState | None = None
    ) -> tuple[Tensor, DeltaState]:
        """(B, T, C) -> (B, T, C) and the state after the last token."""
        state = state or self.start(x)
        given, gate, tail = self.project(x, state.tail)
        rule = recurrent_delta if x.size(1) == 1 else chunked_delta
        if fusible(x):
            rule = fused_delta
        with torch.autocast(x.device.type, enabled=False):
            read, memory = rule(*given, state.memory)  # (B, H, T, D)
        read = normalise(read.transpose(1, 2), self.read_gain)
        y = self.project_out(read.flatten(2).to(gate.dtype) * gate)
        return y, DeltaState(memory, tail, state.position + x.size(1))
