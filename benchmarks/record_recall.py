"""What one trained layer recalls: full attention, a window and a memory, three seeds.

    .venv/bin/python benchmarks/record_recall.py

A token is a key and a word at once, so one layer is enough. Pairs are read, then blank
tokens as many as the window is long, then keys alone, whose words are asked for. Goes
to data/runs/recall.json, which chapter 12 plots. About two minutes on one core.
"""

import json
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cort33x_lib.files import PROJECT, write_atomically
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.training.record import describe_machine


@dataclass(frozen=True)
class Plan:
    """Every number of the comparison, chosen on seed 0, which is not recorded."""

    letters: str = "FDW"
    seeds: tuple[int, ...] = (1, 2, 3)
    pairs: tuple[int, ...] = (4, 8, 16, 32, 64)
    words: int = 64  # and as many keys
    asked: int = 16
    rows: int = 16
    steps: int = 300
    peak_rate: float = 0.01
    tested: int = 256  # rows for each number of pairs


PLAN = Plan()
SHAPE = replace(
    CONFIGS["tiny"], channels=64, head_channels=32, key_value_heads=2, window=16
)


class Recall(nn.Module):
    """One layer between a table of keys and words and a table of answers."""

    def __init__(self, letter: str, seed: int):
        super().__init__()
        model = Transformer(replace(SHAPE, pattern=letter), seed)
        self.mixer, self.norm = model.blocks[0].mixer, model.norm
        generator = torch.Generator().manual_seed(seed)

        def table(rows: int, scale: float) -> nn.Parameter:
            drawn = torch.randn(rows, SHAPE.channels, generator=generator)
            return nn.Parameter(scale * drawn)

        self.keys, self.words = table(PLAN.words + 1, 1), table(PLAN.words + 1, 1)
        self.answers = table(PLAN.words, 0.1)

    def forward(self, keys: Tensor, words: Tensor) -> Tensor:
        """(B, T), (B, T) -> (B, asked, words)"""
        y, _ = self.mixer(self.norm(self.keys[keys] + self.words[words]))
        return self.norm(y[:, -PLAN.asked :]) @ self.answers.T


def draw(rows: int, pairs: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Keys and words of each token, and the words that are asked for."""
    blank, nothing = PLAN.words, SHAPE.window
    keys = torch.rand(rows, PLAN.words, generator=generator).argsort(1)[:, :pairs]
    words = torch.randint(PLAN.words, (rows, pairs), generator=generator)
    asked = torch.randint(pairs, (rows, PLAN.asked), generator=generator)
    gap = torch.full((rows, nothing), blank)
    silent = torch.full((rows, nothing + PLAN.asked), blank)
    keys_read = torch.cat([keys, gap, keys.gather(1, asked)], dim=1)
    return keys_read, torch.cat([words, silent], dim=1), words.gather(1, asked)


def train(letter: str, seed: int) -> dict[int, float]:
    """The share of words that a trained layer recalls, by number of pairs."""
    model, generator = Recall(letter, seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PLAN.peak_rate, PLAN.steps, pct_start=0.1
    )
    for step in range(PLAN.steps):
        pairs = PLAN.pairs[step % len(PLAN.pairs)]
        keys, words, right = draw(PLAN.rows, pairs, generator)
        loss = F.cross_entropy(model(keys, words).flatten(0, 1), right.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        schedule.step()
    found = {}
    with torch.no_grad():
        for pairs in PLAN.pairs:
            test = draw(PLAN.tested, pairs, torch.Generator().manual_seed(10**6))
            right = model(*test[:2]).argmax(2) == test[2]
            found[pairs] = round(right.double().mean().item(), 4)
    return found


def main() -> None:
    recalled = {}
    for letter in PLAN.letters:
        for seed in PLAN.seeds:
            recalled.setdefault(letter, []).append(train(letter, seed))
            print(letter, seed, recalled[letter][-1], flush=True)
    found = {
        "machine": describe_machine(),
        "plan": asdict(PLAN),
        "shape": asdict(SHAPE),
        "recalled": recalled,
    }
    path = PROJECT / "data" / "runs" / "recall.json"
    write_atomically(path, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
