"""The forecast: how long each chapter takes on this machine.

Two probes, one for plain Python and one for training, are run here and were run on the
machine on which the chapters were timed. Each part of a chapter scales with its probe.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cort33x_lib.files import PROJECT
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES

TIMES = PROJECT / "data" / "runs" / "chapter-times.json"


@dataclass(frozen=True)
class Speed:
    """How fast a machine is at the two things that the chapters do."""

    python: float  # bytes of stories told per second
    training: float  # tokens per second, the model and batch of chapter 1


def rate_of(work: Callable[[], float], seconds: float) -> float:
    """Units of work per second, work being repeated for at least so many seconds."""
    work()  # the first time pays for what later times find ready
    done, started = 0.0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        done += work()
    return done / elapsed


def measure_speed(seconds: float = 20) -> Speed:
    """Probe this machine for about so many seconds, three quarters of them training."""
    world = World.load()
    stories = list(world.stories("train", 400))
    tokenizer = train_tokenizer((story.text for story in stories), 1024)
    tokens = encode_documents(tokenizer, stories)
    recipe = RECIPES["tour"]
    batches = Batches(tokens, recipe.rows, recipe.length, seed=0)
    steps = train(Transformer(CONFIGS["tour"]), batches, recipe)

    def tell() -> float:
        return sum(story.nbytes for story in world.stories("train", 50))

    def take_a_step() -> float:
        next(steps)
        return recipe.tokens_per_step

    return Speed(
        python=rate_of(tell, seconds / 4),
        training=rate_of(take_a_step, seconds * 3 / 4),
    )


def forecast(here: Speed, times: Path = TIMES) -> dict[str, float]:
    """Seconds that each chapter will take at this speed, by its file's name.

    From the times of one machine, `data/runs/chapter-times.json`.
    """
    recorded = json.loads(times.read_text(encoding="utf-8"))
    there = Speed(**recorded["speed"])
    return {
        chapter: part["python"] * there.python / here.python
        + part["training"] * there.training / here.training
        for chapter, part in recorded["chapters"].items()
    }
