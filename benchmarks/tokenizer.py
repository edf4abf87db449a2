"""The tokenizer beside eight others: training, encoding, decoding; seconds and memory.

    .venv/bin/python benchmarks/tokenizer.py [--quick]

Every measurement is a process of its own, the tools take turns round by round, and
tables show medians: ratios within one run count, seconds differ from day to day. The
text is the `.py` files of the standard library, then of installed packages.

Training: every tool learns with the pattern it brings (prose-2, GPT-2's or GPT-4's,
with pieces of much the same size), on all cores. Encoding and decoding, one thread:
tiktoken, tokenizers, tokie and gigatoken use our merges and GPT-2's pattern (and give
our ids, but for runs above 64 characters, which only we cap); ffbpe, rustbpe and
sentencepiece what they learnt themselves at the same size. cort33x and gigatoken get
the UTF-8 that files hold, the others take only `str`. quicktok cuts no pieces and would
take an hour: it gets a hundredth of the text, with a small vocabulary, and its time is
multiplied.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "data" / "runs" / "tokenizer-speed.json"
TOOLS = ["cort33x", "tokenizers", "sentencepiece", "rustbpe", "gigatoken", "ffbpe"]
ENCODERS = [*TOOLS, "tiktoken", "tokie", "quicktok"]
CELLS = [(3, 16384), (10, 16384), (30, 16384), (30, 4096), (30, 32768)]
ROUNDS, WARM = 3, 3
SEPARATOR = "\0"


def write_corpus(path: Path, megabytes: int) -> None:
    """Some megabytes of Python source, a NUL between files."""
    standard, packages = (Path(sysconfig.get_path(n)) for n in ("stdlib", "purelib"))
    files = [
        path for path in sorted(standard.rglob("*.py")) if packages not in path.parents
    ] + sorted(packages.rglob("*.py"))
    parts, size = [], 0
    for file in files:
        data = file.read_bytes()
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if b"\0" not in data and data:
            parts.append(data)
            size += len(data)
        if size >= megabytes * 10**6:
            break
    else:
        raise SystemExit(f"{size / 1e6:.0f} MB of source here, {megabytes} expected")
    path.write_bytes(b"\0".join(parts))


def read(path: str) -> Iterator[str]:
    """The texts of a corpus, a few in memory at a time."""
    rest = ""
    with open(path, encoding="utf-8", newline="") as file:
        while chunk := file.read(1 << 20):
            *texts, rest = (rest + chunk).split(SEPARATOR)
            yield from texts
    yield rest


def trainer(tool: str, path: str, vocabulary: int):
    """A call that trains; importing the tool is over when this returns."""
    if tool == "cort33x":
        from cort33x_lib.text.tokenizer import train_tokenizer

        train_tokenizer(["compile or load what is compiled"], 258)
        return lambda: train_tokenizer(read(path), vocabulary)
    if tool == "tokenizers":
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        settings = trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False)
        return lambda: (made.train_from_iterator(read(path), settings), made)[1]
    if tool == "sentencepiece":
        import io

        import sentencepiece

        def train_pieces():
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line for text in read(path) for line in
                                   text.splitlines() if line),
                model_writer=model, vocab_size=vocabulary, model_type="bpe",
                byte_fallback=True, character_coverage=0.9999, num_threads=2,
                remove_extra_whitespaces=False, minloglevel=2,
                normalization_rule_name="identity", max_sentence_length=1 << 20,
            )  # fmt: skip
            return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

        return train_pieces
    if tool == "rustbpe":
        import rustbpe

        made = rustbpe.Tokenizer()
        return lambda: (made.train_from_iterator(read(path), vocabulary), made)[1]
    if tool == "gigatoken":
        import gigatoken

        source = gigatoken.TextFileSource([path], SEPARATOR)
        return lambda: gigatoken.train_bpe(source, vocabulary, [])
    import ffbpe

    return lambda: ffbpe.train_bpe(read(path), vocab_size=vocabulary)


def coder(tool: str, folder: str, vocabulary: int):
    """Calls that encode and decode with a vocabulary of this size."""
    shared = f"{folder}/shared"
    if tool == "cort33x":
        from cort33x_lib.text.tokenizer import Tokenizer

        made = Tokenizer.load(f"{shared}.json")
        return made.encode_array, made.decode
    if tool == "tiktoken":
        import tiktoken

        from cort33x_lib.text.exchange import to_tiktoken
        from cort33x_lib.text.tokenizer import Tokenizer

        made = tiktoken.Encoding(**to_tiktoken(Tokenizer.load(f"{shared}.json")))
        return made.encode_ordinary, made.decode
    if tool == "tokenizers":
        from tokenizers import Tokenizer as Theirs

        made = Theirs.from_file(f"{shared}.huggingface.json")
        return lambda text: made.encode(text).ids, made.decode
    if tool == "tokie":
        import tokie

        made = tokie.Tokenizer.from_json(f"{shared}.huggingface.json")
        return lambda text: made.encode(text, False).ids, made.decode
    if tool == "gigatoken":
        import gigatoken

        made = gigatoken.Tokenizer.from_tiktoken(f"{shared}.tiktoken", "gpt2")
        return made.encode, lambda ids: made.decode(ids).decode("utf-8")
    if tool == "quicktok":
        import quicktok

        made = quicktok.BasicTokenizer(num_threads=1)
        made.train(next(read(f"{folder}/3"))[:50_000], 512)
        return made.encode, made.decode
    made = trainer(tool, f"{folder}/3", vocabulary)()
    if tool == "ffbpe":
        made = made.encoder()
        return made.encode_to_numpy, made.decode
    return made.encode, made.decode


def measured(job: str, tool: str, folder: str, megabytes: int, vocabulary: int) -> dict:
    """One job of one tool, in this process: seconds of each part and peak megabytes."""
    before = time.perf_counter()
    if job == "train":
        call = trainer(tool, f"{folder}/{megabytes}", vocabulary)
        ready = time.perf_counter()
        call()
        parts = {"ready": ready - before, "train": time.perf_counter() - ready}
    elif job == "export":
        export(folder, vocabulary)
        parts = {}
    elif job == "first":
        call = trainer("cort33x", f"{folder}/3", vocabulary)
        call = coder("cort33x", folder, vocabulary)
        call[1](call[0]("first words"))
        parts = {"first": time.perf_counter() - before}
    else:
        text = SEPARATOR.join(read(f"{folder}/{megabytes}"))
        times = 100 if tool == "quicktok" else 1
        text = text[: len(text) // times]
        encode, decode = coder(tool, folder, vocabulary)
        given = text.encode() if tool in ("cort33x", "gigatoken") else text
        encode(given[:10])
        clocks = {"encode": [], "decode": []}
        for _ in range(1 if tool == "quicktok" else 1 + WARM):
            clock = time.perf_counter()
            ids = encode(given)
            clocks["encode"].append((time.perf_counter() - clock) * times)
            clock = time.perf_counter()
            back = decode(ids)
            clocks["decode"].append((time.perf_counter() - clock) * times)
        parts = {"cold": clocks["encode"][0], "whole": back == text, "ids": len(ids)}
        parts["warm"] = median(clocks["encode"][1:] or clocks["encode"])
        parts["decode"] = median(clocks["decode"][1:] or clocks["decode"])
    parts["megabytes"] = peak_memory()
    return parts


def peak_memory() -> float:
    """Megabytes that this process has held; on Linux `resource` counts its parent's."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def in_process(*words: object, **variables: str) -> dict:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--job", *map(str, words)]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def export(folder: str, vocabulary: int) -> None:
    """Train the vocabulary that most encoders share, and write it in every format."""
    from cort33x_lib.text.exchange import to_huggingface, to_ranks
    from cort33x_lib.text.tokenizer import train_tokenizer

    made = train_tokenizer(read(f"{folder}/3"), vocabulary, (), "gpt-2")
    made.save(f"{folder}/shared.json")
    to_huggingface(made, f"{folder}/shared.huggingface.json")
    to_ranks(made, f"{folder}/shared.tiktoken")


