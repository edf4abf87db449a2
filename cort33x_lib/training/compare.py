"""Two runs side by side: what changed from one to the other, and what it cost.

    compare(Run("runs/tour-001"), Run("runs/tour-002"))

Everything is read from the records. Left out: why it cost that; see `lab.bisect`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import log

from cort33x_lib.training.record import Run

VERSIONS = ("python", "torch", "numpy")
ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One thing in which two runs differ; str() of it is a sentence.

    kind: "corpus", "tokenizer", "model", "recipe", "seed", "code", "version", "machine"
    or "record"; name: the key, or "model/attention.py: attend".
    """

    kind: str
    name: str
    before: object = None
    after: object = None

    def __str__(self) -> str:
        if self.kind == "code":
            return f"The code differs in {self.name}, which {self.after}."
        if self.kind in ("corpus", "tokenizer") and self.name == self.kind:
            ends = f"{self.before!s:.8} and {self.after!s:.8}"
            return (
                f"The {self.kind} is not the same: its fingerprints begin with {ends}."
            )
        was, is_now = (
            "not recorded" if x is ABSENT else repr(x)
            for x in (self.before, self.after)
        )
        return f"{self.name} was {was} and is {is_now}."


def compare(one: Run, other: Run) -> list[str]:
    """A sentence for each change from `one` to `other`, and the last one for the cost.

    Runs that do not differ in anything that is recorded say so.
    """
    found = manifest_changes(one.manifest, other.manifest)
    said = [*map(str, found)] or ["Nothing that is recorded has changed."]
    return [*said, cost_of(one, other)]


def manifest_changes(one: dict, other: dict) -> list[Change]:
    """What differs between two manifests, in the order of `Change.kind`."""
    found = []
    for part in ("corpus", "tokenizer"):
        plans = [x.get("plan", {}).get(part, {}) for x in (one, other)]
        found += key_changes(part, *plans, prefix=f"{part}.")
        found += key_changes(part, {part: one.get(part)}, {part: other.get(part)})
    found += key_changes("model", one["model"], other["model"], "model.")
    found += key_changes("recipe", one["recipe"], other["recipe"], "recipe.")
    found += code_changes(one, other)
    found += key_changes("machine", one["machine"], other["machine"])
    found += key_changes("record", one.get("telemetry", {}), other.get("telemetry", {}))
    return found


def key_changes(
    kind: str, one: dict, other: dict, prefix: str = ""
) -> Iterator[Change]:
    """A change for each key whose values differ."""
    for name in dict.fromkeys(chain(one, other)):
        before, after = one.get(name, ABSENT), other.get(name, ABSENT)
        if before != after:
            here = {"seed": "seed"} | dict.fromkeys(VERSIONS, "version")
            yield Change(here.get(name, kind), f"{prefix}{name}", before, after)


def code_changes(one: dict, other: dict) -> Iterator[Change]:
    """What differs in the library's code, function by function where that is recorded.

    Rooms whose code is the same are passed over. Python versions write digests
    differently, so across versions all that can be said is that nothing can be.
    """
    versions = {x["machine"]["python"].rpartition(".")[0] for x in (one, other)}
    if len(versions) > 1:
        which = " and ".join(sorted(versions))
        yield Change("code", "unknown", None, f"Python {which} cannot tell each other")
        return
    if "functions" not in one or "functions" not in other:
        for room in one["code"]:
            if one["code"][room] != other["code"].get(room):
                after = "has changed; one of the records does not say which functions"
                yield Change("code", f"the room {room}", None, after)
        return
    befores, afters = one["functions"], other["functions"]
    for file in dict.fromkeys(chain(befores, afters)):
        for each in key_changes("code", befores.get(file, {}), afters.get(file, {})):
            gone, new = each.after is ABSENT, each.before is ABSENT
            how = "is gone" if gone else "is new" if new else "has changed"
            yield Change("code", f"{file}: {each.name}", None, how)


def cost_of(one: Run, other: Run) -> str:
    """What the runs ended at, in bits per byte where that can be said."""
    ends = [final_scores(run) for run in (one, other)]
    names = [name for name in ends[0] if name in ends[1]]
    if not names:
        return "No score is in both records, so what it cost is not known."
    name = names[0]
    before, after = (end[name] for end in ends)
    how = "more" if after >= before else "less"
    return (
        f"{name} was {before:.4f} and is {after:.4f}: {abs(after - before):.4f} {how}."
    )


def final_scores(run: Run) -> dict[str, float]:
    """The scores at the end of a run, the one that compares best first.

    Nats per token become bits per byte by the tokens and bytes of the training text.
    """
    lines = run.metrics()
    found = {}
    for key, label in {"bits_per_byte": "", "held_out": "held out"}.items():
        values = [line for line in lines if line.get(key) is not None]
        if not values:
            continue
        last = values[-1]
        if not label:
            found["Bits per byte"] = last[key]
        elif "bytes" in last:
            bits = last[key] / log(2) * last["tokens"] / last["bytes"]
            found["Held-out loss (bits per byte, estimated)"] = bits
        else:
            found["Held-out loss (nats per token)"] = last[key]
    late = [line["loss"] for line in lines[-max(len(lines) // 10, 1) :]]
    if late:
        found["Mean loss of the last tenth of the steps"] = sum(late) / len(late)
    return found
