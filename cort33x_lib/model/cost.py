"""What a model costs, as pure functions of its config: parameters, FLOPs, state bytes.

One multiplication and one addition count as two FLOPs. Norms, activations and the
softmax are left out: below two per cent of the work at every size in the book.
"""

from dataclasses import replace

from cort33x_lib.model.config import ModelConfig


def parameters(config: ModelConfig) -> dict[str, int]:
    """Trainable numbers by part of the model; their sum is the model's size."""
    C, L = config.channels, len(config.pattern)
    D, heads = config.head_channels, config.heads + config.key_value_heads
    return {
        "embedding": config.vocabulary * C,
        "mixers": L * (2 * C * heads * D + 2 * D),
        "feed-forward": L * 2 * C * config.feed_forward,
        "norms": (2 * L + 1) * C,
        "residual": 2 * L,
    }


def tokens_read(config: ModelConfig, letter: str, tokens: int) -> float:
    """How many tokens a token reads on average, in a sequence of `tokens`."""
    window = min(config.window, tokens) if letter == "W" else tokens
    return window - window * (window - 1) / (2 * tokens)


def forward_flops(config: ModelConfig, tokens: int) -> dict[str, float]:
    """FLOPs per token of one forward pass over `tokens` tokens, by part.

    A training step costs three times as much: the backward pass is two forward passes.
    """
    count, D = parameters(config), config.head_channels
    read = sum(tokens_read(config, letter, tokens) for letter in config.pattern)
    return {
        "projections": 2 * (count["mixers"] - 2 * D * len(config.pattern)),
        "attention": 4 * config.heads * D * read,
        "feed-forward": 2 * count["feed-forward"],
        "head": 2 * count["embedding"],
    }


def state_bytes(config: ModelConfig, tokens: int, number_bytes: int = 4) -> int:
    """Bytes of keys and values held after `tokens` tokens of one sequence."""
    per_token = 2 * config.key_value_heads * config.head_channels * number_bytes
    return sum(
        per_token * (min(tokens, config.window - 1) if letter == "W" else tokens)
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
