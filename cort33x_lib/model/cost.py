"""What a model costs, as pure functions of its config: parameters, FLOPs, state bytes.

From these and two numbers of a machine, the seconds of a training step.

Chosen: one function a letter for each of the three, listed in COSTS; the whole model
sums them over its pattern. One multiplication and one addition count as two FLOPs.
Left out: norms, activations and the softmax, below two per cent of the work at every
size in the book.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.delta import CHUNK, TAPS


@dataclass(frozen=True)
class MixerCost:
    """What one layer of a letter costs, as three functions of the config."""

    parameters: Callable[[ModelConfig], int]  # trainable numbers
    flops: Callable[[ModelConfig, int], tuple[float, float]]  # config, tokens
    state_bytes: Callable[[ModelConfig, int, int], int]  # config, tokens, number_bytes


def tokens_read(tokens: int, window: int) -> float:
    """How many tokens a token reads on average, itself included, in so many tokens."""
    window = min(window, tokens)
    return window - window * (window - 1) / (2 * tokens)


def attention_parameters(config: ModelConfig) -> int:
    """Trainable numbers of one layer `F` or `W`: two matrices and two gains."""
    C, D = config.channels, config.head_channels
    return 2 * C * (config.heads + config.key_value_heads) * D + 2 * D


def attention_flops(config: ModelConfig, read: float) -> tuple[float, float]:
    """FLOPs per token of one layer whose tokens read `read` others on average.

    Gives those of its matrices, and those of scores and weighted means.
    """
    matrices = attention_parameters(config) - 2 * config.head_channels
    return 2 * matrices, 4 * config.heads * config.head_channels * read


def full_flops(config: ModelConfig, tokens: int) -> tuple[float, float]:
    """FLOPs per token of one layer `F`: its matrices, its reading."""
    return attention_flops(config, tokens_read(tokens, tokens))


def window_flops(config: ModelConfig, tokens: int) -> tuple[float, float]:
    """FLOPs per token of one layer `W`: its matrices, its reading.

    What the window asks for. Blocks compute some of what it hides as well, as a dense
    mask computes all of it.
    """
    return attention_flops(config, tokens_read(tokens, config.window))


def full_state_bytes(config: ModelConfig, tokens: int, number_bytes: int) -> int:
    """Bytes that one layer `F` holds: keys and values of all tokens."""
    return 2 * config.key_value_heads * config.head_channels * tokens * number_bytes


def window_state_bytes(config: ModelConfig, tokens: int, number_bytes: int) -> int:
    """Bytes that one layer `W` or `S` holds: `window` slots, filled or not."""
    return full_state_bytes(config, config.window, number_bytes)


def sink_parameters(config: ModelConfig) -> int:
    """Trainable numbers of one layer `S`: those of `W`, and one a head."""
    return attention_parameters(config) + config.heads


def delta_parameters(config: ModelConfig) -> int:
    """Trainable numbers of one layer `D`: two matrices, convolution, decay and gain."""
    H, K, D = config.heads, config.delta_channels, config.head_channels
    matrices = config.channels * H * (2 * K + 3 * D + 2)
    return matrices + TAPS * H * (2 * K + D) + 2 * H + D


def delta_flops(config: ModelConfig, tokens: int) -> tuple[float, float]:
    """FLOPs per token of one layer `D`: its matrices, and convolution and memory.

    Those of whole chunks, however few tokens the last one has.
    """
    H, K, D = config.heads, config.delta_channels, config.head_channels
    matrices = config.channels * H * (2 * K + 3 * D + 2)
    pairs = CHUNK**2 * (4 * K + 2 * D) + CHUNK * (CHUNK - 1) * (K + D)
    memory = CHUNK * (2 * K * (K + D) + 4 * K * D) + 2 * K**2 * D
    chunks = -(-tokens // CHUNK)
    convolution = 2 * TAPS * H * (2 * K + D)
    return 2 * matrices, convolution + H * chunks * (pairs + memory) / tokens


def delta_state_bytes(config: ModelConfig, tokens: int, number_bytes: int) -> int:
    """Bytes that one layer `D` holds: the same after any number of tokens.

    The memory has four bytes a number at least.
    """
    H, K, D = config.heads, config.delta_channels, config.head_channels
    tail = (TAPS - 1) * H * (2 * K + D) * number_bytes
    return H * K * D * max(number_bytes, 4) + tail


def latent_parameters(config: ModelConfig) -> int:
    """Trainable numbers of one layer `L`: four matrices and three gains."""
    H, D, R = config.heads, config.head_channels, config.latent_channels
    outside = config.channels * (2 * H * D + R + D // 2)
    return outside + R * H * (D // 2 + D) + D + R + D // 2


def latent_flops(config: ModelConfig, tokens: int) -> tuple[float, float]:
    """FLOPs per token of one layer `L` that makes keys and values: matrices, reading.

    With a state it reads the latents as they are, at a width of R + D/2 and not of D.
    """
    D, R = config.head_channels, config.latent_channels
    matrices = latent_parameters(config) - (D + R + D // 2)
    return 2 * matrices, 4 * config.heads * D * tokens_read(tokens, tokens)


def latent_state_bytes(config: ModelConfig, tokens: int, number_bytes: int) -> int:
    """Bytes that one layer `L` holds: a latent and a rotary key a token."""
    per_token = config.latent_channels + config.head_channels // 2
    return per_token * tokens * number_bytes


COSTS = {
    "F": MixerCost(attention_parameters, full_flops, full_state_bytes),
    "W": MixerCost(attention_parameters, window_flops, window_state_bytes),
    "S": MixerCost(sink_parameters, window_flops, window_state_bytes),
    "D": MixerCost(delta_parameters, delta_flops, delta_state_bytes),
    "L": MixerCost(latent_parameters, latent_flops, latent_state_bytes),
}


def parameters(config: ModelConfig) -> dict[str, int]:
    """Trainable numbers by part of the model; their sum is the model's size."""
    C, L = config.channels, len(config.pattern)
    return {
        "embedding": config.vocabulary * C,
        "mixers": sum(COSTS[letter].parameters(config) for letter in config.pattern),
        "feed-forward": L * 2 * C * config.feed_forward,
        "norms": (2 * L + 1) * C,
        "residual": 2 * L,
    }


