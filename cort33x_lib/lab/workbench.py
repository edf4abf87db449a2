"""Plans trained only to be scored, by the code of this folder or of another.

Nothing is recorded. Left out: plans whose keys the other code does not know.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile

from cort33x_lib.lab.evaluation import evaluate
from cort33x_lib.lab.launch import collect, cut_long, make_tokenizer
from cort33x_lib.lab.plan import Plan
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.training.loop import train

ELSEWHERE = """
import json, sys
from cort33x_lib.lab.bisect import Workbench
from cort33x_lib.lab.plan import plan_of
judge, *plans = map(plan_of, json.load(sys.stdin))
bench = Workbench(judge)
for plan in plans:
    print(bench.score(plan), flush=True)
"""


class Workbench:
    """Trains plans and scores them on one plan's held-out documents."""

    def __init__(self, judge: Plan):
        self.examined = collect(judge.corpus)[1]
        self._ready: dict[tuple, tuple[Tokens, Tokens]] = {}

    def prepare(self, plan: Plan) -> tuple[Tokens, Tokens]:
        """What a plan reads and what it is examined with, made once for like plans."""
        sizes = plan.model.vocabulary, plan.model.context
        key = (plan.corpus, plan.tokenizer, *sizes)
        if key not in self._ready:
            documents, _ = collect(plan.corpus)
            tokenizer = make_tokenizer(plan, documents)
            held_out = encode_documents(tokenizer, self.examined)
            held_out = cut_long(held_out, tokenizer, plan.model.context)
            self._ready[key] = encode_documents(tokenizer, documents), held_out
        return self._ready[key]

    def score(self, plan: Plan) -> float:
        """The bits per byte that a plan ends at; nothing is recorded."""
        tokens, held_out = self.prepare(plan)
        recipe, model = plan.recipe, Transformer(plan.model, seed=plan.recipe.seed)
        batches = Batches(tokens, recipe.rows, recipe.length, recipe.seed)
        for _ in train(model, batches, recipe):
            pass
        return evaluate(model, held_out).bits_per_byte


def library_in(folder: Path) -> Path:
    """The library in a copy of the project. Raises ValueError where there is none."""
    library = folder / "cort33x_lib"
    if not (library / "__init__.py").exists():
        raise ValueError(
            f"{folder} holds no cort33x_lib, expected a copy of the project"
        )
    return library


def scores_elsewhere(folder: Path, judge: Plan, plans: list[Plan]) -> Iterator[float]:
    """The same of each plan by the code in another folder, in a process of its own.

    Raises ValueError for a folder without a library, and RuntimeError with what that
    process complained of.
    """
    path = [str(library_in(folder).parent.resolve()), os.environ.get("PYTHONPATH", "")]
    around = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    command = [sys.executable, "-P", "-c", ELSEWHERE]  # -P: not what is in this folder
    with TemporaryFile("w+") as asked, TemporaryFile("w+", errors="replace") as heard:
        json.dump([*map(manifest_of, [judge, *plans])], asked)
        asked.seek(0)
        files = dict(stdin=asked, stdout=PIPE, stderr=heard)
        with Popen(command, **files, env=around, text=True) as process:
            try:
                yield from map(float, process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            heard.seek(0)
            last = (heard.read().strip().splitlines() or ["no word"])[-1]
            raise RuntimeError(f"the code in {folder} cannot train these plans: {last}")


def manifest_of(plan: Plan) -> dict:
    """What `plan_of` makes into the plan again."""
    parts = asdict(plan)
    kept = {part: parts[part] for part in ("corpus", "tokenizer")}
    return {"model": parts["model"], "recipe": parts["recipe"], "plan": kept}
