"""The clinic: recorded runs with one planted fault or none, and who marks a diagnosis.

    data/runs/clinic/case-07/manifest.json    what was meant: every case says the same
    data/runs/clinic/case-07/metrics.jsonl    what happened, one line a step
    data/runs/clinic/reference-1/             healthy runs, to compare with
    data/runs/clinic/key.json                 the answers, each as a salted sha256

Chosen: symptoms are numbers computed from the records, and a number is called high or
low by how far it lies outside what healthy reference runs show. Left out: a case with
two faults.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from cort33x_lib.files import PROJECT, digest
from cort33x_lib.lab.diagnoses import APART, DIAGNOSES, HEALTHY
from cort33x_lib.training.record import Run

FOLDER = PROJECT / "data" / "runs" / "clinic"
MARGIN = 2.0  # ranges of the references, on either side, that still count as healthy
LEAST = 0.05  # of a value: a range is taken as at least this wide
MATRICES = ("embedding", "mixer", "feed_forward")  # how names of such groups end
Metrics = list[dict]


def load(folder: Path = FOLDER) -> tuple[dict[str, Metrics], dict[str, Metrics]]:
    """The cases and the references, by name, each as one dictionary a step."""
    runs = {
        path.parent.name: Run(path.parent).metrics()
        for path in sorted(folder.glob("*/manifest.json"))
    }
    cases = {name: run for name, run in runs.items() if name.startswith("case-")}
    return cases, {name: run for name, run in runs.items() if name not in cases}


def floor(folder: Path = FOLDER) -> float:
    """The loss on the held-out text that no model gets below, in nats per token."""
    return Run(folder / "reference-1").manifest["floor"]


def column(metrics: Metrics, key: str) -> list[float]:
    """One measurement of all steps that have it."""
    return [line[key] for line in metrics if line.get(key) is not None]


def by_group(metrics: Metrics, key: str) -> dict[str, list[float]]:
    """A measurement of each group that has matrices, as one list a group."""
    names = [name for name in metrics[0][key] if name.endswith(MATRICES)]
    return {name: [line[key][name] or 0.0 for line in metrics] for name in names}


def typical_update(metrics: Metrics) -> list[float]:
    """The middle one of the groups' update ratios, at each step."""
    ratios = by_group(metrics, "update_ratios").values()
    return [statistics.median(step) for step in zip(*ratios, strict=True)]


def part(values: list[float], first: float, last: float) -> list[float]:
    """The values between two shares of a run, from 0 to 1."""
    return values[round(first * len(values)) : round(last * len(values))]


def training_loss(metrics: Metrics) -> float:
    """The mean loss of the last sixth of the steps."""
    return statistics.fmean(part(column(metrics, "loss"), 5 / 6, 1))


def held_out_loss(metrics: Metrics) -> float:
    """The last loss on held-out text."""
    return column(metrics, "held_out")[-1]


def gap(metrics: Metrics) -> float:
    """How much worse held-out text is than training text, at the end."""
    return held_out_loss(metrics) - training_loss(metrics)


def turn(metrics: Metrics) -> float:
    """The last held-out loss beside the lowest one: above 1, it has risen since."""
    return held_out_loss(metrics) / min(column(metrics, "held_out"))


def gradient(metrics: Metrics) -> float:
    """The norm of the gradient, median of the second half."""
    return statistics.median(part(column(metrics, "gradient_norm"), 1 / 2, 1))


