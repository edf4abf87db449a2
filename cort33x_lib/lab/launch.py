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
from cort33x_lib.text.token_files import read_head, verify
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer
from cort33x_lib.training.distributed import ALONE, Alone
from cort33x_lib.training.loop import train
from cort33x_lib.training.record import Run, make_manifest

RUNS = PROJECT / "runs"
TOKENIZER = "tokenizer.json"  # of a run, in its folder, as are the next two
TRAIN, HELD_OUT = "train.tokens", "held-out.tokens"  # written in this order
SHARES = {"train": 0.95, "held out": 0.05}  # of the units, where there is no split


def collect(plan: CorpusPlan) -> tuple[list[Document], list[Document]]:
    """The documents to train on and to examine with; no unit is in both.

    Raises CorpusError for a folder that is no corpus, ValueError for too few documents.
    """
    if plan.source == "stories":
        training = tell_stories("train", plan.documents)
        return training, tell_stories("validation", plan.held_out)
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


def tell_stories(split: str, count: int) -> list[Document]:
    """So many stories of a split; in a terminal, a bar if that takes a second."""
    shown = dict(total=count, unit=" documents", delay=1, leave=False, disable=None)
    return list(tqdm(World.load().stories(split, count), "collect", **shown))


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
        """Open what a run has kept; without a run, collect the corpus and encode it.

        Raises as `collect` does, and ValueError when tokenizer and model do not fit or
        when the files are not those of the run.
        """
        self.plan, self.run, self.world = plan, run, world
        if run:
            self.tokenizer = Tokenizer.load(run.folder / TOKENIZER)
            self.tokens, self.held_out = kept_tokens(run, self.tokenizer)
        else:
            self.tokenizer = make_tokenizer(plan, self.documents)
            self.tokens = encode_documents(self.tokenizer, self.documents)
            examined = encode_documents(self.tokenizer, self.examined)
            self.held_out = cut_long(examined, self.tokenizer, plan.model.context)
        recipe = plan.recipe
        self.batches = Batches(self.tokens, recipe.rows, recipe.length, recipe.seed)

    @cached_property
    def collected(self) -> tuple[list[Document], list[Document]]:
        """The documents to train on and to examine with."""
        return collect(self.plan.corpus)

    @property
    def documents(self) -> list[Document]:
        """The documents to train on."""
        return self.collected[0]

    @property
    def examined(self) -> list[Document]:
        """The documents to examine with."""
        return self.collected[1]

    @cached_property
    def model(self) -> Transformer:
        """The model that is trained, with its first weights until it is."""
        return Transformer(self.plan.model, seed=self.plan.recipe.seed)

    @cached_property
    def floor(self) -> float | None:
        """Nats per token that no model gets below, where the source knows."""
        if self.run and "floor" in self.run.manifest:
            return self.run.manifest["floor"]
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
            },
            "floor": self.floor,
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

    Of several processes the main one makes it, and all of them read its token files.
    Where torchrun has started its job again, it is the run that the job began.
    """
    folder = of_job(runs, world.job)
    if world.main and not folder:
        training = Training(plan)
        manifest = training.manifest()
        if world.job:
            manifest |= {"job": world.job, "processes": world.size}
        run = Run.create(runs, name, manifest)
        keep(training, run)
        folder = run.folder.name
    return reopen(Run(Path(runs) / world.told(folder)), world)


def keep(training: Training, run: Run) -> None:
    """Write tokenizer and tokens into a run's folder; raises OSError."""
    training.tokenizer.save(run.folder / TOKENIZER)
    for name, tokens in ((TRAIN, training.tokens), (HELD_OUT, training.held_out)):
        tokens.save(run.folder / name, run.manifest["corpus"])


def kept_tokens(run: Run, tokenizer: Tokenizer) -> list[Tokens]:
    """The tokens to train on and to examine with, mapped from a run's folder.

    Raises ValueError where a file is damaged, cut, or not of this run.
    """
    paths = [run.folder / name for name in (TRAIN, HELD_OUT)]
    for path in paths:
        head = read_head(path)
        check_same(run, {part: head.get(part, "nothing") for part in run.facts})
        verify(path)
    return [Tokens.load(path, tokenizer) for path in paths]


def check_same(run: Run, found: dict[str, str]) -> None:
    """Raise ValueError when corpus or tokenizer are not those of a run."""
    for part, expected in run.facts.items():
        if found[part] != expected:
            raise ValueError(
                f"the {part} of {run.folder} was {expected:.12}, today it is"
                f" {found[part]:.12}: expected the same"
            )


def of_job(runs: Path, job: str) -> str:
    """The folder of the run that a job of torchrun began, or nothing."""
    for file in Path(runs).glob("*/manifest.json") if job else []:
        if json.loads(file.read_text(encoding="utf-8")).get("job") == job:
            return file.parent.name
    return ""


def reopen(run: Run, world: Alone = ALONE) -> Training:
    """A run that was started before, ready to go on from its newest checkpoint.

    Where its token files are missing, for it was killed before they were written, the
    main process makes them again. Raises ValueError when the run was not started from
    a plan, or when corpus or tokenizer are not the same any more.
    """
    if "plan" not in run.manifest:
        raise ValueError(f"{run.folder} was not started from a plan, so none can go on")
    plan = plan_of(run.manifest)
    if world.main and not (run.folder / HELD_OUT).exists():
        again = Training(plan)
        check_same(run, again.manifest())
        keep(again, run)
    world.told("ready")
    return Training(plan, run, world)