def run(quick: bool) -> dict:
    """All measurements, the tools taking turns: a list of them for every cell."""
    cells = [(3, 4096)] if quick else CELLS
    rounds, size = (1, 3) if quick else (ROUNDS, 10)
    vocabulary = cells[0][1]
    one = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    jobs = [("train", tool, *cell) for cell in cells for tool in TOOLS]
    jobs += [("code", tool, size, vocabulary) for tool in ENCODERS]
    results: dict[str, list[dict]] = {}
    with TemporaryDirectory() as folder:
        for megabytes in {3, size, *(cell[0] for cell in cells)}:
            write_corpus(Path(folder, str(megabytes)), megabytes)
        in_process("export", "cort33x", folder, 3, vocabulary)
        for turn in range(2 * rounds):  # every other with compiled code already there
            name = "first use, compiled before" if turn % 2 else "first use, compiling"
            cache = {"NUMBA_CACHE_DIR": f"{folder}/cache-{turn // 2}"}
            facts = in_process("first", "cort33x", folder, 3, vocabulary, **cache)
            results.setdefault(name, []).append(facts)
        turns = [(job, turn) for turn in range(rounds) for job in jobs]
        for (job, tool, megabytes, ids), _ in tqdm(turns, "measuring"):
            name = f"{job} {tool} {megabytes} MB {ids} ids"
            extra = one if job == "code" else {}
            facts = in_process(job, tool, folder, megabytes, ids, **extra)
            results.setdefault(name, []).append(facts)
    tools = {*ENCODERS, "numba", "numpy"} - {"cort33x"}
    return {
        "machine": {"system": platform.platform(), "processor": processor()},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {tool: version(tool) for tool in sorted(tools)},
        "cells": {"train": cells, "code": [size, vocabulary], "rounds": rounds},
        "results": results,
    }


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":")[1].strip() for line in lines if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.processor()


