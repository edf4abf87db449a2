"""`generate` and `evaluate`: a model that was trained, put to work."""

import argparse
import sys
from math import log
from pathlib import Path

from cort33x_lib.command.console import columns, visible
from cort33x_lib.command.runs import find_run
from cort33x_lib.lab import evaluation
from cort33x_lib.lab.folder import load_folder
from cort33x_lib.lab.generation import stream
from cort33x_lib.lab.launch import cut_long, reopen, tell_stories
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import encode_documents
from cort33x_lib.text.corpus import load_corpus
from cort33x_lib.text.tokenizer import Tokenizer
from cort33x_lib.training.checkpoint import load_model, newest_checkpoint
from cort33x_lib.training.record import Run


def is_folder(name: str) -> bool:
    """Whether a name is that of a model's folder, not of a run."""
    return (Path(name) / "config.json").is_file()


def load_chosen(asked: argparse.Namespace) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a folder, or of a run's newest checkpoint.

    Raises ValueError where there is no intact one.
    """
    if is_folder(asked.model):
        return load_folder(asked.model)
    run = find_run(asked.runs, asked.model)
    checkpoint = newest_checkpoint(run.checkpoints)
    for fault in checkpoint.skipped:
        print(f"passed over: {fault}", file=sys.stderr)
    return load_model(checkpoint), tokenizer_of(run)


def tokenizer_of(run: Run) -> Tokenizer:
    """The tokenizer in a run's folder. Raises ValueError if it is another one."""
    tokenizer = Tokenizer.load(run.folder / "tokenizer.json")
    if tokenizer.name != run.manifest["tokenizer"]:
        raise ValueError(
            f"{run.folder / 'tokenizer.json'} is tokenizer {tokenizer.name:.12},"
            f" expected {run.manifest['tokenizer']:.12}, of the manifest"
        )
    return tokenizer


def generate_command(asked: argparse.Namespace) -> None:
    """Write the prompt and what follows it, as it comes."""
    if asked.tokens < 1:
        raise ValueError(f"tokens is {asked.tokens}, expected 1 or more")
    model, tokenizer = load_chosen(asked)
    print(visible(asked.prompt), end="", flush=True)
    text = stream(
        model,
        tokenizer,
        asked.prompt,
        asked.tokens,
        seed=asked.seed,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
    )
    for part in text:
        print(visible(part), end="", flush=True)
    print()


def evaluate_command(asked: argparse.Namespace) -> None:
    """A table of the model's loss, and of the floor where the source knows it."""
    model, tokenizer = load_chosen(asked)
    if asked.corpus or asked.stories is not None:
        documents = chosen_documents(asked)
        held_out = cut_long(
            encode_documents(tokenizer, documents), tokenizer, model.config.context
        )
        nats = [getattr(document, "nll", None) for document in documents]
        floor = None if None in nats else sum(nats)
    elif is_folder(asked.model):
        raise ValueError(
            f"{asked.model} is a model without a plan: say --corpus or --stories"
        )
    else:
        training = reopen(find_run(asked.runs, asked.model))
        held_out, floor = training.held_out, training.floor
        floor = None if floor is None else floor * len(held_out.ids)
    score = evaluation.evaluate(model, held_out)
    rows = [["model", score.nats_per_token, score.bits_per_byte]]
    if floor is not None:
        of_byte = floor / log(2) / score.nbytes
        rows.append(["floor", floor / score.tokens, of_byte])
    print(columns(["", "nats per token", "bits per byte"], rows))
    print(f"{score.tokens:,} tokens of {score.nbytes:,} bytes of text")


def chosen_documents(asked: argparse.Namespace) -> list:
    """The documents that were asked for by --corpus or --stories."""
    if asked.corpus:
        return load_corpus(asked.corpus)
    if asked.stories < 1:
        raise ValueError(f"stories is {asked.stories}, expected 1 or more")
    return tell_stories("test", asked.stories)
