"""One training step beside Hugging Face's GPT-2 and Llama and a plain baseline.

    .venv/bin/pip install transformers
    .venv/bin/python benchmarks/model.py [--quick] [--cells CELL ...]

Each contender is a process of its own. The processes of a cell live side by side and
take their steps in turn, round by round, in an order that moves on by one each time: so
what is compared is seconds apart. The record holds medians with their range, and
quartiles of the ratios within one round. A cell that is measured again replaces the old
one.

The contenders of a cell have the same layers, channels, vocabulary and, by the width of
their feed-forward layers, as many parameters; they take the same step: loss, backward
pass, clipping, fused AdamW, all in fp32. Ours has the optimizer of the library, the
others that of PyTorch, which does the same arithmetic and loads PyTorch's compiler when
it is made. `baseline` is what one writes first: packed queries, keys and values, the
fused attention of PyTorch, GELU, learned positions, all logits at once. Large matrix
products are timed before each cell, the ceiling.

The peak is that of the whole process as Linux counts it, with Python, PyTorch and, for
two contenders, their library; beside it stands what the process held before the first
step, libraries and weights. The record goes to data/runs/training-step.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.config import CONFIGS, ModelConfig
from cort33x_lib.model.cost import fit_to_budget, forward_flops, parameters
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import RECIPES, Recipe
from cort33x_lib.training.record import describe_machine
from cort33x_lib.training.step import take_step

RECORD = PROJECT / "data" / "runs" / "training-step.json"
CORT33X, TOUR = CONFIGS["cort33x"], CONFIGS["tour"]
LONG = replace(CORT33X, context=4096)
PEERS = ["gpt2", "llama", "baseline"]
CONTENDERS = ["mixed", "uniform", *PEERS]
CELLS = {  # the model, rows and tokens of a batch
    "cort33x, 1 x 1,024": (CORT33X, 1, 1024),
    "4 layers of 128, 16k tokens, 16 x 256": (replace(TOUR, vocabulary=16384), 16, 256),
    "tour, 4 x 256": (TOUR, 4, 256),
    "cort33x, 1 x 4,096": (LONG, 1, 4096),
}
STEPS = {"tour, 4 x 256": 8}  # in a turn; elsewhere one
GROWN = replace(CORT33X, channels=256, heads=4, feed_forward=1024)
GROWTH = {
    "length": {T: (replace(GROWN, context=T), 1, T) for T in (256, 1024, 2048)},
    "batch": {B: (GROWN, B, 256) for B in (1, 4, 8)},
    "depth": {L: (replace(GROWN, pattern="WWWF" * (L // 4)), 1, 256)
              for L in (4, 12, 24)},
}  # fmt: skip


class BaselineBlock(nn.Module):
    """Attention and a GELU layer, as in GPT-2."""

    def __init__(self, channels: int, heads: int, width: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.project_in = nn.Linear(channels, 3 * channels)
        self.project_out = nn.Linear(channels, channels)
        self.widen, self.narrow = (
            nn.Linear(channels, width),
            nn.Linear(width, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        joint = self.project_in(self.norms[0](x))  # (B, T, 3C)
        queries, keys, values = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in joint.chunk(3, dim=2)
        )
        read = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.project_out(read.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norms[1](x))))


class Baseline(nn.Module):
    """A small GPT as most people write it."""

    def __init__(self, config: ModelConfig, width: int):
        super().__init__()
        C = config.channels
        self.embedding = nn.Embedding(config.vocabulary, C)
        self.places = nn.Embedding(config.context, C)
        heads = C // config.head_channels
        self.blocks = nn.ModuleList(
            BaselineBlock(C, heads, width) for _ in config.pattern
        )
        self.norm = nn.LayerNorm(C)
        for name, weights in self.named_parameters():  # as in nanoGPT
            if weights.dim() > 1:
                back = name.endswith(("project_out.weight", "narrow.weight"))
                share = (2 * len(config.pattern)) ** -0.5 if back else 1
                nn.init.normal_(weights, 0, 0.02 * share)
            elif name.endswith("bias"):
                nn.init.zeros_(weights)

    def read(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.places.weight[: ids.size(1)]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = F.linear(self.read(inputs), self.embedding.weight)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class HuggingFace(nn.Module):
    """GPT-2, or a Llama that shares keys and values as ours does, of transformers."""

    def __init__(self, kind: str, config: ModelConfig, width: int):
        super().__init__()
        from transformers import AutoConfig, AutoModelForCausalLM

        C, D, L = config.channels, config.head_channels, len(config.pattern)
        if kind == "gpt2":
            shape = dict(n_embd=C, n_layer=L, n_head=C // D, n_inner=width,
                         n_positions=config.context, resid_pdrop=0, embd_pdrop=0,
                         attn_pdrop=0)  # fmt: skip
        else:
            shape = dict(hidden_size=C, num_hidden_layers=L, intermediate_size=width,
                         num_attention_heads=C // D, head_dim=D,
                         num_key_value_heads=config.key_value_heads,
                         max_position_embeddings=config.context,
                         tie_word_embeddings=True)  # fmt: skip
        made = AutoConfig.for_model(
            kind, vocab_size=config.vocabulary, use_cache=False,
            bos_token_id=0, eos_token_id=0, **shape,
        )  # fmt: skip
        self.model = AutoModelForCausalLM.from_config(made, attn_implementation="sdpa")

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.model(input_ids=inputs, shift_labels=targets, labels=targets).loss


def build(
    contender: str, config: ModelConfig, baseline: type[Baseline] = Baseline
) -> nn.Module:
    """The contender with as many parameters as `config` has."""
    budget = sum(parameters(config).values())
    if contender in ("mixed", "uniform"):
        L = len(config.pattern)
        config = replace(config, pattern="F" * L) if contender == "uniform" else config
        return Transformer(fit_to_budget(config, budget, multiple=8))

    def made(width: int) -> nn.Module:
        if contender == "baseline":
            return baseline(config, width)
        return HuggingFace(contender, config, width)

    with torch.device("meta"):
        few, more = (count(made(width)) for width in (64, 128))
    return made(64 + 8 * round((budget - few) * 8 / (more - few)))


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def peers_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """As in nanoGPT: what has two dimensions decays, the rest does not."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": recipe.decay},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.peak_rate, betas=recipe.betas, fused=True
    )


