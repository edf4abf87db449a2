"""From a plan to a training run, new or begun before.

    training = launch(read_plan("tour", changes=["recipe.steps=100"]), "short")
    for measured in training.steps(): ...

Notebook, dashboard and command line all start a run here, so the same plan gives the
same bits wherever it is started.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cort33x_lib.files import PROJECT
from cort33x_lib.lab.evaluation import evaluate
from cort33x_lib.lab.plan import CorpusPlan, Plan, plan_of
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.text.corpus import (
    Document,
    load_corpus,
    manifest,
    split_by_unit,
    standard_library,
)
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer
from cort33x_lib.training.distributed import ALONE, Alone
from cort33x_lib.training.loop import train
from cort33x_lib.training.record import Run, make_manifest

RUNS = PROJECT / "runs"
TOKENIZER = "tokenizer.json"  # of a run, in its folder
SHARES = {"train": 0.95, "held out": 0.05}  # of the units, where there is no split


def collect(plan: CorpusPlan) -> tuple[list[Document], list[Document]]:
    """The documents to train on and to examine with; no unit is in both.

    Raises CorpusError for a folder that is no corpus, ValueError for too few documents.
    """
    if plan.source == "stories":
        world = World.load()
        stories = world.stories("train", plan.documents)
        shown = dict(total=plan.documents, unit=" documents", delay=1, leave=False)
        training = list(tqdm(stories, "collect", disable=None, **shown))
        return training, list(world.stories("validation", plan.held_out))
    if plan.source == "standard-library":
        documents = standard_library(problems=[])
    else:
        documents = load_corpus(plan.source)
    training, held_out = split_by_unit(documents, SHARES).values()
    if not training or not held_out:
        raise ValueError(
            f"{plan.source}: {len(training)} documents to train on and {len(held_out)}"
            " to examine with, expected some of both; a corpus needs at least 100 units"
        )
    return training[: plan.documents], held_out[: plan.held_out]


def cut_long(tokens: Tokens, tokenizer: Tokenizer, context: int) -> Tokens:
    """The same ids, documents longer than a context cut into several."""
    sizes = np.array(
        [len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocabulary)]
    )
    sizes[tokens.end] = 0  # it stands for no text
    starts = [
        place
        for first, last in zip(tokens.starts, tokens.starts[1:], strict=False)
        for place in range(first, last, context)
    ]
    nbytes = np.add.reduceat(sizes[tokens.ids], starts)
    return Tokens(
        tokens.ids, np.array([*starts, len(tokens.ids)]), nbytes, tokens.tokenizer
    )


class Training:
    """A plan made ready: tokenizer, tokens, batches, model, and a run to record it.

    `steps` starts the training, or goes on with it.
    """

    def __init__(self, plan: Plan, run: Run | None = None, world: Alone = ALONE):
        """Collect the corpus, learn the tokenizer or take the run's, encode.

        Raises as `collect` does, and ValueError when tokenizer and model do not fit.
        """
        self.plan, self.run, self.world = plan, run, world
        self.documents, self.examined = collect(plan.corpus)
        if run and (run.folder / TOKENIZER).exists():
            self.tokenizer = Tokenizer.load(run.folder / TOKENIZER)
        else:
            self.tokenizer = make_tokenizer(plan, self.documents)
        self.tokens = encode_documents(self.tokenizer, self.documents)
        self.held_out = cut_long(
            encode_documents(self.tokenizer, self.examined),
            self.tokenizer,
            plan.model.context,
        )
        recipe = plan.recipe
        self.batches = Batches(self.tokens, recipe.rows, recipe.length, recipe.seed)

    @cached_property
    def model(self) -> Transformer:
        """The model that is trained, with its first weights until it is."""
        return Transformer(self.plan.model, seed=self.plan.recipe.seed)

    @cached_property
    def floor(self) -> float | None:
        """Nats per token that no model gets below, where the source knows."""
        nats = [getattr(document, "nll", None) for document in self.examined]
        return None if None in nats else sum(nats) / len(self.held_out.ids)

    def examine(self, model: Transformer) -> float:
        """The loss on the held-out documents, in nats per token."""
        return evaluate(model, self.held_out).nats_per_token

    def manifest(self) -> dict:
        """What the record says the run depends on."""
        recipe, corpus = self.plan.recipe, manifest(self.documents)["fingerprint"]
        made = make_manifest(self.plan.model, recipe, corpus, self.tokenizer.name)
        return made | {
            "plan": {
                "corpus": asdict(self.plan.corpus),
                "tokenizer": asdict(self.plan.tokenizer),
            }
        }

    def steps(self) -> Iterator[dict]:
        """The loop of `train`, on the device of the world, examinations included."""
        model = self.model.to(self.world.device)
        return train(
            model, self.batches, self.plan.recipe, self.run, self.examine, self.world
        )


def make_tokenizer(plan: Plan, documents: list[Document]) -> Tokenizer:
    """The tokenizer of a plan, with exactly as many ids as the model can name.

    Raises ValueError where that is impossible.
    """
    vocabulary = plan.model.vocabulary
    if plan.tokenizer.file:
        tokenizer = Tokenizer.load(plan.tokenizer.file)
        if tokenizer.vocabulary != vocabulary:
            raise ValueError(
                f"{plan.tokenizer.file} has {tokenizer.vocabulary} ids,"
                f" model.vocabulary is {vocabulary}: expected the same"
            )
        return tokenizer
    texts = (document.text for document in documents[: plan.tokenizer.documents])
    return train_tokenizer(texts, vocabulary)


def launch(plan: Plan, name: str, runs: Path = RUNS, world: Alone = ALONE) -> Training:
    """A new run of a plan, in a folder NAME-001 or the next number not taken.

    Of several processes the main one makes it. Where torchrun has started its job
    again, it is the run that the job began.
    """
    training, folder = Training(plan, world=world), of_job(runs, world.job)
    if world.main and not folder:
        manifest = training.manifest()
        if world.job:
            manifest |= {"job": world.job, "processes": world.size}
        run = Run.create(runs, name, manifest)
        training.tokenizer.save(run.folder / TOKENIZER)
        folder = run.folder.name
    training.run = Run(Path(runs) / world.told(folder))
    return training


def of_job(runs: Path, job: str) -> str:
    """The folder of the run that a job of torchrun began, or nothing."""
    for file in Path(runs).glob("*/manifest.json") if job else []:
        if json.loads(file.read_text(encoding="utf-8")).get("job") == job:
            return file.parent.name
    return ""


def reopen(run: Run, world: Alone = ALONE) -> Training:
    """A run that was started before, ready to go on from its newest checkpoint.

    Raises ValueError when it was not started from a plan, or when the corpus or the
    tokenizer that the plan gives today is another one.
    """
    if "plan" not in run.manifest:
        raise ValueError(f"{run.folder} was not started from a plan, so none can go on")
    training = Training(plan_of(run.manifest), run, world)
    today = training.manifest()
    for part in ("corpus", "tokenizer"):
        if today[part] != run.manifest[part]:
            raise ValueError(
                f"the {part} of {run.folder} was {run.manifest[part]:.12}, today its"
                f" plan gives {today[part]:.12}: expected the same"
            )
    return training