def jump(metrics: Metrics) -> float:
    """The largest rise of the loss over the median of the eight steps before."""
    losses = column(metrics, "loss")
    return max(
        losses[step] - statistics.median(losses[step - 8 : step])
        for step in range(len(losses) // 6, len(losses))
    )


def update(metrics: Metrics) -> float:
    """The typical update ratio, median of the middle third."""
    return statistics.median(part(typical_update(metrics), 1 / 3, 2 / 3))


def settling(metrics: Metrics) -> float:
    """The typical update ratio of the last twelfth, beside the middle third's."""
    last = part(typical_update(metrics), 11 / 12, 1)
    return statistics.median(last) / update(metrics)


def burst(metrics: Metrics) -> float:
    """The largest typical update ratio after the first third, in middles."""
    return max(part(typical_update(metrics), 1 / 3, 1)) / update(metrics)


def without_gradient(metrics: Metrics) -> int:
    """Groups whose gradient is zero in most steps."""
    norms = by_group(metrics, "gradient_norms").values()
    return sum(statistics.median(values) == 0 for values in norms)


def without_update(metrics: Metrics) -> int:
    """Groups whose weights stay as they are in most steps."""
    ratios = by_group(metrics, "update_ratios").values()
    return sum(statistics.median(values) == 0 for values in ratios)


def echo(metrics: Metrics) -> float:
    """How much the loss repeats itself: its largest correlation with its own past.

    Without the first fifth and the trend, a cubic; at lags of a tenth to half a run.
    """
    losses = np.array(part(column(metrics, "loss"), 1 / 5, 1))
    steps = np.arange(len(losses))
    rest = losses - np.polyval(np.polyfit(steps, losses, 3), steps)
    lags = range(len(metrics) // 10, len(metrics) // 2)
    return max(float(np.corrcoef(rest[:-lag], rest[lag:])[0, 1]) for lag in lags)


def text_per_token(metrics: Metrics) -> float:
    """Bytes of text that a token stands for, in what was trained on."""
    return metrics[-1]["bytes"] / metrics[-1]["tokens"]


SIGNALS: dict[str, Callable[[Metrics], float]] = {
    "training loss": training_loss,
    "held-out loss": held_out_loss,
    "gap": gap,
    "turn": turn,
    "gradient norm": gradient,
    "loss jump": jump,
    "echo": echo,
    "update": update,
    "settling": settling,
    "burst": burst,
    "groups without gradient": without_gradient,
    "groups without update": without_update,
    "bytes a token": text_per_token,
}


RULES: tuple[tuple[str, dict[str, str]], ...] = (
    ("learning-rate spike", {"burst": "high"}),
    ("dead layer", {"groups without gradient": "high"}),
    ("frozen embedding", {"groups without update": "high"}),
    ("leaking mask", {"training loss": "low", "held-out loss": "low"}),
    ("wrong tokenizer", {"turn": "high", "bytes a token": "low"}),
    ("wrong tokenizer", {"turn": "high", "bytes a token": "high"}),
    ("shifted target", {"turn": "high"}),
    ("schedule never decays", {"settling": "high"}),
    ("unshuffled data", {"echo": "high"}),
    ("validation in training", {"gap": "low", "held-out loss": "low"}),
    ("wrong weight decay", {"update": "high"}),
    ("large epsilon", {"update": "low"}),
    ("unscaled accumulation", {"gradient norm": "high"}),
    ("validation in training", {"gap": "low"}),
)


def read_signals(metrics: Metrics) -> dict[str, float]:
    """Every signal of one run."""
    return {name: read(metrics) for name, read in SIGNALS.items()}


def bands(references: Mapping[str, Metrics]) -> dict[str, tuple[float, float]]:
    """For each signal, the lowest and the highest value that still count as healthy."""
    read = [read_signals(metrics) for metrics in references.values()]
    found = {}
    for name in SIGNALS:
        values = [signals[name] for signals in read]
        width = max(max(values) - min(values), LEAST * abs(statistics.fmean(values)))
        found[name] = min(values) - MARGIN * width, max(values) + MARGIN * width
    return found


def symptoms(
    metrics: Metrics, healthy: Mapping[str, tuple[float, float]]
) -> dict[str, str]:
    """The signals of a run that lie outside their bands, each "high" or "low"."""
    found = {}
    for name, value in read_signals(metrics).items():
        low, high = healthy[name]
        if not low <= value <= high:
            found[name] = "low" if value < low else "high"
    return found


def suspect(found: Mapping[str, str]) -> str:
    """A diagnosis by rules, from symptoms alone; the first rule that fits.

    What is exact comes first (a group that does not move), then what only one fault
    does, then what remains.
    """
    for diagnosis, needed in RULES:
        if all(found.get(signal) == way for signal, way in needed.items()):
            return diagnosis
    return HEALTHY


def seal(salt: str, diagnosis: str) -> str:
    """A diagnosis as the key of the clinic holds it."""
    return digest(f"{salt}/{diagnosis}".encode())


def truth(case: str, folder: Path = FOLDER) -> str:
    """The diagnosis of a case. Raises ValueError for a case that is not in the key."""
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    if case not in key:
        raise ValueError(f"no case {case!r}, expected one of {', '.join(key)}")
    salt, sealed = key[case]
    (found,) = (name for name in DIAGNOSES if seal(salt, name) == sealed)
    return found


def diagnose(case: str, answer: object, folder: Path = FOLDER) -> str:
    """Right or wrong, and why: what proves it, or what the answer leaves unexplained.

    A wrong answer does not tell the right one. Raises ValueError for an unknown case.
    """
    right = truth(case, folder)
    if answer is None:
        return "Put your diagnosis in the place of None and run the cell again."
    if not isinstance(answer, str) or answer not in DIAGNOSES:
        near = get_close_matches(str(answer).lower(), DIAGNOSES, 1)
        meant = f"did you mean {near[0]!r}?" if near else "expected one of:"
        names = "" if near else " " + ", ".join(DIAGNOSES)
        return f"No diagnosis is called {answer!r}; {meant}{names}"
    if answer == right:
        return f"Right: {right}. {DIAGNOSES[right]}"
    if (right, answer) in APART:
        return f"Not {answer}. {APART[right, answer]}"
    if answer == HEALTHY:
        return "Not healthy: at least one panel lies far outside the references."
    if right == HEALTHY:
        return f"Not {answer}. {DIAGNOSES[answer]} Nothing of the kind is here."
    return f"Not {answer}. {DIAGNOSES[answer]} This record does not show that."


def score_card(
    answers: Mapping[str, object], folder: Path = FOLDER
) -> list[tuple[str, str, str]]:
    """For each case: its name, the answer given, and "right", "wrong" or "open"."""
    rows = []
    for case, answer in answers.items():
        mark = "right" if answer == truth(case, folder) else "wrong"
        rows.append((case, str(answer or ""), "open" if answer is None else mark))
    return rows
