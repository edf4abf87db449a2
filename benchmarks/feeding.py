"""What feeding costs: the time of a batch beside the time of a step that uses it.

    .venv/bin/python benchmarks/feeding.py

The tour's model, recipe and corpus, and the same corpus from a token file and mixed
with the standard library. Rounds take turns; the medians go to data/runs/feeding.json,
which chapter 6 reads. About a minute on two cores.
"""

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches
from cort33x_lib.text.corpus import standard_library
from cort33x_lib.text.mixtures import Mixture
from cort33x_lib.text.story_world import World
from cort33x_lib.text.token_files import encode_documents, encode_to_file
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.optimizer import make_optimizer
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import describe_machine
from cort33x_lib.training.step import take_step

ROUNDS, BATCHES = 15, 100


def main() -> None:
    plan, shape = RECIPES["tour"], CONFIGS["tour"]
    stories, code = list(World.load().stories("train", 6000)), list(standard_library())
    tokenizer = train_tokenizer((story.text for story in stories[:2000]), 2048)
    model = Transformer(shape)
    optimizer = make_optimizer(model, plan)
    with TemporaryDirectory() as folder:
        file = encode_to_file(tokenizer, stories, Path(folder) / "stories")
        sources = {"stories": file, "code": encode_documents(tokenizer, code)}
        sizes = plan.rows, plan.length, plan.seed
        feeders = {
            "memory": Batches(encode_documents(tokenizer, stories), *sizes),
            "token file": Batches(file, *sizes),
            "mixture": Mixture(sources, {"stories": 7, "code": 3}, *sizes),
        }
        times: dict[str, list[float]] = {name: [] for name in ["step", *feeders]}
        for turn in range(ROUNDS):
            for name, batches in feeders.items():
                started = time.perf_counter()
                for step in range(turn * BATCHES, (turn + 1) * BATCHES):
                    batches[step]
                times[name].append((time.perf_counter() - started) / BATCHES)
            batch = feeders["memory"][turn]
            started = time.perf_counter()
            take_step(model, optimizer, [batch], 1e-3, plan.clip)
            times["step"].append(time.perf_counter() - started)
    found = {
        "machine": describe_machine(),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "tokens_per_step": plan.tokens_per_step,
        "milliseconds": {
            name: round(1e3 * statistics.median(seconds), 4)
            for name, seconds in times.items()
        },
    }
    text = json.dumps(found, indent=2)
    write_atomically(PROJECT / "data" / "runs" / "feeding.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