def show(record: dict) -> None:
    """Print the medians, with the spread of the rounds, and ratios to ours."""

    def row(name: str, *parts: str) -> str:
        found = record["results"][name]
        cells = []
        for part in parts:
            values = [facts[part] for facts in found]
            low, high = min(values), max(values)
            cells.append(f"{median(values):8.3f} ({low:.3f} to {high:.3f})")
        return "  ".join(cells) + f"  {max(f['megabytes'] for f in found):5.0f} MB"

    for megabytes, ids in record["cells"]["train"]:
        print(f"\ntraining: {megabytes} MB, {ids} ids; seconds, and peak memory")
        for tool in TOOLS:
            name = f"train {tool} {megabytes} MB {ids} ids"
            ours = f"train cort33x {megabytes} MB {ids} ids"
            print(
                f"{tool:14}{row(name, 'train')}  {ratio(record, name, ours, 'train')}"
            )
    size, ids = record["cells"]["code"]
    print(f"\nencoding warm, cold, decoding: {size} MB, {ids} ids, one thread; seconds")
    for tool in ENCODERS:
        name, ours = (f"code {t} {size} MB {ids} ids" for t in (tool, "cort33x"))
        times = (ratio(record, name, ours, part) for part in ("warm", "cold", "decode"))
        print(f"{tool:14}{row(name, 'warm', 'cold', 'decode')}  {' '.join(times)}")
    for name in ("first use, compiling", "first use, compiled before"):
        print(f"\n{name}: {row(name, 'first')}")


def ratio(record: dict, name: str, ours: str, part: str) -> str:
    """How many times our seconds a tool takes."""
    seconds = [median(f[part] for f in record["results"][key]) for key in (name, ours)]
    return f"x{seconds[0] / seconds[1]:.2f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="a small run, unkept")
    arguments.add_argument("--job", nargs=5, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.job:
        job, tool, folder, megabytes, vocabulary = given.job
        print(json.dumps(measured(job, tool, folder, int(megabytes), int(vocabulary))))
        return
    record = run(given.quick)
    show(record)
    if not given.quick:
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
