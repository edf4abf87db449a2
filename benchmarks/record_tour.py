"""Record chapter 1's training with three seeds in data/runs/tour-seed-N, and draw it.

    .venv/bin/python benchmarks/record_tour.py

The same calls as in the chapter, which checks that corpus, tokenizer and model agree.
The model of seed 0 is kept in int8 in data/runs/tour-model. About two minutes a seed on
two cores.
"""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.lab.evaluation import evaluate, share_closed, unigram
from cort33x_lib.lab.folder import save_folder
from cort33x_lib.lab.generation import generate
from cort33x_lib.lab.grammar import Forms
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, encode_documents
from cort33x_lib.text.corpus import manifest
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import END, train_tokenizer
from cort33x_lib.training.loop import train
from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.record import Run, make_manifest
from cort33x_lib.view.figures import loss_curves, show

RUNS = PROJECT / "data" / "runs"


def main() -> None:
    world = World.load()
    stories = list(world.stories("train", 6000))
    examined = list(world.stories("validation", 200))
    tokenizer = train_tokenizer((story.text for story in stories[:2000]), 2048)
    tokens = encode_documents(tokenizer, stories)
    held_out = encode_documents(tokenizer, examined)
    watched = encode_documents(tokenizer, examined[:50])
    baseline = unigram(tokens, held_out, tokenizer.vocabulary).nats
    floor = sum(story.nll for story in examined)
    forms = Forms(world, (story.text for story in stories))
    recorded = {}
    corpus, end = manifest(stories)["fingerprint"], tokenizer.specials[END]
    for seed in range(3):
        recipe = replace(RECIPES["tour"], seed=seed)
        model = Transformer(CONFIGS["tour"], seed=seed)
        batches = Batches(tokens, recipe.rows, recipe.length, recipe.seed)
        facts = make_manifest(model.config, recipe, corpus, tokenizer.name)
        with TemporaryDirectory() as folder:
            run = Run.create(Path(folder), "tour", facts)
            with closing(train(model, batches, recipe, run)) as steps:
                for measured in tqdm(steps, f"seed {seed}", recipe.steps, unit="step"):
                    if measured["step"] % 100 == 0:
                        loss = evaluate(model, watched).nats_per_token
                        run.append(step=measured["step"], held_out=loss)
            score = evaluate(model, held_out)
            samples = [
                tokenizer.decode(
                    generate(model, [end], 400, temperature=0.6, stop=end, seed=number)
                )
                for number in range(20)
            ]
            run.append(
                step=recipe.steps,
                closed=share_closed(baseline, score.nats, floor),
                bits_per_byte=score.bits_per_byte,
                grammatical=forms.share_known(" ".join(samples)),
                sample=samples[0],
            )
            print(json.dumps(run.metrics()[-1], indent=2))
            kept = RUNS / f"tour-seed-{seed}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            for name in ("manifest.json", "metrics.jsonl"):
                shutil.copy(run.folder / name, kept / name)
            recorded[f"seed {seed}"] = run.metrics()
        if seed == 0:
            save_folder(RUNS / "tour-model", model, tokenizer, int8=True)
    count = len(held_out.ids)
    drawn = show(loss_curves(recorded, baseline / count, floor / count))
    write_atomically(RUNS / "tour.svg", drawn.data)


if __name__ == "__main__":
    main()
