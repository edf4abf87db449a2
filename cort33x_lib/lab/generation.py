"""Generation: one token after another, each drawn from what the model expects.

The model reads the prompt once; its states carry what it has read to the next token.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from cort33x_lib.model.transformer import Transformer


def narrow(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Probabilities of the next token, after temperature, top-k and top-p, in order.

    (V,) -> (V,), sums to one. Temperature 0 puts all on the likeliest token. Top-p
    keeps the fewest likeliest tokens that reach p: Holtzman et al. (2020).
    """
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), logits.numel()).float()
    logits = logits / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if top_p is not None:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # what likelier tokens hold together
        probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt: list[int],
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield up to `count` ids that follow the prompt, ending before the id `stop`.

    The same seed gives the same ids on the same machine. Raises ValueError for an
    empty prompt, a temperature below 0, top_k below 1 or top_p outside (0, 1].
    """
    if not prompt:
        raise ValueError("the prompt is empty, expected at least one id")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}, expected 0 or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, expected 1 or more")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, expected more than 0 and at most 1")
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(seed)
    ids, states = torch.tensor([prompt]), None
    for _ in range(count):
        logits, states = model(ids.to(device), states)
        probabilities = narrow(logits[0, -1].cpu(), temperature, top_k, top_p)
        chosen = int(torch.multinomial(probabilities, 1, generator=generator))
        if chosen == stop:
            return
        yield chosen
        ids = torch.tensor([[chosen]])
