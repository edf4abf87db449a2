"""What a layer with a memory costs in time, beside full and windowed attention.

    .venv/bin/python benchmarks/delta.py

One layer of `cort33x`, forward and backward, at several lengths; the rule alone, in
chunks, token by token, and as Hugging Face transformers computes it in plain PyTorch
where that is installed. Rounds take turns; medians, quartiles and the ratios within a
round go to data/runs/delta.json, which chapter 12 reads. Times are processor seconds of
one thread, which other work on the machine disturbs least; for layers of 1,024 tokens,
the ratio is measured by the clock with all threads too. About two minutes.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.delta import CHUNK, chunked_delta, recurrent_delta
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.record import describe_machine

LENGTHS, LETTERS, ROUNDS = (256, 1024, 4096), "FWD", 9
SHAPE = replace(CONFIGS["cort33x"], pattern=LETTERS, vocabulary=64)


def seconds(work: Callable[[], Tensor], wanted: list[Tensor]) -> float:
    """How long some work takes with its gradients."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    torch.autograd.grad(work().sum(), wanted)
    return clock() - started


def take_turns(works: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """The seconds of each, round by round, the first round not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            found = work()
            if turn:
                times[name].append(found)
    return times


def summary(values: list[float]) -> dict[str, float]:
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    return dict(
        zip(("low", "median", "high"), (round(q, 6) for q in quartiles), strict=True)
    )


def layers(tokens: int) -> dict:
    """Seconds of one layer of each letter, and times of F and W, at one length."""
    model = Transformer(SHAPE)
    x = torch.randn(1, tokens, SHAPE.channels, requires_grad=True)
    works = {}
    for letter, block in zip(LETTERS, model.blocks, strict=True):
        mixer = block.mixer
        wanted = [x, *mixer.parameters()]
        works[letter] = lambda mixer=mixer, wanted=wanted: seconds(
            lambda: mixer(x)[0], wanted
        )
    times = take_turns(works, ROUNDS)
    found = {letter: summary(times[letter]) for letter in LETTERS}
    for other in "FW":
        pairs = zip(times["D"], times[other], strict=True)
        found[f"D / {other}"] = summary([ours / theirs for ours, theirs in pairs])
    return found


def rules(tokens: int = 1024) -> dict:
    """Seconds of the rule alone, three ways, and how far their values are apart."""
    H, K, D = SHAPE.heads, SHAPE.delta_channels, SHAPE.head_channels
    queries, keys = F.normalize(torch.randn(2, 1, H, tokens, K), dim=4)
    values, decay = torch.randn(1, H, tokens, D), -torch.rand(1, H, tokens) / 10
    given = [queries, keys, values, decay, torch.rand(1, H, tokens)]
    given = [x.clone().requires_grad_() for x in given]
    memory = torch.zeros(1, H, K, D)
    ways = {
        "in chunks": lambda: chunked_delta(*given, memory)[0],
        "token by token": lambda: recurrent_delta(*given, memory)[0],
    }
    if find_spec("transformers"):
        from transformers.models.qwen3_next import modeling_qwen3_next

        def theirs() -> Tensor:
            turned = (x.transpose(1, 2) for x in given)
            read, _ = modeling_qwen3_next.torch_chunk_gated_delta_rule(*turned, CHUNK)
            return read.transpose(1, 2) * K**0.5  # they divide queries by this

        ways[f"transformers {version('transformers')}"] = theirs
    works = {
        name: lambda way=way: seconds(way, given[:3]) for name, way in ways.items()
    }
    times, first = take_turns(works, 3), ways["token by token"]()
    apart = {name: (way() - first).abs().max().item() for name, way in ways.items()}
    return {
        "tokens": tokens,
        "seconds": {name: summary(values) for name, values in times.items()},
        "largest difference": {name: float(f"{x:.2e}") for name, x in apart.items()},
        "largest value": round(first.abs().max().item(), 3),
    }


def decoding(tokens: int) -> dict:
    """Seconds to read one more token after so many."""
    model = Transformer(SHAPE)
    x = torch.randn(1, tokens + 1, SHAPE.channels)

    def one_more(mixer, state) -> float:
        started = time.process_time()
        mixer(x[:, -1:], state)
        return time.process_time() - started

    with torch.no_grad():
        works = {}
        for letter, block in zip(LETTERS, model.blocks, strict=True):
            _, state = block.mixer(x[:, :-1])
            works[letter] = lambda mixer=block.mixer, state=state: one_more(
                mixer, state
            )
        times = take_turns(works, 200)
    return {letter: summary(times[letter]) for letter in LETTERS}


def main() -> None:
    machine, ratio = describe_machine(), layers(1024)["D / F"]
    torch.set_num_threads(1)
    found = {
        "machine": machine,
        "D / F with all threads": ratio,
        "channels": SHAPE.channels,
        "rounds": ROUNDS,
        "layer": {tokens: layers(tokens) for tokens in LENGTHS},
        "rule": rules(),
        "one more token": {tokens: decoding(tokens) for tokens in LENGTHS},
    }
    text = json.dumps(found, indent=1)
    write_atomically(PROJECT / "data" / "runs" / "delta.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
