"""One token after another through the whole model, in one compiled call a layer.

Chosen: numba on the CPU in float32 or int8, for layers of attention and the few rows
that a reader waits for; caches with room for more. Left out: the layers `D` and `L`.
"""

import numpy as np
import torch
from torch import Tensor, nn

from cort33x_lib.model import int8
from cort33x_lib.model.attention import FullAttention, KeyValueState
from cort33x_lib.model.layers import Block, FeedForward, Norm
from cort33x_lib.model.positions import rotary_angles
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.model.window import (
    SinkAttention,
    WindowAttention,
    make_ring,
    turn_ring,
)

KNOWN = {
    Transformer, int8.Int8Transformer, nn.ModuleList, Block, Norm, FeedForward,
    FullAttention, WindowAttention, SinkAttention,
    nn.Embedding, nn.Linear, int8.Int8Table, int8.Int8Matrix,
}  # fmt: skip
ROWS, ROOM = 4, 64  # rows that it is for; slots that a cache has at least


def compilable(model: nn.Module, rows: int) -> bool:
    """Whether the compiled step computes what this model does, for so many rows."""
    parts = list(model.modules())
    weights = [*model.parameters(), *model.buffers()]
    return (
        rows <= ROWS
        and all(type(part) in KNOWN for part in parts)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
        and all(x.dtype in (torch.float32, torch.int8) for x in weights)
        and all(x.device.type == "cpu" and x.is_contiguous() for x in weights)
        and not torch.is_autocast_enabled("cpu")
        and int8.compiled() is not None
    )


def matrix(part: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """A matrix and the scales of its rows, in the memory that the model has them in."""
    if isinstance(part, int8.Int8Matrix):
        return part.numbers.numpy(), part.scales.numpy()
    weights = part.weight.detach().numpy()
    return weights, np.ones(len(weights), np.float32)


class Layer:
    """What the compiled step needs of one block, and the rings of its cache.

    Full attention has a ring too, which gets longer before it would wrap.
    """

    def __init__(self, block: Block, shares: Tensor, state: KeyValueState):
        mixer, forward = block.mixer, block.feed_forward
        norms = block.mixer_norm.gain, block.feed_forward_norm.gain
        gains = [*norms, mixer.query_gain, mixer.key_gain]
        parts = mixer.project_in, mixer.project_out, forward.widen, forward.narrow
        sinks = getattr(mixer, "sinks", None)
        if sinks is None:
            sinks = torch.full((mixer.heads,), -torch.inf)  # has no weight in a softmax
        self.weights = (
            shares.detach().numpy(),
            tuple(gain.detach().numpy() for gain in gains),
            sum(map(matrix, parts), ()),
            sinks.detach().numpy(),
        )
        self.grows = isinstance(mixer, FullAttention)
        self.keep(state.position, state.keys.detach(), state.values.detach())

    def keep(self, position: Tensor, *slots: Tensor) -> None:
        """Copy slots into rings of our own, of twice as many if they grow."""
        room = max(2 * slots[0].size(2), ROOM)
        if self.grows:
            slots = tuple(make_ring(x, room, position) for x in slots)
        self.rings = tuple(np.array(x.numpy(), order="C") for x in slots)

    def state(self, position: Tensor) -> KeyValueState:
        """The state after `position` (B,) tokens, a copy."""
        slots = [torch.from_numpy(ring) for ring in self.rings]
        if self.grows:
            longest = int(position.max())
            slots = [turn_ring(x, position)[:, :, -longest:] for x in slots]
        return KeyValueState(*slots, position).clone()


class CompiledStep:
    """Reads one more token of each row. Weights that change in place are seen."""

    def __init__(self, model: Transformer, states: list[KeyValueState]):
        self.kernels, self.model = int8.compiled(), model
        self.position = states[0].position.clone()
        each = zip(model.blocks, model.residual, states, strict=True)
        self.layers = [Layer(*one) for one in each]
        self.last = model.norm.gain.detach().numpy(), matrix(model.embedding)

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """Logits for the token after these: (B, 1) -> (B, V)."""
        first, position = self.model.embedding(ids)[:, 0].numpy(), self.position
        turns = rotary_angles(position, 1, self.model.config.head_channels)
        angles = turns.float().flatten(2).expand(len(ids), -1, -1)  # (B, 2, D/2)
        longest, x = int(position.max()), first.copy()  # (B, C)
        given = x, first, position.numpy(), angles.contiguous().numpy()
        logits = torch.empty(len(ids), self.model.config.vocabulary)
        for layer in self.layers:
            if layer.grows and longest == layer.rings[0].shape[2]:
                held = layer.state(position)
                layer.keep(position, held.keys, held.values)
            with int8.ONE_AT_A_TIME:
                self.kernels.read_layer(*given, *layer.weights, *layer.rings)
        with int8.ONE_AT_A_TIME:
            self.kernels.read_logits(x, *self.last, logits.numpy())
        self.position += 1
        return logits

    def states(self) -> list[KeyValueState]:
        """The states of all layers after what was read, copies."""
        return [layer.state(self.position) for layer in self.layers]
