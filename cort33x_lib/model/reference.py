"""Softmax attention written as its formula says, to check the fast forms against.

One query, one head, one key, one pair of channels at a time, in float64. Chosen:
nothing of the fast forms is used, only a mixer's weights. Left out: states and speed.
"""

from collections.abc import Callable
from itertools import product
from math import cos, sin

import torch
from torch import Tensor, nn


def naive_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    window: int = 0,
    sinks: Tensor | None = None,
) -> Tensor:
    """What each query reads of its own token and those before, or of a window of them.

    (B, H, T, D), (B, G, T, D), (B, G, T, E) -> (B, H, T, E), float64. `sinks` (H,) are
    scores that take their share of the softmax and have no value.
    """
    queries, keys, values = queries.double(), keys.double(), values.double()
    B, H, T, D = queries.shape
    G = keys.size(1)
    read = []
    for b, h, t in product(range(B), range(H), range(T)):
        group = h * G // H
        seen = range(max(0, t - window + 1) if window else 0, t + 1)
        scores = [queries[b, h, t].dot(keys[b, group, s]) / D**0.5 for s in seen]
        sink = [sinks[h].double()] if sinks is not None else []
        highest = max(scores + sink).detach()
        weights = [(score - highest).exp() for score in scores]
        total = sum(weights + [(score - highest).exp() for score in sink])
        mean = torch.zeros(values.size(3)).double()
        for weight, s in zip(weights, seen, strict=True):
            mean = mean + weight / total * values[b, group, s]
        read.append(mean)
    return torch.stack(read).view(B, H, T, -1)


def naive_norm(vector: Tensor, gain: Tensor) -> Tensor:
    """One vector at root mean square one, then times its gains.

    (D,), (D,) -> (D,)
    """
    mean = sum(number * number for number in vector) / len(vector)
    return gain.double() * vector / (mean + torch.finfo(vector.dtype).eps).sqrt()


def naive_rotation(vector: Tensor, position: int) -> Tensor:
    """One vector, turned as far as its position says, a pair of channels at a time.

    (D,) -> (D,)
    """
    half, turned = len(vector) // 2, vector.clone()
    for pair in range(half):
        angle = position * 10_000.0 ** (-pair / half)  # radians
        left, right = vector[pair], vector[pair + half]
        turned[pair] = left * cos(angle) - right * sin(angle)
        turned[pair + half] = left * sin(angle) + right * cos(angle)
    return turned


def each_vector(change: Callable[[Tensor, int], Tensor], vectors: Tensor) -> Tensor:
    """Every vector of every head and token, changed: change(vector, its position).

    (B, H, T, D) -> (B, H, T, D)
    """
    numbered = enumerate(vectors.flatten(0, 2))  # B * H * T vectors
    changed = [change(vector, place % vectors.size(2)) for place, vector in numbered]
    return torch.stack(changed).view_as(vectors)


def naive_mixer(
    mixer: nn.Module, x: Tensor, window: int = 0, sinks: Tensor | None = None
) -> Tensor:
    """The output of a mixer `F`, `W` or `S`, from its weights.

    (B, T, C) -> (B, T, C), float64
    """
    H, G, D = mixer.heads, mixer.key_value_heads, mixer.head_channels
    made = x.double() @ mixer.project_in.weight.double().T  # (B, T, (H + 2 G) D)
    made = made.unflatten(2, (H + 2 * G, D)).transpose(1, 2)  # (B, H + 2 G, T, D)
    queries, keys, values = made[:, :H], made[:, H : H + G], made[:, H + G :]

    def placed(vectors: Tensor, gain: Tensor) -> Tensor:
        return each_vector(lambda v, t: naive_rotation(naive_norm(v, gain), t), vectors)

    queries, keys = placed(queries, mixer.query_gain), placed(keys, mixer.key_gain)
    read = naive_attention(queries, keys, values, window, sinks)
    return read.transpose(1, 2).flatten(2) @ mixer.project_out.weight.double().T


def naive_latent(mixer: nn.Module, x: Tensor) -> Tensor:
    """The output of the mixer `L`, each head's keys and values made from the latents.

    (B, T, C) -> (B, T, C), float64
    """
    H, D, R = mixer.heads, mixer.head_channels, mixer.latent_channels
    made = x.double() @ mixer.project_in.weight.double().T  # (B, T, H D + R + D/2)
    queries, latents, key = made.split([H * D, R, D // 2], dim=2)
    queries = queries.unflatten(2, (H, D)).transpose(1, 2)  # (B, H, T, D)
    latents, key = latents.unsqueeze(1), key.unsqueeze(1)  # (B, 1, T, R or D/2)
    gains = mixer.query_gain, mixer.latent_gain, mixer.key_gain
    queries, latents, key = (
        each_vector(lambda v, _, gain=gain: naive_norm(v, gain), vectors)
        for vectors, gain in zip((queries, latents, key), gains, strict=True)
    )
    turned = each_vector(naive_rotation, queries[..., D // 2 :])
    queries = torch.cat([queries[..., : D // 2], turned], dim=3)
    key = each_vector(naive_rotation, key).expand(-1, H, -1, -1)  # (B, H, T, D/2)
    keys = latents @ mixer.make_keys.weight.double().view(H, D // 2, R).mT
    values = latents @ mixer.make_values.weight.double().view(H, D, R).mT
    read = naive_attention(queries, torch.cat([keys, key], dim=3), values)
    return read.transpose(1, 2).flatten(2) @ mixer.project_out.weight.double().T
