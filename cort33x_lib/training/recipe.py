"""Every number of a training run, and the recipes that the book calls by name."""

from dataclasses import dataclass
from math import inf

CHOICES = {
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "wsd"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; frozen, so that a record means what it says.

    Raises ValueError for numbers that no run can have.
    """

    steps: int  # updates of the weights
    rows: int  # B: sequences in one micro-batch
    length: int  # T: tokens in one sequence
    accumulation: int  # micro-batches in one step
    peak_rate: float  # the highest learning rate, reached when the warm-up ends
    final_rate: float  # the learning rate of the last step
    warmup: float  # share of the steps in which the learning rate rises
    decay: float  # weight decay, on matrices only
    betas: tuple[float, float]  # how long AdamW remembers gradients and their squares
    clip: float  # longest gradient, as the norm over all weights
    save_every: int  # steps from one checkpoint to the next
    seed: int  # decides the order of the documents and the first weights
    optimizer: str = "adamw"  # or "muon", for the matrices of the blocks
    matrix_rate: float = 0.02  # Muon's highest learning rate
    schedule: str = "cosine"  # or "wsd": warm up, stay, fall at the end
    cooldown: float = 0.2  # share of the steps in which "wsd" falls
    precision: str = "float32"  # or "bfloat16": autocast, weights stay in float32
    compiled: bool = False  # whether torch.compile makes the model's loss
    examine_every: int = 0  # steps from one examination to the next, 0 for none

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                names = " or ".join(map(repr, known))
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {names}")
        for name in ("steps", "rows", "length", "accumulation", "save_every"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}, expected a whole number from 1")
        for name in ("examine_every", "seed"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}, expected a whole number from 0")
        for name in ("warmup", "cooldown"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ValueError(f"{name} is {share!r}, expected a share from 0 to 1")
        if self.schedule == "wsd" and self.warmup + self.cooldown > 1:
            raise ValueError(
                f"warmup {self.warmup} and cooldown {self.cooldown}, expected at most 1"
                " together"
            )
        for name in ("matrix_rate", "clip"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} is {value!r}, expected above 0")
        if not 0 <= self.decay < inf:
            raise ValueError(f"decay is {self.decay!r}, expected 0 or more")
        shares = [type(b) in (int, float) and 0 <= b < 1 for b in self.betas]
        if shares != [True, True]:
            raise ValueError(
                f"betas are {self.betas!r}, expected two numbers from 0 to below 1"
            )
        if not 0 < self.final_rate <= self.peak_rate:
            raise ValueError(
                f"rates are {self.peak_rate!r} and {self.final_rate!r}, "
                "expected 0 < final_rate <= peak_rate"
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one update of the weights is computed from."""
        return self.rows * self.length * self.accumulation


RECIPES = {
    # For tests and cells that must answer at once.
    "tiny": Recipe(
        steps=20,
        rows=4,
        length=32,
        accumulation=1,
        peak_rate=3e-3,
        final_rate=3e-4,
        warmup=0.1,
        decay=0.1,
        betas=(0.9, 0.95),
        clip=1.0,
        save_every=10,
        seed=0,
    ),
    # Chapter 1: two minutes on two cores.
    "tour": Recipe(
        steps=700,
        rows=4,
        length=256,
        accumulation=1,
        peak_rate=8e-3,
        final_rate=4e-4,
        warmup=0.05,
        decay=0.1,
        betas=(0.9, 0.99),
        clip=1.0,
        save_every=100,
        seed=0,
    ),
    # The reference model: 131,072 tokens a step, 20 tokens a parameter.
    "cort33x": Recipe(
        steps=5340,
        rows=16,
        length=1024,
        accumulation=8,
        peak_rate=3e-4,
        final_rate=3e-5,
        warmup=0.02,
        decay=0.1,
        betas=(0.9, 0.95),
        clip=1.0,
        save_every=100,
        seed=0,
    ),
}
