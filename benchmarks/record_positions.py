"""Record what five ways of telling positions are worth, in data/runs/positions.json.

    .venv/bin/python benchmarks/record_positions.py

The plan, written before the first recorded run.

Question. A model is trained on 128 tokens at a time. How well does it read 32 tokens
when it has seen fewer, just as many, or up to four times as many tokens as that?

Arms. No positions, sinusoidal marks, learned marks, rotary turns, distance bias
(ALiBi). One model otherwise: 2 layers of full attention, 64 channels, 4 heads, the same
first weights for one seed. Learned marks have rows for all 512 positions, which makes
that model a third larger; those after the first 128 are never trained. Nothing is done
to stretch a scheme to the new length.

Budget. Equal tokens in the same order: 300 steps of 8 rows. A row is cut from one long
stream of stories at a place drawn at random, so that any token may stand anywhere. The
processor's seconds are recorded and no claim is made about equal time. The learning
rate is the tour's for every arm; none was tuned for its scheme.

Measure. Nats per token on the last 32 tokens of each of 64 windows of held-out
stories. The windows end at the same places for every length, so the examined tokens are
the same for all arms and all lengths; only how much stands before them differs.

Seeds 0, 1 and 2, which decide the rows and the first weights. Arms are compared in
pairs of one seed.

Verdict, for each scheme against rotary, at 128 tokens and at 512. The effect is the
mean of the three paired differences. It is "better" or "worse" when its 95% t interval
over seeds (2 degrees of freedom) leaves out zero and so does the 95% bootstrap interval
over the windows; else it is "undecided". Eight comparisons at 95%: where nothing
differed, about one table in three would still name a difference.

No run is left out or repeated. About five minutes of one quiet thread. The
recorded runs shared a busy machine, several of them at once.
"""

import json
import time
from dataclasses import replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.attention import Attention, attend
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.position_schemes import SCHEMES, NoPositions
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import as_batch, encode_documents
from cort33x_lib.text.corpus import manifest
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import make_manifest

RECORD = PROJECT / "data" / "runs" / "positions.json"
SEEDS, TRAINED, LENGTHS = (0, 1, 2), 128, (32, 64, 96, 128, 160, 192, 256, 512)
WINDOWS, EXAMINED, TOGETHER = 64, 32, 16
CONFIG = ModelConfig(
    vocabulary=512,
    context=LENGTHS[-1],
    channels=64,
    heads=4,
    key_value_heads=4,
    head_channels=16,
    feed_forward=128,
    pattern="FF",
    window=LENGTHS[-1],
)
RECIPE = replace(RECIPES["tour"], steps=300, rows=8, length=TRAINED, save_every=300)


class MarkedEmbedding(nn.Module):
    """A model's embedding, with what a scheme adds to it."""

    def __init__(self, embedding: nn.Embedding, scheme: NoPositions):
        super().__init__()
        self.weight, self.scheme = embedding.weight, scheme

    def forward(self, ids: Tensor) -> Tensor:
        return self.scheme.mark(F.embedding(ids, self.weight))


class PlacedAttention(nn.Module):
    """Full attention with a mixer's weights and a scheme's positions."""

    def __init__(self, mixer: Attention, scheme: NoPositions):
        super().__init__()
        self.mixer, self.scheme = mixer, scheme

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        mixer, D = self.mixer, self.mixer.head_channels
        heads = mixer.project_in(x).unflatten(2, (-1, D)).transpose(1, 2)
        shares = [mixer.heads, mixer.key_value_heads, mixer.key_value_heads]
        queries, keys, values = heads.split(shares, dim=1)
        queries = self.scheme.turn(F.rms_norm(queries, (D,), mixer.query_gain))
        keys = self.scheme.turn(F.rms_norm(keys, (D,), mixer.key_gain))
        bias = self.scheme.bias(x.size(1))
        read = attend(queries, keys, values, bias if bias is None else bias.to(x))
        return mixer.join_heads(read), None


def make_model(scheme: str, config: ModelConfig, seed: int) -> Transformer:
    """A new model that is told positions by a scheme instead of by its mixers."""
    model, positions = Transformer(config, seed), SCHEMES[scheme](config)
    model.embedding = MarkedEmbedding(model.embedding, positions)
    for block in model.blocks:
        block.mixer = PlacedAttention(block.mixer, positions)
    return model


class Slices:
    """Rows from anywhere in a stream, found by seed and step alone."""

    def __init__(self, ids: np.ndarray, rows: int, length: int, seed: int):
        self.ids, self.rows, self.length, self.seed = ids, rows, length, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng([self.seed, step])
        places = random.integers(len(self.ids) - self.length, size=self.rows)
        return as_batch([self.ids[n : n + self.length + 1] for n in places])


@torch.inference_mode()
def examine(model: Transformer, ids: np.ndarray, length: int) -> list[float]:
    """Nats per token on the last tokens of each window that is so many tokens long."""
    ends = np.linspace(LENGTHS[-1] + 1, len(ids), WINDOWS).astype(int)
    found = []
    for place in range(0, WINDOWS, TOGETHER):
        chosen = ends[place : place + TOGETHER]
        inputs, targets = as_batch([ids[end - length - 1 : end] for end in chosen])
        x, _ = model.read(inputs)
        logits = x[:, -EXAMINED:] @ model.embedding.weight.T  # (B, EXAMINED, V)
        surprise = F.cross_entropy(
            logits.transpose(1, 2), targets[:, -EXAMINED:], reduction="none"
        )
        found += surprise.mean(1).tolist()
    return found


def run(scheme: str, seed: int, ids: np.ndarray, held_out: np.ndarray) -> dict:
    """Train one model and examine it at every length."""
    recipe, model = replace(RECIPE, seed=seed), make_model(scheme, CONFIG, seed)
    batches = Slices(ids, recipe.rows, recipe.length, seed)
    before, name = time.process_time(), f"{scheme} {seed}"
    for _ in tqdm(train(model, batches, recipe), name, recipe.steps, unit="step"):
        pass
    seconds = round(time.process_time() - before, 1)
    windows = {length: examine(model, held_out, length) for length in LENGTHS}
    return {
        "scheme": scheme,
        "seed": seed,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "training_processor_seconds": seconds,
        "nats": {n: round(float(np.mean(found)), 5) for n, found in windows.items()},
        "windows": {
            n: [round(one, 4) for one in windows[n]] for n in (TRAINED, LENGTHS[-1])
        },
    }


def main() -> None:
    torch.set_num_threads(1)
    world = World.load()
    stories = list(world.stories("train", 2000))
    examined = list(world.stories("validation", 200))
    tokenizer = train_tokenizer((s.text for s in stories[:1000]), CONFIG.vocabulary)
    ids, held_out = (encode_documents(tokenizer, s).ids for s in (stories, examined))
    fingerprint = manifest(stories)["fingerprint"]
    record = {
        "manifest": make_manifest(CONFIG, RECIPE, fingerprint, tokenizer.name),
        "held_out": manifest(examined)["fingerprint"],
        "trained": TRAINED,
        "lengths": LENGTHS,
        "examined": EXAMINED,
        "runs": [run(*arm, ids, held_out) for arm in product(SCHEMES, SEEDS)],
    }
    write_atomically(RECORD, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
