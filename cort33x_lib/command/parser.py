"""The words of the command line, and how a command ends.

0 it did what was asked · 1 it could not, said in one line · 2 wrong usage · 130 stopped
by Ctrl-C. Results go to the output, progress and complaints to the error output.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from cort33x_lib.files import PROJECT

SOURCES = """\
sources, each one word:
  stories:COUNT[:SPLIT]  the story world; train, validation, test or composition
  standard-library       the sources of this Python
  folder:PATH            the text files of a folder, or one file
  package:NAME           the sources of an installed package
  public:NAME[:BYTES]    an entry of data/catalog.toml, or only its first BYTES"""
SETTINGS = """\
A plan has four parts: corpus, tokenizer, model and recipe. A file of --config has them
as tables, and --set changes one value after that:
  python -m cort33x_lib train tour --set recipe.steps=200 --set model.pattern=FFFF
The keys are explained in cort33x_lib/lab/plan.py (corpus and tokenizer),
cort33x_lib/model/config.py (model) and cort33x_lib/training/recipe.py (recipe)."""


CORPUS = "a folder made by `corpus build`"


class Parser(argparse.ArgumentParser):
    """Takes a command's module and function, which is imported only when it is called.

    So help answers at once, without PyTorch.
    """

    def __init__(self, **options):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )


def path(text: str) -> Path:
    """A path as it was typed, `~` included."""
    return Path(text).expanduser()


def make_parser() -> Parser:
    """Every command with its help."""
    parser = Parser(
        prog="python -m cort33x_lib",
        description="Build a small language model from raw text, in a terminal.",
        epilog="Each command has its own help: python -m cort33x_lib train --help",
    )
    parser.set_defaults(runs=PROJECT / "runs", errors=sys.stderr)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_training(commands)
    add_models(commands)
    add_runs(commands)
    add_text(commands)
    return parser


def add(commands, name: str, call: str, help: str, epilog: str = "") -> Parser:
    """A command whose work is `call`, "module.function" here, without _command."""
    command = commands.add_parser(name, help=help, description=help, epilog=epilog)
    command.set_defaults(call=call)
    return command


def add_runs_folder(command: Parser) -> None:
    """Where runs are kept."""
    command.add_argument(
        "--runs",
        type=path,
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help=f"where runs are kept (default: {PROJECT / 'runs'})",
    )


def add_run(command: Parser) -> None:
    """The word that chooses a run."""
    command.add_argument(
        "run", metavar="RUN", help="tour-003, or tour for the newest of that name"
    )
    add_runs_folder(command)


def add_plan(command: Parser) -> None:
    """The words that choose a plan and change it."""
    command.add_argument(
        "plan", nargs="?", metavar="PLAN", help="tiny, tour (default), small, cort33x"
    )
    command.add_argument("--config", type=path, metavar="FILE", help="a plan, as TOML")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.KEY=VALUE",
        help="change one value of the plan; may be said several times",
    )


def add_training(commands) -> None:
    """train, resume and fit."""
    train = add(
        commands,
        "train",
        "training.train",
        "Train a model by a plan.",
        SETTINGS,
    )
    add_plan(train)
    train.add_argument(
        "--name", default="", help="what to call the run (default: the plan's name)"
    )
    add_runs_folder(train)
    add_run(add(commands, "resume", "training.resume", "Go on with a run."))
    fit = add(
        commands,
        "fit",
        "training.fit",
        "Try which micro-batch is the fastest here.",
        "Tokens a step stay the same. It ends with the words to add to `train`.",
    )
    add_plan(fit)
    fit.add_argument("--compile", action="store_true", help="try the compiler too")


def add_models(commands) -> None:
    """generate and evaluate."""
    generate = add(
        commands,
        "generate",
        "models.generate",
        "Let a model write, word by word.",
    )
    generate.add_argument("model", metavar="RUN", help="a run, or a model's folder")
    generate.add_argument("--prompt", default="", help="the beginning of the text")
    generate.add_argument("--tokens", type=int, default=400, help="at most (400)")
    sampling = {
        "--temperature": (float, 0.8, "0 takes the likeliest, 1 draws as learnt (0.8)"),
        "--top-k": (int, None, "draw from the K likeliest tokens"),
        "--top-p": (float, None, "draw from the likeliest that reach this share"),
        "--min-p": (float, None, "draw from those at least this likely to the first"),
        "--repetition-penalty": (float, 1.0, "above 1: seldom a token again (1)"),
        "--seed": (int, 0, "another seed, another text (0)"),
    }
    for name, (kind, default, help) in sampling.items():
        generate.add_argument(
            name, type=kind, default=default, metavar=kind.__name__.upper(), help=help
        )
    add_runs_folder(generate)
    evaluate = add(
        commands,
        "evaluate",
        "models.evaluate",
        "Bits per byte on text that was held out, and the floor where it is known.",
        "Without a choice, a run is examined on what its own plan holds out.",
    )
    evaluate.add_argument("model", metavar="RUN", help="a run, or a model's folder")
    chosen = evaluate.add_mutually_exclusive_group()
    chosen.add_argument("--corpus", type=path, metavar="FOLDER", help=CORPUS)
    chosen.add_argument(
        "--stories", type=int, metavar="COUNT", help="so many of the story world's test"
    )
    add_runs_folder(evaluate)


def add_runs(commands) -> None:
    """runs list, show, diff and bisect."""
    runs = commands.add_parser(
        "runs", help="List runs, show one, compare two.", description="Records of runs."
    ).add_subparsers(metavar="COMMAND", required=True)
    listed = add(runs, "list", "runs.list", "Every run, the newest last.")
    add_runs_folder(listed)
    show = add(runs, "show", "runs.show", "What a run is made of, and its curve.")
    add_run(show)
    show.add_argument("--csv", type=path, metavar="FILE", help="write all numbers too")
    show.add_argument(
        "--tensorboard", type=path, metavar="FOLDER", help="write them for TensorBoard"
    )
    add_pair(add(runs, "diff", "runs.diff", "What has changed, a sentence each."))
    bisect = add(
        runs,
        "bisect",
        "runs.bisect",
        "What each change between two runs adds, in bits per byte.",
        "It trains every mixture of the two plans, with several seeds. Where the code\n"
        "differs too, --code makes it one more change.",
    )
    add_pair(bisect)
    code = bisect.add_mutually_exclusive_group()
    code.add_argument(
        "--code",
        type=path,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="the project as it was for each run, as `git worktree add` makes it",
    )
    code.add_argument(
        "--without-code", action="store_true", help="leave out that the code differs"
    )
    bisect.add_argument("--steps", type=int, help="shorter runs (default: the plans')")
    bisect.add_argument("--seeds", type=int, default=4, help="at least 2 (default: 4)")


def add_pair(command: Parser) -> None:
    """The words that choose two runs."""
    command.add_argument("before", metavar="BEFORE", help="a run, as tour-001")
    command.add_argument("after", metavar="AFTER", help="another one")
    add_runs_folder(command)


def add_text(commands) -> None:
    """corpus build, tokenizer train and encode."""
    corpus = commands.add_parser(
        "corpus", help="Build a corpus.", description="Collect documents."
    ).add_subparsers(metavar="COMMAND", required=True)
    build = add(
        corpus,
        "build",
        "text.build",
        "Collect documents into a folder.",
        SOURCES,
    )
    build.add_argument("folder", type=path, metavar="FOLDER", help="to write")
    build.add_argument("sources", nargs="+", metavar="SOURCE", help="see below")
    build.add_argument(
        "--deduplicate",
        action="store_true",
        help="drop exact and near duplicates; ledger.json says which and why",
    )
    tokenizer = commands.add_parser(
        "tokenizer", help="Train a tokenizer, encode.", description="Tokens."
    ).add_subparsers(metavar="COMMAND", required=True)
    train = add(tokenizer, "train", "text.tokenizer", "Learn merges from a corpus.")
    train.add_argument("corpus", type=path, metavar="CORPUS", help=CORPUS)
    train.add_argument("out", type=path, metavar="FILE", help="to write, as JSON")
    train.add_argument("--vocabulary", type=int, default=8192, help="ids (8192)")
    train.add_argument("--pattern", default="prose-2", help="how text is cut (prose-2)")
    encode = add(tokenizer, "encode", "text.encode", "Encode a corpus into a file.")
    encode.add_argument(
        "tokenizer", type=path, metavar="TOKENIZER", help="made by `tokenizer train`"
    )
    encode.add_argument("corpus", type=path, metavar="CORPUS", help=CORPUS)
    encode.add_argument("out", type=path, metavar="FILE", help="to write")


def main(words: list[str]) -> int:
    """Do what the words ask, and give the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may know few letters
    asked = make_parser().parse_args(words)  # exits with 2 after a usage error
    try:
        module, _, function = asked.call.rpartition(".")
        room = import_module(f"cort33x_lib.command.{module}")
        work = getattr(room, f"{function}_command")
        work(asked)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, ArithmeticError, ImportError, RuntimeError) as trouble:
        print(f"cort33x: {one_line(trouble)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {stop}".rstrip(), file=sys.stderr)
        return 130
    return 0


def one_line(trouble: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(trouble, FileExistsError) and trouble.filename:
        return f"{trouble.filename} is a file, expected a folder"
    if isinstance(trouble, OSError) and trouble.filename and trouble.strerror:
        return f"{trouble.filename}: {trouble.strerror}"
    return " ".join(str(trouble).split()) or type(trouble).__name__
