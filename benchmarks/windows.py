"""What a window saves: time and memory of one attention, forward and backward.

    .venv/bin/python benchmarks/windows.py [rounds]

The heads of `cort33x`, one sequence, one thread. Four ways to the same result: in
blocks, through a dense mask (the fused attention of torch, and scores written out), and
FlexAttention, compiled, which has no backward pass on a CPU. Every cell is a fresh
process. Rounds take turns through the cells; medians and ranges go to
data/runs/windows.json, which chapter 11 reads. A few minutes on a quiet core.
"""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from model import memory
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.attention import attend, readable
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.window import blocked_attention
from cort33x_lib.training.record import describe_machine

REPEATS, SECONDS = 15, 3.0
SHAPE = CONFIGS["cort33x"]
CELLS = [(4096, 256), (1024, 256), (2048, 256), (4096, 1024), (4096, 64)]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def blocks(tokens: int, window: int) -> Attend:
    return lambda *inputs: blocked_attention(*inputs, window)


def dense_mask(tokens: int, window: int) -> Attend:
    def run(*inputs: Tensor) -> Tensor:
        mask = readable(torch.tensor([tokens]), tokens, tokens, window)
        return attend(*inputs, mask)

    return run


def written_out(tokens: int, window: int) -> Attend:
    def run(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        shared = queries.size(1) // keys.size(1)
        keys, values = (x.repeat_interleave(shared, 1) for x in (keys, values))
        scores = queries @ keys.mT * queries.size(3) ** -0.5  # (B, H, T, T)
        mask = readable(torch.tensor([tokens]), tokens, tokens, window)
        return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values

    return run


def flex(tokens: int, window: int) -> Attend:
    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key > query - window)

    mask = create_block_mask(seen, None, None, tokens, tokens, device="cpu")
    compiled = torch.compile(flex_attention)
    return lambda *inputs: compiled(*inputs, block_mask=mask, enable_gqa=True)


WAYS = {
    "blocks": (blocks, CELLS),
    "dense mask": (dense_mask, CELLS[:4]),
    "dense mask, written out": (written_out, CELLS[:2]),
    "FlexAttention": (flex, CELLS[:1]),
}


def measure(way: str, tokens: int, window: int) -> dict[str, float]:
    """Milliseconds of both passes, and the highest memory above that of the inputs."""
    torch.set_num_threads(1)
    run, both = WAYS[way][0](tokens, window), way != "FlexAttention"
    random = torch.Generator().manual_seed(0)
    *inputs, wanted = (
        torch.randn(1, heads, tokens, SHAPE.head_channels, generator=random)
        for heads in (SHAPE.heads, *2 * [SHAPE.key_value_heads], SHAPE.heads)
    )

    def step() -> list[float]:
        leaves = [x.detach().requires_grad_(both) for x in inputs]
        started = time.perf_counter()
        read = run(*leaves)
        between = time.perf_counter()
        if both:
            read.backward(wanted)
        return [between - started, time.perf_counter() - between]

    step()  # loads or compiles what the first use needs
    times, ending = [], time.perf_counter() + SECONDS
    while len(times) < 2 or (len(times) < REPEATS and time.perf_counter() < ending):
        times.append(step())
    forward, backward = (statistics.median(part) for part in zip(*times, strict=True))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives free memory back
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before = memory("VmRSS")
    step()
    peak = memory("VmHWM") - before
    return {"forward": 1e3 * forward, "backward": 1e3 * backward, "megabytes": peak}


def in_fresh_process(*cell: str | int) -> dict[str, float]:
    command = [sys.executable, __file__, "--cell", *map(str, cell)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    cells = [(way, *cell) for way, (_, cells) in WAYS.items() for cell in cells]
    cells.sort(
        key=lambda cell: CELLS.index(cell[1:]) + 9 * (cell[0] == "FlexAttention")
    )
    found: dict[tuple, dict[str, list[float]]] = {}
    for cell in tqdm(cells * rounds):
        for name, value in in_fresh_process(*cell).items():
            found.setdefault(cell, {}).setdefault(name, []).append(round(value, 2))
        save(found)


def save(found: dict[tuple, dict[str, list[float]]]) -> None:
    """Medians and ranges of what has been measured so far."""
    rows = []
    for (way, tokens, window), measured in found.items():
        rows.append({"way": way, "tokens": tokens, "window": window})
        for name, values in measured.items():
            rows[-1][name] = round(statistics.median(values), 2)
            rows[-1][f"{name}_range"] = [min(values), max(values)]
    torch.set_num_threads(1)
    record = {
        "machine": describe_machine(),
        "rounds": max(len(x) for got in found.values() for x in got.values()),
        "units": "milliseconds; megabytes at the highest, above those of the inputs",
        "heads": [SHAPE.heads, SHAPE.key_value_heads, SHAPE.head_channels],
        "cells": rows,
    }
    text = json.dumps(record, indent=1)
    write_atomically(PROJECT / "data" / "runs" / "windows.json", text + "\n")


if __name__ == "__main__":
    if "--cell" in sys.argv:
        _, _, way, tokens, window = sys.argv
        print(json.dumps(measure(way, int(tokens), int(window))))
    else:
        main()