def forward_flops(config: ModelConfig, tokens: int) -> dict[str, float]:
    """FLOPs per token of one forward pass over `tokens` tokens, by part.

    A training step costs three times as much: the backward pass is two forward passes.
    """
    count = parameters(config)
    mixers = [COSTS[letter].flops(config, tokens) for letter in config.pattern]
    return {
        "projections": sum(matrices for matrices, _ in mixers),
        "attention": sum(reading for _, reading in mixers),
        "feed-forward": 2 * count["feed-forward"],
        "head": 2 * count["embedding"],
    }


def step_seconds(
    config: ModelConfig, tokens: int, step: int, rate: float, update: float
) -> float:
    """A forecast of one training step of `step` tokens, in rows of `tokens`.

    `rate` is what a machine does in FLOPs per second, `update` what AdamW takes in
    seconds per parameter: it moves numbers and hardly computes. Left out: batches,
    checks, records, and that a machine does small products at a lower rate.
    """
    work = 3 * step * sum(forward_flops(config, tokens).values())
    return work / rate + update * sum(parameters(config).values())


def state_bytes(config: ModelConfig, tokens: int, number_bytes: int = 4) -> int:
    """Bytes that all layers hold after `tokens` tokens of one sequence."""
    return sum(
        COSTS[letter].state_bytes(config, tokens, number_bytes)
        for letter in config.pattern
    )


def fit_to_budget(config: ModelConfig, budget: int, multiple: int = 16) -> ModelConfig:
    """The config with the feed-forward width that comes nearest to `budget` parameters.

    Raises ValueError when the other parts alone are over the budget.
    """
    others = sum(parameters(replace(config, feed_forward=1)).values())
    per_column = 2 * config.channels * len(config.pattern)
    columns = round((budget - others + per_column) / per_column / multiple) * multiple
    if columns < 1:
        raise ValueError(
            f"a budget of {budget:,} parameters leaves no feed-forward layer: "
            f"the other parts need {others - per_column:,}"
        )
    return replace(config, feed_forward=columns)
