"""The record of a run: one folder with a manifest and one JSON line a step.

    runs/NAME-001/manifest.json     what was trained, on what, by which code, where
    runs/NAME-001/metrics.jsonl     {"step": 1, "loss": 7.62, ...}, a line at a time
    runs/NAME-001/tokenizer.json    and *.tokens: what was read; see `lab.launch`
    runs/NAME-001/checkpoints/      see `checkpoint`
    runs/NAME-001/not-finite-*/     see `replay`; only where a run was stopped

A line has what `loop.train` yields, and what `telemetry` lists, in dictionaries by
layer: {"gradient_norms": {"embedding": 0.3, "blocks.0.mixer": 0.1, ...}, ...}.
Two runs never share a folder: a name that is taken gets the next number.
"""

import ast
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Self

import torch

from cort33x_lib import files
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.training.recipe import Recipe
from cort33x_lib.training.telemetry import PROBE_EVERY, PROBE_TOKENS

ROOMS = ("text", "model", "training", "lab")
DEFINITIONS = ast.FunctionDef | ast.ClassDef
OF_THE_MACHINE = ("seconds", "tokens_per_second", "memory")  # not the same bits again
LIBRARY = Path(__file__).parents[1]


def function_digests(room: str, library: Path = LIBRARY) -> dict[str, dict[str, str]]:
    """Digests of a room's code, by file and then by function, method or name.

    Eight hexadecimal digits of each syntax tree's sha256. Docstrings, comments and
    layout do not count. What a class holds beside its methods has the class's name.
    """
    return {
        file.relative_to(library).as_posix(): {
            name: files.digest(ast.dump(tree).encode())[:8]
            for name, tree in code_parts(ast.parse(file.read_bytes()))
        }
        for file in sorted((library / room).glob("*.py"))
    }


def code_parts(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The named parts of a file, docstrings taken out; "imports" has all imports."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS | ast.Module) and ast.get_docstring(node):
            del node.body[0]
    imports = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.ClassDef):
            methods = [x for x in node.body if isinstance(x, ast.FunctionDef)]
            node.body = [x for x in node.body if x not in methods]
            yield node.name, node
            yield from ((f"{node.name}.{x.name}", x) for x in methods)
        elif isinstance(node, ast.FunctionDef):
            yield node.name, node
        else:
            yield ast.unparse(getattr(node, "targets", [node])[0]), node
    yield "imports", ast.Module(imports, [])


def room_digest(functions: dict[str, dict[str, str]]) -> str:
    """One sha256 for a whole room, from the digests of its parts."""
    return files.digest(json.dumps(functions, sort_keys=True).encode())


def processor_name() -> str:
    """The processor as its maker calls it, or as Python does where that is hidden."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, str | int]:
    """What a speed depends on: processor, cores, threads, system, versions."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def describe_code(library: Path = LIBRARY) -> dict[str, dict]:
    """Digests of a library's rooms, and of each function in them."""
    functions = {room: function_digests(room, library) for room in ROOMS}
    return {
        "code": {room: room_digest(functions[room]) for room in ROOMS},
        "functions": {k: v for room in ROOMS for k, v in functions[room].items()},
    }


def make_manifest(
    config: ModelConfig, recipe: Recipe, corpus: str, tokenizer: str
) -> dict:
    """All that a run depends on. `corpus` and `tokenizer` are their fingerprints."""
    return {
        "corpus": corpus,
        "tokenizer": tokenizer,
        "model": asdict(config),
        "recipe": asdict(recipe),
        **describe_code(),
        "telemetry": {"probe_every": PROBE_EVERY, "probe_tokens": PROBE_TOKENS},
        "machine": describe_machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Run:
    """A run's folder, to write to and to read from."""

    def __init__(self, folder: Path):
        """Open a run that exists. Raises FileNotFoundError when it does not."""
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.manifest = json.loads(
            (self.folder / "manifest.json").read_text(encoding="utf-8")
        )

    @classmethod
    def create(cls, runs: Path, name: str, manifest: dict) -> Self:
        """Make a run in the folder `runs`, as NAME-001 or the next number not taken."""
        runs = Path(runs)
        runs.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = runs / f"{name}-{number:03d}"
            try:
                folder.mkdir()  # refuses what exists, whoever made it
                break
            except FileExistsError:
                continue
        files.write_atomically(
            folder / "manifest.json", json.dumps(manifest, indent=2) + "\n"
        )
        return cls(folder)

    @property
    def facts(self) -> dict[str, str]:
        """What must be the same to go on from a checkpoint of this run."""
        return {name: self.manifest[name] for name in ("corpus", "tokenizer")}

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def append(self, **metrics: float | int | str | bool) -> None:
        """Add one line. `step` is required; lines of one step are read as one."""
        line = json.dumps(metrics, allow_nan=False)
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def bring_to_disk(self) -> None:
        """Push the record to the disk, as a checkpoint of its last step requires."""
        files.bring_to_disk(self._metrics)

    def metrics(self) -> list[dict]:
        """One dictionary a step, in order. A half-written last line is left out."""
        if not self._metrics.exists():
            return []
        text = self._metrics.read_text(encoding="utf-8")
        steps: dict[int, dict] = {}
        for line in text[: text.rfind("\n") + 1].splitlines():
            values = json.loads(line)
            steps.setdefault(values["step"], {}).update(values)
        return [steps[step] for step in sorted(steps)]

    def forget_after(self, step: int) -> None:
        """Drop what was written after a step, as resuming from it requires."""
        if not self._metrics.exists():
            return
        lines = self._metrics.read_bytes().splitlines(keepends=True)
        kept = (
            line
            for line in lines
            if line.endswith(b"\n") and json.loads(line)["step"] <= step
        )
        files.write_atomically(self._metrics, b"".join(kept))
