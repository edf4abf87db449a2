"""Record models of one size and four vocabularies in data/runs/vocabulary-V-seed-S.

    .venv/bin/python benchmarks/record_vocabularies.py

The plan, written before the first recorded run.

Question. A model has a fixed number of parameters. Should it spend them on rows of its
embedding table, that is, on a larger vocabulary, or on its feed-forward layers?

Arms. Vocabularies of 512, 1024, 2048 and 4096 tokens, nested: one training on 6,000
stories, truncated. The model has 4 layers of full attention, so that every arm reads a
whole story, whatever its tokens, and 64 channels. `fit_to_budget` gives the
feed-forward width with which each comes nearest to 400,000 parameters.

Budget. Equal text is the primary one: in each of 400 steps every arm reads the same 4
whole stories, so after the last step all have read the same bytes in the same order.
Smaller vocabularies cut them into more tokens and so take more FLOPs and seconds:
both are recorded (the seconds of the processor, whoever else uses it), and no claim is
made about equal FLOPs or equal time. The learning rate is the tour's for every arm;
none was tuned for its vocabulary.

Measure. Bits per byte on 400 held-out stories, each read from its start, after the last
step; the exact floor of the same stories beside it. On 50 of them every 50 steps.

Seeds 0, 1 and 2, which decide the order of the stories and the first weights. Arms are
compared in pairs of one seed.

Verdict, for each of the three pairs of neighbouring vocabularies. The effect is the
mean of the three paired differences in bits per byte. It is "better" or "worse" when
its 95% t interval over seeds (2 degrees of freedom) leaves out zero and so does the 95%
bootstrap interval over the held-out stories; else it is "undecided". Three comparisons
at 95%: where nothing differed, about one table in seven would still name a difference.

No run is left out or repeated. About an hour on one busy thread.
"""

import json
import time
from contextlib import closing
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.evaluation import evaluate
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.cost import fit_to_budget, forward_flops
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Tokens, encode_documents
from cort33x_lib.text.corpus import manifest
from cort33x_lib.text.story_world import Story, World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.text.vocabulary import truncated
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES, Recipe
from cort33x_lib.training.record import make_manifest

RUNS = PROJECT / "data" / "runs"
VOCABULARIES, SEEDS, BUDGET = (512, 1024, 2048, 4096), (0, 1, 2), 400_000
STEPS, ROWS, WATCH_EVERY, WATCHED, HELD_OUT = 400, 4, 50, 50, 400
SHAPE = ModelConfig(
    vocabulary=512,
    context=768,
    channels=64,
    heads=2,
    key_value_heads=2,
    head_channels=32,
    feed_forward=8,
    pattern="FFFF",
    window=768,
)


class WholeStories:
    """Batches of whole stories, in an order that depends on the seed alone.

    Each row starts with an end token; what a row has over its story is not counted.
    """

    def __init__(self, tokens: Tokens, rows: int, seed: int):
        self.tokens, self.rows = tokens, rows
        self.order = np.random.default_rng(seed).permutation(len(tokens))

    def chosen(self, step: int) -> np.ndarray:
        return self.order[step * self.rows : (step + 1) * self.rows]

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        stories = [self.tokens.document(n).astype(np.int64) for n in self.chosen(step)]
        longest = max(map(len, stories))
        inputs = torch.full((self.rows, longest), self.tokens.end)  # (B, T)
        targets = torch.full((self.rows, longest), -100)  # (B, T)
        for row, ids in enumerate(map(torch.from_numpy, stories)):
            inputs[row, 1 : len(ids)] = ids[:-1]
            targets[row, : len(ids)] = ids
        return inputs, targets


def part(tokens: Tokens, first: int, last: int) -> Tokens:
    """The documents from `first` to before `last`."""
    starts = tokens.starts[first : last + 1]
    ids = tokens.ids[starts[0] : starts[-1]]
    return Tokens(ids, starts - starts[0], tokens.nbytes[first:last], tokens.tokenizer)


def run(
    name: str, config: ModelConfig, recipe: Recipe, tokens: Tokens, held_out: Tokens
) -> list[dict]:
    """Train one model; gives a line every ten steps and one with the examination."""
    model = Transformer(config, seed=recipe.seed)
    batches = WholeStories(tokens, recipe.rows, recipe.seed)
    lengths, watched = np.diff(tokens.starts), part(held_out, 0, WATCHED)
    lines, nbytes, count, busy, before = [], 0, 0, 0.0, time.process_time()
    with closing(train(model, batches, recipe)) as steps:
        for measured in tqdm(steps, name, recipe.steps, unit="step"):
            step, chosen = measured["step"], batches.chosen(measured["step"] - 1)
            nbytes += int(tokens.nbytes[chosen].sum())
            count += int(lengths[chosen].sum())
            line = {"step": step, "bytes": nbytes, "tokens": count}
            line["loss"] = round(measured["loss"], 4)
            busy += time.process_time() - before
            line["processor_seconds"] = round(busy, 2)
            if step % WATCH_EVERY == 0:
                line["held_out"] = round(evaluate(model, watched).bits_per_byte, 5)
            if step % 10 == 0:
                lines.append(line)
            before = time.process_time()
    nats = [evaluate(model, part(held_out, n, n + 1)).nats for n in range(HELD_OUT)]
    forward = sum(forward_flops(config, round(float(lengths.mean()))).values())
    examined = {
        "step": recipe.steps,
        "bits_per_byte": sum(nats) / np.log(2) / float(held_out.nbytes.sum()),
        "flops": 3 * forward * count,
        "bytes_per_token": float(held_out.nbytes.sum()) / len(held_out.ids),
        "story_bytes": held_out.nbytes.tolist(),
        "story_nats": [round(one, 3) for one in nats],
    }
    return [*lines, examined]


def main() -> None:
    torch.set_num_threads(1)
    world = World.load()
    stories = list(world.stories("train", 6000))
    examined = list(world.stories("validation", HELD_OUT))
    largest = train_tokenizer((s.text for s in stories), max(VOCABULARIES))
    stories = stories[: STEPS * ROWS]
    shared = {
        "budget": BUDGET,
        "held_out": manifest(examined)["fingerprint"],
        "floor": floor(examined),
    }
    fingerprint = manifest(stories)["fingerprint"]
    tokenizers = {size: truncated(largest, size) for size in VOCABULARIES}
    encoded = {
        size: [encode_documents(one, texts) for texts in (stories, examined)]
        for size, one in tokenizers.items()
    }
    for seed, vocabulary in product(SEEDS, VOCABULARIES):
        config = fit_to_budget(replace(SHAPE, vocabulary=vocabulary), BUDGET, 8)
        recipe = replace(
            RECIPES["tour"],
            steps=STEPS,
            rows=ROWS,
            length=SHAPE.context,
            save_every=STEPS,
            seed=seed,
        )
        tokenizer = tokenizers[vocabulary].name
        facts = make_manifest(config, recipe, fingerprint, tokenizer) | shared
        name = f"vocabulary-{vocabulary}-seed-{seed}"
        lines = run(name, config, recipe, *encoded[vocabulary])
        print(name, config.feed_forward, f"{lines[-1]['bits_per_byte']:.4f}")
        (RUNS / name).mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(RUNS / name / "metrics.jsonl", text)
        text = json.dumps(facts, indent=1) + "\n"
        write_atomically(RUNS / name / "manifest.json", text)


def floor(stories: list[Story]) -> float:
    """Bits per byte that no model can do better than, on average over such stories."""
    nats = sum(story.nll for story in stories)
    return nats / float(np.log(2)) / sum(story.nbytes for story in stories)


if __name__ == "__main__":
    main()
