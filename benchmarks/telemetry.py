"""What telemetry costs: steps with and without it, in turn, at 1M and 35M parameters.

    nice -n 5 .venv/bin/python benchmarks/telemetry.py [ROUNDS]

One model takes two steps a round, one of them recorded; which goes first changes with
each round. A probe comes every
PROBE_EVERY steps, which few rounds would miss or overrate; so the time of telemetry's
own calls is kept by step, and `own_share` is that of a step without a probe and a
PROBE_EVERYth of what a probe adds, over a step without telemetry. The other figures
compare the steps of a round as they are. Writes data/runs/telemetry-cost.json.
Seconds are those of the processor, one thread, so that others at work disturb little.
Steps of 1,024 tokens: larger steps make the same cost a smaller share. About five
minutes of one quiet core.
"""

import json
import sys
import time
from pathlib import Path
from statistics import mean, median, quantiles
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import Run, describe_machine, make_manifest
from cort33x_lib.training.step import take_step
from cort33x_lib.training.telemetry import PROBE_EVERY, PROBE_TOKENS, Telemetry

SIZES = {"1M": ("tour", 4, 256), "35M": ("cort33x", 1, 1024)}


class Timed:
    """A telemetry that counts the seconds of its own calls."""

    def __init__(self, telemetry: Telemetry):
        self.telemetry, self.seconds = telemetry, []  # of each step

    def __getattr__(self, name: str):
        def call(*given):
            started = time.process_time()
            found = getattr(self.telemetry, name)(*given)
            if name == "before_update":
                self.seconds.append(0.0)
            self.seconds[-1] += time.process_time() - started
            return found

        return call


def measure(name: str, rows: int, length: int, rounds: int, folder: Path) -> dict:
    """The cost at one size, over `rounds` steps each way."""
    config, recipe = CONFIGS[name], RECIPES["tour"]
    stories = list(World.load().stories("train", 1000))
    tokenizer = train_tokenizer((story.text for story in stories), 1024)
    tokens = encode_documents(tokenizer, stories)
    batches = Batches(tokens, rows, length, seed=0)
    manifest = make_manifest(config, recipe, "stories", tokenizer.name)
    run = Run.create(folder, name, manifest)
    model = Transformer(config)
    optimizer = make_optimizer(model, recipe)
    watch = Timed(Telemetry(model, batches))
    seconds: list[list[float]] = [[], []]
    for step in tqdm(range(1, rounds + 1), name):
        for watched in (step % 2, 1 - step % 2):
            started = time.process_time()
            loss, norm = take_step(
                model,
                optimizer,
                [batches[step]],
                1e-4,
                1.0,
                watcher=watch if watched else None,
            )
            line = {"step": step, "loss": loss, "gradient_norm": norm}
            run.append(**line, **(watch.measure(step, 1) if watched else {}))
            seconds[watched].append(time.process_time() - started)
    plain = median(watch.seconds[1 : PROBE_EVERY - 1])  # steps 2 to 19 have no probe
    probe = watch.seconds[0]
    if rounds >= PROBE_EVERY:  # the first one warms up
        probe = median(watch.seconds[PROBE_EVERY - 1 :: PROBE_EVERY])
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    return {
        "parameters": sum(w.numel() for w in model.parameters()),
        "tokens_per_step": rows * length,
        "rounds": rounds,
        "seconds_without": median(seconds[0]),
        "seconds_with": median(seconds[1]),
        "cost_of_all_steps": mean(seconds[1]) / mean(seconds[0]) - 1,
        "cost_median_step": median(ratios) - 1,
        "cost_quartiles": [quartile - 1 for quartile in quantiles(ratios, n=4)],
        "own_share": (plain + (probe - plain) / PROBE_EVERY) / median(seconds[0]),
    }


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2 * PROBE_EVERY
    with TemporaryDirectory() as folder:
        found = {
            size: measure(*what, rounds * (5 if size == "1M" else 1), Path(folder))
            for size, what in SIZES.items()
        }
    said = {"machine": describe_machine(), "sizes": found}
    said |= {"probe_every": PROBE_EVERY, "probe_tokens": PROBE_TOKENS}
    text = json.dumps(said, indent=2) + "\n"
    write_atomically(PROJECT / "data" / "runs" / "telemetry-cost.json", text)
    print(text)


if __name__ == "__main__":
    main()
