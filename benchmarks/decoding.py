"""Generating one token after another, beside Hugging Face's GPT-2 and Llama.

    .venv/bin/pip install "transformers>=5,<6"
    .venv/bin/python benchmarks/decoding.py [--quick]

The models have 12 layers of 512 channels, 8,192 tokens and as many parameters as
`cort33x`, by the width of their feed-forward layers; random weights, greedy, a cache,
fp32, one prompt of 128 tokens and 64 more. `generate` of each library is called as a
user calls it, for 64 tokens and for one: the difference is 63 steps of decoding.
`plain` is our model with the compiled step left out. Each measurement is a process of
its own, contenders take turns, the record holds medians with their range. No round is
begun after four minutes. Each round also measures how fast this machine reads memory:
as many bytes as the fp32 weights have, summed up, whatever of them the caches hold.
How decoding grows with length, batch and depth is measured once, in a smaller model.
The record goes to data/runs/decoding.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from statistics import median

import torch
from torch import nn
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.generation import generate, one_more, prefill
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import fit_to_budget, parameters
from cort33x_lib.model.int8 import Int8Transformer
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.record import describe_machine

RECORD = PROJECT / "data" / "runs" / "decoding.json"
CONFIG = CONFIGS["cort33x"]
BUDGET = sum(parameters(CONFIG).values())
PROMPT, MORE, TIMES = 128, 64, 3
ROUNDS_SECONDS, TRIAL_SECONDS = 240, 8  # no round, no trial is begun after these
OURS = {"mixed": CONFIG.pattern, "uniform": CONFIGS["uniform"].pattern}
CONTENDERS = [*OURS, "mixed int8", "mixed plain", "gpt2", "llama"]
GROWTH = {
    "length": (64, 256, 1024, 4096),
    "batch": (1, 2, 4, 8),
    "depth": (4, 8, 12, 24),
}


def seconds_of(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ours(name: str) -> Transformer:
    pattern = OURS[name.split()[0]]
    model = Transformer(fit_to_budget(replace(CONFIG, pattern=pattern), BUDGET, 8))
    for weights in model.parameters():
        if weights.dim() == 2 and not weights.any():
            nn.init.normal_(weights, 0, 0.02)  # zeros would generate one token for ever
    if name.endswith("plain"):
        model.register_forward_hook(lambda *_: None)  # which a compiled step would miss
    return Int8Transformer(model) if name.endswith("int8") else model


def theirs(kind: str, width: int) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    if kind == "gpt2":
        shape = dict(n_embd=512, n_layer=12, n_head=8, n_inner=width, n_positions=1024)
    else:
        heads = dict(num_attention_heads=8, num_key_value_heads=2, head_dim=64)
        shape = dict(hidden_size=512, num_hidden_layers=12, intermediate_size=width,
                     tie_word_embeddings=True, **heads)  # fmt: skip
    made = AutoConfig.for_model(kind, vocab_size=CONFIG.vocabulary, bos_token_id=0,
                                eos_token_id=None, pad_token_id=0, **shape)  # fmt: skip
    return AutoModelForCausalLM.from_config(made, attn_implementation="sdpa").eval()


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def fitted(kind: str) -> nn.Module:
    """Their model with the width that comes nearest to our parameters."""
    with torch.device("meta"):
        few, more = (count(theirs(kind, width)) for width in (64, 128))
    return theirs(kind, 64 + 8 * round((BUDGET - few) * 8 / (more - few)))


def measure(name: str) -> dict[str, float]:
    """Median tokens per second of decoding, seconds of the prompt, bytes of weights."""
    torch.manual_seed(0)
    model = fitted(name) if name in ("gpt2", "llama") else ours(name)
    prompt = torch.randint(0, CONFIG.vocabulary, (PROMPT,)).tolist()

    def work(tokens: int) -> None:
        if name in ("gpt2", "llama"):
            ids = torch.tensor([prompt])
            found = model.generate(ids, attention_mask=torch.ones_like(ids),
                                   max_new_tokens=tokens, do_sample=False)  # fmt: skip
            assert found.size(1) == PROMPT + tokens
        else:
            assert len(list(generate(model, prompt, tokens, temperature=0))) == tokens

    work(4)
    first, rest, started = [], [], time.perf_counter()
    while len(rest) < TIMES and time.perf_counter() - started < TRIAL_SECONDS:
        first.append(seconds_of(lambda: work(1)))
        rest.append(seconds_of(lambda: work(MORE)) - first[-1])
    kept = [*model.parameters(), *(b for b in model.buffers() if b.dtype == torch.int8)]
    return {
        "tokens_per_second": (MORE - 1) / median(rest),
        "prompt_seconds": median(first),
        "weight_mb": sum(part.nbytes for part in kept) / 1e6,
        "parameters": BUDGET if name.endswith("int8") else count(model),
    }


def bandwidth() -> dict[str, float]:
    """GB/s at which as many numbers as the model has weights are summed."""
    numbers = torch.rand(BUDGET)
    taken = [seconds_of(numbers.sum) for _ in range(25)]
    return {"gb_per_second": numbers.nbytes / median(taken[5:]) / 1e9}


@torch.inference_mode()
def step_milliseconds(axis: str, at: int, pattern: str) -> float:
    """A step of decoding of a smaller model, the median of twenty."""
    small = replace(CONFIG, channels=256, heads=4, feed_forward=1024)
    layers = at if axis == "depth" else 12
    rows, length = at if axis == "batch" else 1, at if axis == "length" else 256
    model = Transformer(replace(small, pattern=(pattern * layers)[:layers]))
    lots = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 8192, (rows, length), generator=lots)
    step = one_more(model, prefill(model, prompts.tolist())[1])
    taken = [seconds_of(lambda: step(prompts[:, -1:])) for _ in range(25)]
    return round(1e3 * median(taken[5:]), 3)


def growth(axis: str, pattern: str) -> dict[str, float]:
    """Milliseconds of a step as one thing grows."""
    return {str(at): step_milliseconds(axis, at, pattern) for at in GROWTH[axis]}


def child(*arguments: str) -> dict:
    command = [sys.executable, __file__, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    if found.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


def summed_up(measured: list[dict[str, float]]) -> dict:
    """The median of each number with its range, or the number where it never varies."""
    summary: dict = {}
    for name in measured[0]:
        numbers = [round(one[name], 4) for one in measured]
        summary[name] = round(median(numbers), 4)
        if len(set(numbers)) > 1:
            summary[f"{name}_range"] = [min(numbers), max(numbers)]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, no record")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", metavar="CONTENDER")
    parser.add_argument("--bandwidth", action="store_true")
    parser.add_argument("--growth", nargs=2, metavar=("AXIS", "PATTERN"))
    given = parser.parse_args()
    if given.bandwidth:
        return print(json.dumps(bandwidth()))
    if given.one:
        return print(json.dumps(measure(given.one)))
    if given.growth:
        return print(json.dumps(growth(*given.growth)))
    rounds = 1 if given.quick else given.rounds
    found: dict[str, list[dict]] = {}
    started = time.perf_counter()
    for _ in tqdm(range(rounds), "rounds"):
        if time.perf_counter() - started > ROUNDS_SECONDS:
            break
        found.setdefault("bandwidth", []).append(child("--bandwidth"))
        for name in tqdm(CONTENDERS, leave=False):
            found.setdefault(name, []).append(child("--one", name))
    read = summed_up(found.pop("bandwidth"))
    record = {
        "machine": describe_machine() | {"transformers": version("transformers")},
        "prompt": PROMPT,
        "tokens": MORE,
        "rounds": len(found["mixed"]),
        "bandwidth": read,
        "contenders": {name: summed_up(one) for name, one in found.items()},
    }
    for name, one in record["contenders"].items():
        limit = read["gb_per_second"] * 1e3 / one["weight_mb"]
        one["limit_tokens_per_second"] = round(limit, 2)
        print(f"{name:12} {one['tokens_per_second']:8.1f} tokens/s, limit {limit:6.1f},"
              f" prompt {one['prompt_seconds']:.3f} s, {one['weight_mb']:.0f} MB, "
              f"{one['parameters']:,} parameters")  # fmt: skip
    print(read)
    if given.quick:
        return
    record["growth"] = {
        axis: {
            name: child("--growth", axis, pattern)
            for name, pattern in (("mixed", "WWWF"), ("uniform", "F"))
        }
        for axis in tqdm(GROWTH, "growth")
    }
    write_atomically(RECORD, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
