"""Record the clinic's runs in data/runs/clinic: three references and fifteen cases.

    .venv/bin/python benchmarks/record_clinic.py          # all that is missing
    .venv/bin/python benchmarks/record_clinic.py --again  # all of them anew

The plan, written before the first recorded run.

Question. Can a fault be told from what a short run records about itself? Twelve faults
(`lab/faults.py`), one in each of twelve cases, and three healthy cases. The numbers of
the cases are shuffled by a fixed seed. Three more healthy runs are the references and
are labelled so.

Runs. The plan `small`, changed: 200 stories, so that the run reads them about three
times and has a gap between training and held-out text; 30 held-out stories; 100 steps
of four micro-batches of one row of 256 tokens; examined every twenty steps. Every run
has a seed of its own (references 1 to 3, cases 101 to 115), which decides the first
weights and the order of the documents. Corpus, tokenizer and recipe are the same.

Records. The manifest says what was meant, which is the same for all but the seed; the
learning rate in the record is the one that the schedule asks for. Three faults would
show in the manifest of a careful project: epsilon, weight decay and schedule are plain
numbers. They are planted behind it, as a bug between recipe and optimizer would be.

Signals. Those of `lab/clinic.py`. A signal is high or low when it lies outside the
range of the references, widened on either side by twice its width (at least by twice
5% of its value). Three references are few: the healthy cases show how often this is a
false alarm.

Rules. `suspect` in `lab/clinic.py` names a diagnosis from the signals alone. Signals
and rules were written from one healthy pilot run and one each of five faults, with seed
3 and before the recorded runs; they are scored on the fifteen cases as they are. No run
is left out or repeated, and no threshold is changed after recording.

A fault that cannot be seen is reported as one. One thread; about half a minute a run on
a quiet machine.

Afterwards. A first start that examined every ten steps was broken off at step 17,
before any run was complete, and nothing of it was kept. The machine was busy, so no
time was recorded. Texts that explain a diagnosis were reworded where the records showed
otherwise; signals, bands and rules were not touched.
"""

import argparse
import json
import shutil
from dataclasses import replace
from random import Random

from tqdm import tqdm

from cort33x_lib.files import write_atomically
from cort33x_lib.lab.clinic import FOLDER, seal
from cort33x_lib.lab.diagnoses import HEALTHY
from cort33x_lib.lab.faults import FAULTS, admit, observe
from cort33x_lib.lab.launch import Training
from cort33x_lib.lab.plan import Plan, read_plan

PLAN = read_plan(
    "small",
    changes=[
        "corpus.documents=200",
        "corpus.held_out=30",
        "tokenizer.documents=200",
        "recipe.steps=100",
        "recipe.rows=1",
        "recipe.accumulation=4",
        "recipe.examine_every=20",
    ],
)


def assign() -> dict[str, str]:
    """The diagnosis of each case."""
    diagnoses = [*FAULTS, *[HEALTHY] * 3]
    Random("clinic").shuffle(diagnoses)
    return {f"case-{n:02d}": name for n, name in enumerate(diagnoses, start=1)}


def rounded(value: object) -> object:
    """The same with five significant digits in place of floats."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def record(name: str, plan: Plan, diagnosis: str) -> None:
    """Train once and keep manifest and metrics."""
    training = Training(plan)
    patient = admit(training)
    if diagnosis != HEALTHY:
        FAULTS[diagnosis](patient)
    steps = tqdm(observe(patient), name, plan.recipe.steps, unit="step")
    lines = [json.dumps(rounded(measured), allow_nan=False) for measured in steps]
    manifest = training.manifest() | {"floor": rounded(training.floor)}
    del manifest["functions"]  # they are in the digest of each room
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_atomically(folder / "metrics.jsonl", "\n".join(lines) + "\n")
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="replace what is there")
    again = parser.parse_args().again
    cases, random = assign(), Random("salt")
    key = {}
    for case, diagnosis in cases.items():
        salt = random.randbytes(8).hex()
        key[case] = [salt, seal(salt, diagnosis)]
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(FOLDER / "key.json", json.dumps(key, indent=2) + "\n")
    runs = {f"reference-{n}": (n, HEALTHY) for n in (1, 2, 3)}
    runs |= {case: (int(case[-2:]) + 100, name) for case, name in cases.items()}
    for name, (seed, diagnosis) in runs.items():
        if again or not (FOLDER / name / "manifest.json").exists():
            recipe = replace(PLAN.recipe, seed=seed)
            record(name, replace(PLAN, recipe=recipe), diagnosis)


if __name__ == "__main__":
    main()
