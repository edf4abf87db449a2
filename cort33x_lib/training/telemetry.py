"""Telemetry: what a run looks like from inside, a few numbers by layer at each step.

Each of these is a key of a step's line in the record. Groups are those of
`step.layer_group` ("embedding", "blocks.0.mixer"); layers that have a mixer are named
by number and letter ("0.W", "3.F").

| key | what | when |
|---|---|---|
| gradient_norms | norm of each group's gradient, before clipping | every step |
| update_ratios | norm of a group's change over the norm of its weights | every step |
| bytes | text read so far: tokens times the corpus's bytes a token | every step |
| sources | rows that each source of a mixture has given | every step |
| memory | bytes of the process (resident) and on the accelerator | every step |
| activations | largest absolute value out of the embedding and each block | probe |
| logits | lowest and highest logit | probe |
| entropies | of attention, mean in nats; layers with a softmax | probe |
| sinks | share of attention that reads nothing; layers S | probe |
| decays | mean share of the memory that a token keeps; layers D | probe |

A probe reads the first PROBE_TOKENS tokens of the run's first row, after step 1 and
every PROBE_EVERY steps. Update ratios come from about SAMPLE numbers of each tensor. A
number that is not finite is recorded as null. Left out: histograms.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from cort33x_lib.model.attention import Attention, readable
from cort33x_lib.model.delta import GatedDelta
from cort33x_lib.model.latent import LatentAttention
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.model.window import WindowAttention
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.training.step import layer_group

PROBE_EVERY, PROBE_TOKENS, SAMPLE = 20, 256, 1 << 12


class Telemetry:
    """Watches a model while it is trained; see `step.Watcher`."""

    def __init__(self, model: Transformer, batches: Batches | Mixture):
        self.model, self.batches = model, batches
        named = [*model.named_parameters()]
        self.weights = [weights for _, weights in named]
        self.groups = [layer_group(name) for name, _ in named]
        self._views = [sampled(weights) for weights in self.weights]
        self._starts = np.cumsum([0, *(len(view) for view in self._views)])[:-1]
        # one number stands for so many of its tensor
        self._each = np.array(
            [w.numel() / len(v) for w, v in zip(self.weights, self._views, strict=True)]
        )
        mixed = isinstance(batches, Mixture)
        sources = batches.sources if mixed else {"": batches}
        self._text = {  # bytes of text in a row, about
            name: source.length * source.tokens.nbytes.sum() / len(source.tokens.ids)
            for name, source in sources.items()
        }
        self._probe = batches[0][0][:1, :PROBE_TOKENS]  # (1, T)
        self._measured: dict = {}

    @torch.no_grad()
    def before_update(self, model: nn.Module) -> None:
        """Takes the norms of the gradients, and a copy of some weights."""
        none = torch.zeros((), device=self.weights[0].device)
        lengths = torch.stack(
            [
                none if w.grad is None else torch.linalg.vector_norm(w.grad)
                for w in self.weights
            ]
        )
        squares = lengths.double().square().cpu().numpy()
        self._measured = {"gradient_norms": self._by_group(squares)}
        self._old = torch.cat(self._views)

    @torch.no_grad()
    def after_update(self, model: nn.Module) -> None:
        """Takes how far these weights have moved."""
        moved = self._by_group(self._squares(torch.cat(self._views) - self._old))
        sizes = self._by_group(self._squares(self._old))
        self._measured["update_ratios"] = {
            group: length and recordable(length / max(sizes[group] or math.inf, 1e-12))
            for group, length in moved.items()
        }

    def _squares(self, numbers: Tensor) -> np.ndarray:
        """The sum of squares of each tensor, about, from its sampled numbers."""
        squares = numbers.square().cpu().numpy()
        return np.add.reduceat(squares, self._starts, dtype=np.float64) * self._each

    def _by_group(self, squares: np.ndarray) -> dict[str, float | None]:
        """The norm of each layer group, from the sum of squares of each tensor."""
        sums = dict.fromkeys(self.groups, 0.0)
        for group, square in zip(self.groups, squares.tolist(), strict=True):
            sums[group] += square
        return {group: recordable(total**0.5) for group, total in sums.items()}

    def measure(self, step: int, accumulation: int) -> dict:
        """What the record says of the step that was just taken, beside its loss."""
        rows = step * accumulation * self.batches.rows
        measured = self._measured
        if isinstance(self.batches, Mixture):
            given = self.batches.counters(step * accumulation)
            measured["sources"] = given
        else:
            given = {"": rows}
        measured["bytes"] = round(sum(given[name] * self._text[name] for name in given))
        measured["memory"] = memory_held()
        if step == 1 or step % PROBE_EVERY == 0:
            measured |= probe_model(self.model, self._probe)
        return measured


def sampled(weights: Tensor) -> Tensor:
    """A view of some numbers of a tensor, evenly spread: (...,) -> (n,).

    The step from one to the next is odd, so that no column is left out.
    """
    return weights.detach().flatten()[:: weights.numel() // SAMPLE | 1]


def recordable(number: float) -> float | None:
    """The number, to five digits, or None where JSON knows no such number."""
    return float(f"{number:.5g}") if math.isfinite(number) else None


def memory_held() -> dict[str, int]:
    """Bytes that the process holds, and that its tensors hold on an accelerator."""
    held = {"resident": psutil.Process().memory_info().rss}
    if torch.cuda.is_available():
        held["accelerator"] = torch.cuda.memory_allocated()
    return held


@contextmanager
def listening(model: Transformer, inputs: dict, outputs: dict) -> Iterator[None]:
    """Keep what goes into each mixer and what comes out of each block, by number."""

    def keep_input(number: int):
        return lambda mixer, given: inputs.update({number: given[0]})

    def keep_output(number: int):
        return lambda block, given, made: outputs.update({number: made[0]})

    hooks = []
    for number, block in enumerate(model.blocks):
        hooks.append(block.mixer.register_forward_pre_hook(keep_input(number)))
        hooks.append(block.register_forward_hook(keep_output(number)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def probe_model(model: Transformer, ids: Tensor) -> dict:
    """Extremes, entropies, sinks and decays of a model on some tokens, (B, T)."""
    inputs, outputs = {}, {}
    ids = ids.to(model.embedding.weight.device)
    with listening(model, inputs, outputs):
        logits, _ = model(ids)
    peaks = {"embedding": model.embedding(ids).abs().max()}
    peaks |= {f"blocks.{number}": x.abs().max() for number, x in outputs.items()}
    extremes = {"lowest": logits.min(), "highest": logits.max()}
    found = {"activations": peaks, "logits": extremes, "entropies": {}}
    found |= {"sinks": {}, "decays": {}}
    for number, x in inputs.items():
        mixer = model.blocks[number].mixer
        name = f"{number}.{model.config.pattern[number]}"
        if isinstance(mixer, GatedDelta):
            decay = mixer.project(x, mixer.start(x).tail)[0][3]
            found["decays"][name] = decay.exp().mean()
            continue
        weights = softmax_weights(mixer, x)  # (B, H, T, T), or T + 1 with a sink
        logs = weights.clamp(min=1e-30).log()  # zeros add nothing
        found["entropies"][name] = -(weights * logs).sum(-1).mean()
        if getattr(mixer, "sinks", None) is not None:
            found["sinks"][name] = weights[..., -1].mean()
    return {
        key: {name: recordable(value.item()) for name, value in values.items()}
        for key, values in found.items()
        if values
    }


def softmax_weights(mixer: nn.Module, x: Tensor) -> Tensor:
    """What each token reads of each other, given what goes into a mixer F, W, S or L.

    (B, T, C) -> (B, H, T, T), rows sum to 1; a sink is one more column.
    """
    start, T = torch.zeros(1, dtype=torch.int64), x.size(1)
    if isinstance(mixer, LatentAttention):
        queries, latents = mixer.project(x, start)
        plain, shared = latents.split(mixer.sizes[1:], dim=-1)
        keys = mixer.make_keys(plain.squeeze(1)).unflatten(2, (mixer.heads, -1))
        keys = keys.transpose(1, 2)  # (B, H, T, D / 2)
        keys = torch.cat([keys, shared.expand_as(keys)], dim=-1)
    elif isinstance(mixer, Attention):
        queries, keys, _ = mixer.project(x, start)
        keys = keys.repeat_interleave(mixer.heads // mixer.key_value_heads, dim=1)
    else:
        raise ValueError(
            f"{type(mixer).__name__} has no softmax, expected one that has"
        )
    window = mixer.window if isinstance(mixer, WindowAttention) else 0
    scores = queries @ keys.mT * mixer.head_channels**-0.5  # (B, H, T, T)
    seen = readable(torch.tensor([T]), T, T, window).to(x.device)
    scores += torch.where(seen, 0.0, -torch.inf)
    if getattr(mixer, "sinks", None) is not None:
        sinks = mixer.sinks.view(-1, 1, 1).expand(len(x), -1, T, 1)
        scores = torch.cat([scores, sinks], dim=3)
    return scores.softmax(dim=-1)