def memory(field: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at its highest."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) * 1024 / 1e6


def take_turns(contender: str, config: ModelConfig, rows: int, tokens: int) -> None:
    """In a process of its own: for each line read, a number of steps; one line written.

    Tokens per second of the median step, memory before the first and at most.
    """
    torch.manual_seed(0)
    model = build(contender, config)
    make = peers_optimizer if contender in PEERS else make_optimizer
    optimizer = make(model, RECIPES["cort33x"])
    before = memory("VmRSS")
    generator = torch.Generator().manual_seed(0)
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            shape = rows, tokens + 1
            ids = torch.randint(0, config.vocabulary, shape, generator=generator)
            batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            started = time.perf_counter()
            take_step(model, optimizer, [batch], 3e-4, 1.0)
            taken.append(time.perf_counter() - started)
        answer = {
            "tokens_per_second": rows * tokens / median(taken),
            "before_mb": before,
            "peak_mb": memory("VmHWM"),
            "parameters": count(model),
        }
        print(json.dumps(answer), flush=True)


def ceiling() -> float:
    """GFLOP/s of matrix products as large as those of a feed-forward layer."""
    x, weight = torch.randn(1024, 512), torch.randn(512, 2048)
    taken = []
    for _ in range(60):
        started = time.perf_counter()
        x @ weight
        taken.append(time.perf_counter() - started)
    return 2 * 1024 * 512 * 2048 / median(taken[10:]) / 1e9


def places() -> dict[str, tuple[ModelConfig, int, int]]:
    grown = {
        f"{axis} {at}": place
        for axis, steps in GROWTH.items()
        for at, place in steps.items()
    }
    return CELLS | grown


def taking_part(cell: str) -> list[str]:
    """Who takes part: all in short texts, in long ones and in growth only some."""
    if CELLS.get(cell, (LONG,))[0] is not LONG:
        return CONTENDERS
    return CONTENDERS[:2] if cell in CELLS else ["mixed", "uniform", "baseline"]


class Process:
    """A contender that waits for its turns."""

    def __init__(self, cell: str, name: str):
        self.name = f"{cell}: {name}"
        command = [sys.executable, __file__, "--turns", cell, name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, steps: int) -> dict:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended before its turn, see above")
        return json.loads(answer)

    def end(self) -> None:
        self.process.communicate()


def measure(cell: str, rounds: int) -> dict[str, list[dict]]:
    """What each contender answered in each round; two steps before are not counted."""
    names = taking_part(cell)
    running = {name: Process(cell, name) for name in names}
    for process in running.values():
        process.turn(2)
    found: dict[str, list[dict]] = {name: [] for name in names}
    for turned in tqdm(range(rounds), cell, leave=False):
        first = turned % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(running[name].turn(STEPS.get(cell, 1)))
    for process in running.values():
        process.end()
    return found


def summed_up(measured: list[dict[str, float]]) -> dict:
    """The median and the range of the speed; the peak, and what does not vary."""
    speeds = [one["tokens_per_second"] for one in measured]
    return {
        "tokens_per_second": round(median(speeds), 1),
        "tokens_per_second_range": [round(min(speeds), 1), round(max(speeds), 1)],
        "before_mb": round(measured[0]["before_mb"], 1),
        "peak_mb": round(max(one["peak_mb"] for one in measured), 1),
        "parameters": measured[0]["parameters"],
    }


def summary_of(cell: str, found: dict[str, list[dict]]) -> dict:
    """Medians and ranges of each contender, and how many times as fast `mixed` was in
    the same round, as quartiles; for ours, GFLOP/s as counted."""
    summary = {}
    for contender, measured in found.items():
        summary[contender] = one = summed_up(measured)
        if contender in ("mixed", "uniform"):
            config, _, tokens = places()[cell]
            if contender == "uniform":
                config = replace(config, pattern="F" * len(config.pattern))
            work = 3 * sum(forward_flops(config, tokens).values())
            one["gflops"] = round(work * one["tokens_per_second"] / 1e9, 1)
        if contender != "mixed":
            name = "tokens_per_second"
            ratios = [
                ours[name] / theirs[name]
                for ours, theirs in zip(found["mixed"], measured, strict=True)
            ]
            one["mixed_ratio"] = [round(x, 3) for x in quantiles(ratios, n=4)]
    return summary


def write_record(cell: str, summary: dict, rounds: int, gflops: float) -> None:
    """Put one cell into the record."""
    kept = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    record = {
        "machine": describe_machine() | {"transformers": version("transformers")},
        "rounds": kept.get("rounds", {}) | {cell: rounds},
        "ceiling": kept.get("ceiling", {}) | {cell: round(gflops, 1)},
        "cells": kept.get("cells", {}) | {cell: summary},
    }
    write_atomically(RECORD, json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds, no record")
    parser.add_argument("--cells", nargs="*", default=list(places()))
    parser.add_argument("--rounds", type=int, default=10, help="two or more")
    parser.add_argument("--turns", nargs=2, metavar=("CELL", "CONTENDER"))
    given = parser.parse_args()
    if given.turns:
        cell, contender = given.turns
        return take_turns(contender, *places()[cell])
    rounds, cells = given.rounds, given.cells
    if given.quick:
        rounds, cells = 2, list(CELLS)
    for cell in tqdm(cells, "cells"):
        gflops = ceiling()
        summary = summary_of(cell, measure(cell, rounds))
        if not given.quick:
            write_record(cell, summary, rounds, gflops)
        for name, one in summary.items():
            tqdm.write(
                f"{cell:40} {name:9} {one['tokens_per_second']:8,.0f} tokens/s "
                f"{one['peak_mb']:7,.0f} MB {one.get('mixed_ratio', '')}"
            )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
