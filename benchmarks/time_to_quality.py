"""How long until our recipe is as good as a nanoGPT-style run is at its end?

    .venv/bin/python benchmarks/time_to_quality.py clock     # milliseconds a step
    .venv/bin/python benchmarks/time_to_quality.py train     # hours: the curves
    .venv/bin/python benchmarks/time_to_quality.py           # what both say

The plan, written before the first recorded run.

Question. A plain model (learned positions, LayerNorm, GELU, biases, first weights and
optimizer groups as in nanoGPT; AdamW with betas 0.9 and 0.99, decay 0.1, clip 1, a
warm-up of 5% and a cosine to a tenth) trains for its budget. Which share of that time
does the book's model with the book's recipe need to reach the same bits per byte?

Sizes. 1M parameters with a budget of five minutes, 10M with ten. Both contenders have
the same layers, channels and vocabulary and, by the width of their feed-forward layers,
nearly the same parameters; both read the same rows of the same stories, none of which
comes twice. Held out are the first 150 stories that fit in a row.

Learning rates. The plain model tries five and keeps the one that is best at its end
with seed 0; seeds 1 and 2 train with that one. At 10M it tries them from the middle
outwards, until the best has a worse one on either side. Ours was set at 1M in 20
shorter runs on seeds 10 and 11 (optimizer, two rates, their schedule, window, batch,
layers) and trains on seeds 0, 1 and 2. At 10M it has the same numbers, untried there,
and computes in bfloat16, because the clock has that at less than two thirds of the
time.

Time. What a step computes does not depend on who else uses the machine, what it takes
does. So the curves are recorded against steps, and the clock apart from them: on a
quiet machine, in turns, every contender takes steps, and the median is its time a step.
A schedule's length is fixed before its run: the plain model's so that it fills the
budget when the machine is at its fastest (60 milliseconds a step at 1M), ours so that
it takes less than 60% of that. Seconds are steps times the median of the recorded
clock. Examinations are not counted.

Measure. The first examination of ours that is at least as good as the last of the
plain model with the same seed; the share is its time over the budget. All curves are
kept, seeds 0, 1 and 2.

Ingredients. With seed 0 at 1M, ours is trained again with one ingredient taken out, in
the same steps: AdamW for all weights instead of Muon, the plain model, full attention
in all layers, no rotary positions, no learned numbers that mix the residual stream.

No run is left out or repeated. Two earlier ones, whose steps were a guess before there
was a clock, are replaced. At 10M, one of ours on seed 10 was stopped before it had said
anything.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from unittest import mock

import torch
import torch.nn.functional as F
from model import Baseline, build, peers_optimizer
from torch import Tensor, nn
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.evaluation import evaluate
from cort33x_lib.model.config import CONFIGS, ModelConfig
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.text.corpus import manifest
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.optimizer import Muon, Together, adamw, make_optimizer
from cort33x_lib.training.recipe import RECIPES, Recipe
from cort33x_lib.training.record import make_manifest
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.training.step import take_step

FOLDER = PROJECT / "data" / "runs" / "time-to-quality"
SEEDS, POINTS, STORIES, HELD_OUT = (0, 1, 2), 25, 40_000, 150
TOUR = CONFIGS["tour"]
PLAIN = replace(RECIPES["tour"], peak_rate=1e-3, final_rate=1e-4, betas=(0.9, 0.99))
OURS = replace(RECIPES["tour"], optimizer="muon", matrix_rate=0.01, schedule="wsd",
               warmup=0.02, cooldown=0.4)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A model, the steps that fill the plain one's budget, and how ours is trained."""

    config: ModelConfig
    plain_steps: int
    steps: int  # of ours
    recipe: Recipe
    rates: tuple[float, ...] = (2e-3, 4e-3, 1e-3, 8e-3, 5e-4)


SIZES = {
    "1M": Size(replace(TOUR, window=16), 5000, 2000, OURS),
    "10M": Size(
        replace(
            TOUR, window=16, channels=320, heads=5, key_value_heads=5, head_channels=64,
            feed_forward=1280, pattern="WFWFWFWF",
        ),
        1700, 720, replace(OURS, precision="bfloat16"), rates=(2e-3, 4e-3, 1e-3, 5e-4),
    ),
}  # fmt: skip


class Plain(Baseline):
    """The plain model, examined like ours."""

    def __init__(self, config: ModelConfig, width: int):
        super().__init__(config, width)
        self.config = config

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:
        return F.linear(self.read(ids), self.embedding.weight), None


