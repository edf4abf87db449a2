"""Generation: one token after another, each drawn from what the model expects.

The model reads the prompts once; its states carry what it has read to the next tokens.
Chosen: what all mixers share, so that any pattern generates. Left out: beams, and
drafts by a smaller model.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cort33x_lib.model import decoding
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.tokenizer import END, Tokenizer


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of what was read by the penalty, multiply negative ones.

    (B, V), (B, V) bool -> (B, V). Keskar et al. (2019), CTRL.
    """
    return torch.where(seen, logits * penalty ** -logits.sign(), logits)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; as it stands, from all that the model expects.

    Raises ValueError for a number outside its range.
    """

    temperature: float = 1.0  # below 1 favours the likely; 0 takes the likeliest
    top_k: int | None = None  # keep the k likeliest
    top_p: float | None = None  # keep the fewest likeliest that reach p
    min_p: float | None = None  # keep what has this share of the likeliest, or more
    repetition_penalty: float = 1.0  # above 1 disfavours what has been read

    def __post_init__(self):
        for name, fits, expected in (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "over 0, at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "more than 0"),
        ):
            if not fits:
                found = getattr(self, name)
                raise ValueError(f"{name} is {found}, expected {expected}")

    def probabilities(self, logits: Tensor, seen: Tensor) -> Tensor:
        """What the next token is drawn from: penalty, temperature, top-k, -p, min-p.

        (B, V) logits, (B, V) bool -> (B, V); rows sum to one. Top-k: Fan et al.
        (2018), top-p: Holtzman et al. (2020), min-p: Nguyen et al. (2025).
        """
        if self.repetition_penalty != 1:
            logits = penalise(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.size(-1)).to(logits.dtype)
        logits = (logits - logits.amax(-1, keepdim=True)) / self.temperature
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.size(-1))).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        kept = logits.softmax(-1)
        if self.top_p is not None:
            ordered, order = kept.sort(descending=True)
            before = ordered.cumsum(-1) - ordered  # what likelier ones hold together
            kept = kept.scatter(-1, order, ordered.masked_fill(before >= self.top_p, 0))
        if self.min_p is not None:
            least = self.min_p * kept.amax(-1, keepdim=True)
            kept = kept.masked_fill(kept < least, 0)
        return kept / kept.sum(-1, keepdim=True)


def draw_tokens(
    sampling: Sampling, logits: Tensor, seen: Tensor, lots: Sequence[torch.Generator]
) -> Tensor:
    """The next token of each row, from its own generator.

    (B, V) logits, (B, V) bool, B generators -> (B, 1)
    """
    shares = sampling.probabilities(logits, seen)
    if sampling.temperature == 0:
        return shares.argmax(-1, keepdim=True)
    pairs = zip(shares, lots, strict=True)
    return torch.stack([torch.multinomial(p, 1, generator=lot) for p, lot in pairs])


def next_logits(
    model: Transformer, ids: Tensor, states: list[Any] | None
) -> tuple[Tensor, list[Any]]:
    """Logits for the token after the last, and the states; no others are computed.

    (B, T) -> (B, V), L states
    """
    x, states = model.read(ids.to(model.norm.gain.device), states)  # (B, T, C)
    return model.head(x[:, -1]), states


def prefill(
    model: Transformer, prompts: Sequence[Sequence[int]]
) -> tuple[Tensor, list[Any]]:
    """Read prompts of any lengths, and stack what was read into one batch.

    -> (B, V), L states. Each prompt is read whole, in one pass of its own.
    """
    read = [next_logits(model, torch.tensor([prompt]), None) for prompt in prompts]
    logits, states = zip(*read, strict=True)
    if len(prompts) == 1:
        return logits[0], states[0]
    layers = zip(*states, strict=True)
    return torch.cat(logits), [type(layer[0]).stack(layer) for layer in layers]


def one_more(model: Transformer, states: list[Any]) -> Callable[[Tensor], Tensor]:
    """What reads one more token of each row, (B, 1) -> (B, V) logits; called in turn.

    Compiled, where there is a compiled step for the model and so many rows.
    """
    if decoding.compilable(model, len(states[0].position)):
        return decoding.CompiledStep(model, states)

    def step(ids: Tensor) -> Tensor:
        nonlocal states
        logits, states = next_logits(model, ids, states)
        return logits

    return step


@torch.inference_mode()
def generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    stop: int | Collection[int] = (),
    seed: int = 0,
    **options: float | int | None,
) -> Iterator[list[int | None]]:
    """Yield, up to `count` times, the next id of each prompt; None once it has ended.

    A prompt ends before an id of `stop`. `options` are those of `Sampling`. Row r draws
    from a generator of its own, `seed` + r, so it does not depend on the rows beside
    it. Raises ValueError for an empty prompt.
    """
    sampling = Sampling(**options)
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("the prompt is empty, expected at least one id")
    ends = {stop} if isinstance(stop, int) else set(stop)
    logits, states = prefill(model, prompts)
    step = one_more(model, states)
    seen = torch.zeros(logits.shape, dtype=torch.bool)  # (B, V)
    for row, prompt in enumerate(prompts):
        seen[row, list(prompt)] = True
    lots = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
    running = [True] * len(prompts)
    for left in reversed(range(count)):
        drawn = draw_tokens(sampling, logits.cpu(), seen, lots)
        ids = drawn.flatten().tolist()
        running = [r and id not in ends for r, id in zip(running, ids, strict=True)]
        if not any(running):
            return
        yield [id if r else None for r, id in zip(running, ids, strict=True)]
        if left:
            seen.scatter_(1, drawn, True)
            logits = step(drawn)


def generate(
    model: Transformer,
    prompt: Sequence[int],
    count: int,
    *,
    stop: int | Collection[int] = (),
    seed: int = 0,
    **options: float | int | None,
) -> Iterator[int]:
    """Yield up to `count` ids that follow one prompt, ending before an id of `stop`.

    The same seed gives the same ids on the same machine; see `generate_batch`.
    """
    rows = generate_batch(model, [prompt], count, stop=stop, seed=seed, **options)
    for (id,) in rows:
        yield id


def stream(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str = "",
    count: int = 400,
    **options: float | int | None,
) -> Iterator[str]:
    """The text that follows a prompt, as it comes, never half a character.

    The prompt stands at the start of a document, and the text ends with it. `options`
    are those of `Sampling`, and `seed`.
    """
    end = tokenizer.specials[END]
    ids = [end, *tokenizer.encode(prompt)]
    made = generate(model, ids, count, stop=end, **options)
    yield from tokenizer.decode_stream(made, cut=True)
