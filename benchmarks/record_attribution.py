"""Plant 20 regressions, and count how many diff and bisect attribute rightly.

    nice -n 5 .venv/bin/python benchmarks/record_attribution.py

The plan, written before the first recorded run:

- A base run of about 0.1M parameters and 30 steps on stories; first, five seeds of it
  for the noise floor.
- Twenty pairs of runs, four of each kind: data, tokenizer, model, recipe, code. The
  second run of a pair has one planted change (PLANTED below, in this order), and two to
  four harmless ones, drawn from seed, threads, name, save_every and a key that this
  model or recipe does not use. A generator seeded with 0 draws them.
- Code is planted in a copy of the library, by replacing one text of one function. The
  second run of the pair is made by that copy, in a process of its own.
- `compare` reads both records. `bisect` gets both plans, and both folders if the diff
  names changed code; four seeds. Nobody tells either what was planted.
- Right means all of these: the diff names the planted change (for code, the function
  and no other); bisect's largest effect is the planted one, and decided (its interval
  leaves out 0); no harmless change is decided. "undecided" counts as not right.

One function was planned under an old name, `accumulate` for `add_gradients`; its pair
was scored again from the diff that had been kept, and not run again.

All outcomes are in data/runs/attribution.json, right or not. About ten minutes of one
quiet core.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.bisect import bisect
from cort33x_lib.lab.launch import launch
from cort33x_lib.lab.plan import CorpusPlan, Plan, TokenizerPlan, plan_of
from cort33x_lib.lab.workbench import Workbench, manifest_of
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.text.corpus import Document, save_corpus, standard_library
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.training.compare import compare, manifest_changes
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import Run, describe_machine

BASE = Plan(
    replace(
        CONFIGS["tiny"],
        vocabulary=512,
        context=512,
        channels=64,
        head_channels=32,
        feed_forward=192,
        window=16,
    ),
    replace(
        RECIPES["tiny"],
        steps=30,
        rows=4,
        length=64,
        accumulation=2,
        peak_rate=1e-2,
        final_rate=1e-3,
        save_every=30,
        examine_every=30,
    ),
    CorpusPlan(documents=300, held_out=20),
    TokenizerPlan(documents=300),
)
SEEDS = range(4)
CLEAN = "clean"  # the corpus that others are made from
PLANTED = [  # kind, key, value, and for folders the value it had before
    ("data", "corpus.documents", 12, None),
    ("data", "corpus.source", "shuffled", CLEAN),
    ("data", "corpus.source", "repeated", CLEAN),
    ("data", "corpus.source", "dirty", CLEAN),
    ("tokenizer", "model.vocabulary", 300, None),
    ("tokenizer", "tokenizer.documents", 3, None),
    ("tokenizer", "tokenizer.file", "code.json", None),
    ("tokenizer", "tokenizer.file", "capitals.json", None),
    ("model", "model.pattern", "F", None),
    ("model", "model.window", 1, None),
    ("model", "model.head_channels", 4, None),
    ("model", "model.feed_forward", 8, None),
    ("recipe", "recipe.peak_rate", 1.1e-3, None),
    ("recipe", "recipe.warmup", 0.9, None),
    ("recipe", "recipe.decay", 20.0, None),
    ("recipe", "recipe.accumulation", 1, None),
    (
        "code",
        "training/step.py: add_gradients",
        ("share.back", "model.zero_grad() or share.back"),
        None,
    ),
    (
        "code",
        "training/schedule.py: learning_rate",
        ("* height", "* height / 10"),
        None,
    ),
    (
        "code",
        "model/attention.py: attend",
        ("is_causal=mask is None", "is_causal=False"),
        None,
    ),
    (
        "code",
        "model/transformer.py: initialise",
        ("weights.size(1) ** -0.5", "weights.size(1) ** -2.0"),
        None,
    ),
]
HARMLESS = ["seed", "threads", "name", "save_every", "unused"]
UNUSED = {
    "model.latent_channels": 32,
    "model.delta_channels": 16,
    "recipe.matrix_rate": 0.1,
    "recipe.cooldown": 0.4,
}


def set_key(plan: Plan, key: str, value: object) -> Plan:
    part, name = key.split(".")
    return replace(plan, **{part: replace(getattr(plan, part), **{name: value})})


def make_texts(folder: Path) -> None:
    """The corpora and tokenizers that are planted, beside a clean one."""
    stories = [story.text for story in World.load().stories("train", 400)]
    drawn = random.Random(0)

    def shuffle(text: str) -> str:
        words = text.split(" ")
        return " ".join(drawn.sample(words, len(words)))

    def soil(text: str) -> str:
        return "".join(
            drawn.choice("#@%&") if drawn.random() < 0.3 else x for x in text
        )

    corpora = {
        CLEAN: stories,
        "shuffled": [shuffle(text) for text in stories],
        "repeated": [stories[n % 12] for n in range(len(stories))],
        "dirty": [soil(text) for text in stories],
    }
    for name, texts in corpora.items():
        documents = [
            Document(text, f"{n}", "story world", "CC0-1.0")
            for n, text in enumerate(texts)
        ]
        save_corpus(folder / name, documents)
    size = BASE.model.vocabulary
    code = [document.text for document in islice(standard_library(problems=[]), 30)]
    train_tokenizer(code, size).save(folder / "code.json")
    capitals = [text.upper() for text in stories[:300]]
    train_tokenizer(capitals, size).save(folder / "capitals.json")


def plant_code(folder: Path, name: str, change: tuple[str, str]) -> Path:
    """A copy of the library with one text of one file replaced."""
    shutil.copytree(PROJECT / "cort33x_lib", folder / "cort33x_lib")
    (folder / "data").symlink_to(PROJECT / "data")
    file = folder / "cort33x_lib" / name.partition(":")[0]
    text = file.read_text(encoding="utf-8")
    if text.count(change[0]) != 1:
        raise ValueError(f"{change[0]!r} is not once in {file}")
    file.write_text(text.replace(*change), encoding="utf-8")
    return folder


RECORD = """
import json, sys, torch
from pathlib import Path
from cort33x_lib.lab.launch import launch
from cort33x_lib.lab.plan import plan_of
torch.set_num_threads(int(sys.argv[4]))
training = launch(plan_of(json.loads(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))
for _ in training.steps():
    pass
"""


def record(plan: Plan, name: str, runs: Path, library: Path, threads: int) -> Run:
    """A recorded run of a plan; by a planted copy, in a process of its own."""
    if library == PROJECT:
        torch.set_num_threads(threads)
        training = launch(plan, name, runs)
        for _ in training.steps():
            pass
        torch.set_num_threads(1)
        return training.run
    asked = json.dumps(manifest_of(plan)), name, str(runs), str(threads)
    subprocess.run([sys.executable, "-c", RECORD, *asked], cwd=library, check=True)
    return Run(max(runs.glob(f"{name}-*")))


def attribute(
    number: int, folder: Path, drawn: random.Random, bench: Workbench
) -> dict:
    """Plant one regression, record both runs, and let diff and bisect find it."""
    kind, key, value, before = PLANTED[number]
    first = set_key(BASE, key, str(folder / before)) if before else BASE
    second, library = first, PROJECT
    if kind == "code":
        library = plant_code(folder / f"library-{number}", key, value)
    elif key in ("corpus.source", "tokenizer.file"):
        second = set_key(first, key, str(folder / value))
    else:
        second = set_key(first, key, value)
    harmless = drawn.sample(HARMLESS, drawn.randint(2, 4))
    unused = drawn.choice([*UNUSED])
    if "seed" in harmless:
        second = set_key(second, "recipe.seed", 1 + number)
    if "save_every" in harmless:
        second = set_key(second, "recipe.save_every", 10)
    if "unused" in harmless:
        second = set_key(second, unused, UNUSED[unused])
    name = "other" if "name" in harmless else "base"
    runs = folder / f"runs-{number}"
    one = record(first, "base", runs, PROJECT, 1)
    other = record(second, name, runs, library, 2 if "threads" in harmless else 1)

    sentences = compare(one, other)
    named = [change.name for change in manifest_changes(one.manifest, other.manifest)]
    code_named = [
        change.name
        for change in manifest_changes(one.manifest, other.manifest)
        if change.kind == "code"
    ]
    found = bisect(
        plan_of(one.manifest),
        plan_of(other.manifest),
        SEEDS,
        code=(PROJECT, library) if code_named else None,
        bench=bench if first == BASE else None,
    )
    wanted = "code" if kind == "code" else key
    decided = [
        each.name for each in found.effects if each.verdict in ("costs", "gains")
    ]
    seen = code_named == [key] if kind == "code" else key in named and not code_named
    return {
        "kind": kind,
        "planted": key,
        "value": value,
        "harmless": [unused if each == "unused" else each for each in harmless],
        "diff": sentences,
        "named": seen,
        "total": asdict(found.total) | {"verdict": found.total.verdict},
        "effects": [asdict(x) | {"verdict": x.verdict} for x in found.effects],
        "interactions": [asdict(x) for x in found.interactions],
        "runs": len(found.scores),
        "right": seen and decided == [wanted] and found.effects[0].name == wanted,
    }


def main() -> None:
    torch.set_num_threads(1)
    bench = Workbench(BASE)
    floor = [bench.score(set_key(BASE, "recipe.seed", seed)) for seed in range(5)]
    print(f"noise floor: {mean(floor):.4f} +- {stdev(floor):.4f} bits per byte, n=5")
    drawn, pairs = random.Random(0), []
    with TemporaryDirectory() as kept:
        folder = Path(kept)
        make_texts(folder)
        for number in tqdm(range(len(PLANTED)), unit="pair"):
            pairs.append(attribute(number, folder, drawn, bench))
            last = pairs[-1]
            tqdm.write(
                f"{last['planted']}: {'right' if last['right'] else 'NOT right'}"
            )
            shutil.rmtree(folder / f"runs-{number}")
            write(pairs, floor, os.path.join(kept, ""))
    print(f"{sum(pair['right'] for pair in pairs)} of {len(pairs)} attributed rightly")


def write(pairs: list[dict], floor: list[float], folder: str) -> None:
    """Keep what has been found so far, without the name of a temporary folder."""
    text = json.dumps(
        {
            "base": manifest_of(BASE),
            "machine": describe_machine(),
            "noise_floor": {"seeds": floor, "mean": mean(floor), "sd": stdev(floor)},
            "seeds": len(SEEDS),
            "pairs": pairs,
            "right": sum(pair["right"] for pair in pairs),
            "of": len(pairs),
        },
        indent=1,
    )
    kept = PROJECT / "data" / "runs" / "attribution.json"
    write_atomically(kept, text.replace(folder, "") + "\n")


if __name__ == "__main__":
    main()