def plain_muon(model: nn.Module, recipe: Recipe) -> Together:
    """Our recipe for the plain model: Muon for the matrices of its blocks."""
    named = list(model.named_parameters())
    blocks = [w for name, w in named if name.startswith("blocks.") and w.dim() > 1]
    inside = {*blocks}
    others = [w for _, w in named if w not in inside]
    scale = recipe.matrix_rate / recipe.peak_rate
    matrices = {"params": blocks, "weight_decay": recipe.decay, "rate_scale": scale}
    level = {"params": others, "weight_decay": 0.0}
    muon = Muon([matrices], lr=recipe.matrix_rate)
    return Together([muon, adamw([level], recipe)])


@dataclass(frozen=True)
class Arm:
    """A contender: how it is built and trained, and what is replaced meanwhile."""

    make: Callable[[ModelConfig, int], nn.Module]
    recipe: Recipe
    steps: int
    optimizer: Callable = make_optimizer
    replaced: tuple[str, Callable] | None = None


def plain(config: ModelConfig, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build("baseline", config, Plain)


def without_residual(config: ModelConfig, seed: int) -> nn.Module:
    model = Transformer(config, seed)
    model.residual.requires_grad_(False)
    return model


def as_it_is(x: Tensor, *_: object) -> Tensor:
    return x


def arms_of(size: Size) -> dict[str, Arm]:
    """Every arm of a size by name: the plain one at each rate, ours, and ours without
    one thing."""

    def at(rate: float) -> Recipe:
        return replace(PLAIN, peak_rate=rate, final_rate=rate / 10)

    arms = {
        f"plain {rate:g}": Arm(plain, at(rate), size.plain_steps, peers_optimizer)
        for rate in size.rates
    }
    ours, layers = size.recipe, len(size.config.pattern)

    def uniform(config: ModelConfig, seed: int) -> nn.Module:
        return Transformer(replace(config, pattern="F" * layers), seed)

    attention = "cort33x_lib.model.attention"
    if ours.precision != "float32":
        single = replace(ours, precision="float32")
        arms["float32"] = Arm(Transformer, single, size.steps)
    return arms | {
        "ours": Arm(Transformer, ours, size.steps),
        "AdamW": Arm(Transformer, replace(ours, optimizer="adamw"), size.steps),
        "plain model": Arm(plain, ours, size.steps, plain_muon),
        "no windows": Arm(uniform, ours, size.steps),
        "no rotation": Arm(Transformer, ours, size.steps,
                           replaced=(f"{attention}.rotate", as_it_is)),
        "no residual numbers": Arm(without_residual, ours, size.steps),
    }  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What every arm reads, and is examined on."""

    tokens: Tokens
    held_out: Tokens
    corpus: str
    floor: float  # bits per byte


@cache
def load() -> Data:
    world, length = World.load(), RECIPES["tour"].length
    stories = list(world.stories("train", STORIES))
    tokenizer = train_tokenizer((s.text for s in stories[:2000]), TOUR.vocabulary)
    fitting = (
        story
        for story in world.stories("validation", 10 * HELD_OUT)
        if len(tokenizer.encode(story.text)) < length
    )
    examined = list(islice(fitting, HELD_OUT))
    held_out = encode_documents(tokenizer, examined)
    nats = sum(story.nll for story in examined)
    bits = nats / torch.log(torch.tensor(2.0)).item() / int(held_out.nbytes.sum())
    tokens = encode_documents(tokenizer, stories)
    return Data(tokens, held_out, manifest(stories)["fingerprint"], bits)


def recipe_of(arm: Arm, seed: int) -> Recipe:
    return replace(arm.recipe, steps=arm.steps, seed=seed)


def train_arm(size_name: str, name: str, seed: int) -> None:
    """Train one arm with one seed and keep its curve, unless that is done already."""
    size = SIZES[size_name]
    arm = arms_of(size)[name]
    path = path_of(size_name, name, seed)
    if path.exists():
        return
    data = load()
    recipe = recipe_of(arm, seed)
    batches = Batches(data.tokens, recipe.rows, recipe.length, seed)
    with mock.patch(*(arm.replaced or ("torch.pi", torch.pi))):
        model = arm.make(size.config, seed)
        optimizer = arm.optimizer(model, recipe)
        every = max(arm.steps // POINTS, 1)
        curve, started = [], time.process_time()
        for step in tqdm(range(1, arm.steps + 1), path.stem, mininterval=10):
            rate = learning_rate(recipe, step)
            loss, _ = take_step(
                model,
                optimizer,
                [batches[step - 1]],
                rate,
                recipe.clip,
                recipe.precision,
            )
            if step % every == 0 or step == arm.steps:
                score = evaluate(model, data.held_out).bits_per_byte
                curve.append([step, round(loss, 4), round(score, 5)])
    made = make_manifest(size.config, recipe, data.corpus, data.tokens.tokenizer)
    record = {
        "arm": name,
        "parameters": sum(w.numel() for w in model.parameters()),
        "floor": round(data.floor, 5),
        "processor_seconds": round(time.process_time() - started, 1),
        "curve": curve,  # step, loss of the batch in nats, held-out bits per byte
        "manifest": made,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record) + "\n")


def path_of(size_name: str, name: str, seed: int) -> Path:
    return FOLDER / f"{size_name}-{name.replace(' ', '-')}-seed-{seed}.json"


def curve_of(size_name: str, name: str, seed: int) -> list[list[float]]:
    text = path_of(size_name, name, seed).read_text(encoding="utf-8")
    return json.loads(text)["curve"]


def best_plain(size_name: str) -> str:
    """The plain arm whose rate is best at its end with seed 0."""
    names = [f"plain {rate:g}" for rate in SIZES[size_name].rates]
    return min(names, key=lambda name: curve_of(size_name, name, 0)[-1][2])


def train_all(size_names: list[str]) -> None:
    """All curves of some sizes, as many at once as there are cores, one thread each."""
    first = [
        (size_name, name, 0)
        for size_name in size_names
        for name in arms_of(SIZES[size_name])
        if size_name == "1M" or name.startswith(("plain 0", "ours"))
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.starmap(train_arm, first, chunksize=1)
        rest = [
            (size_name, name, seed)
            for size_name in size_names
            for name in ("ours", best_plain(size_name))
            for seed in SEEDS[1:]
        ]
        pool.starmap(train_arm, rest, chunksize=1)


def clock(rounds: int, steps: int = 6) -> None:
    """Milliseconds a step of every arm that differs in work, in turns."""
    data, found = load(), {}
    record = {"threads": torch.get_num_threads(), "rounds": rounds, "milliseconds": {}}
    for size_name, size in SIZES.items():
        arms = arms_of(size)
        timed = "plain 0.001", "ours", "no windows", "float32"
        wanted = [name for name in timed if name in arms]
        ready = {}
        for name in wanted:
            recipe = recipe_of(arms[name], 0)
            model = arms[name].make(size.config, 0)
            ready[name] = model, arms[name].optimizer(model, recipe), recipe.precision
        batches = Batches(data.tokens, 4, 256, 0)
        for turn in tqdm(range(rounds + 1), size_name):
            for name, (model, optimizer, precision) in ready.items():
                for step in range(steps):
                    started = time.perf_counter()
                    take_step(model, optimizer, [batches[step]], 1e-4, 1.0, precision)
                    taken = 1e3 * (time.perf_counter() - started)
                    if turn:  # the first warms up
                        found.setdefault((size_name, name), []).append(taken)
        record["milliseconds"][size_name] = {
            name: {
                "median": round(median(found[size_name, name]), 2),
                "range": [round(min(found[size_name, name]), 2),
                          round(max(found[size_name, name]), 2)],
            }
            for name in wanted
        }  # fmt: skip
    made = make_manifest(TOUR, RECIPES["tour"], data.corpus, data.tokens.tokenizer)
    FOLDER.mkdir(parents=True, exist_ok=True)
    record["machine"] = made["machine"]
    write_atomically(FOLDER / "clock.json", json.dumps(record, indent=1) + "\n")


def report() -> None:
    clocks = json.loads((FOLDER / "clock.json").read_text(encoding="utf-8"))
    for size_name in SIZES:
        each = clocks["milliseconds"][size_name]
        best = best_plain(size_name)
        print(f"{size_name}: {best}, {each['plain 0.001']['median']} ms a step")
        for seed in SEEDS:
            both = [path_of(size_name, name, seed) for name in (best, "ours")]
            if not all(path.exists() for path in both):
                print(f"  seed {seed} is not recorded")
                continue
            end, _, goal = curve_of(size_name, best, seed)[-1]
            budget = end * each["plain 0.001"]["median"] / 1e3
            ours = curve_of(size_name, "ours", seed)
            step = next((step for step, _, bits in ours if bits <= goal), None)
            took = (step or 0) * each["ours"]["median"] / 1e3
            says = f"{took:.0f} of {budget:.0f} s, {took / budget:.0%}"
            found = f"after {step} steps, {says}" if step else "never"
            print(f"  seed {seed}: {goal:.4f} bits per byte; ours {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["clock", "train", "report"],
                        default="report")  # fmt: skip
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    if given.part == "clock":
        clock(given.rounds)
    elif given.part == "train":
        train_all(given.sizes)
    else:
        report()


if __name__ == "__main__":
    main()
