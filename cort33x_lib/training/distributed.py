"""Several processes that train one model: the same loop, told which one it is.

    torchrun --nproc-per-node 2 -m cort33x_lib train small

Each process has the whole model and computes some of a step's micro-batches; gradients
are added up over all of them; each updates its own share of the weights, for which it
alone remembers averages (ZeRO, stage 1: Rajbhandari et al., 2020).

Chosen: messages of plain tensors, so nothing is pickled; sums weighted by tokens, so
the number of processes does not change what is learnt. Left out: overlapping messages
with the backward pass, and models that fit no single device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property

import torch
import torch.distributed as group
from torch import Tensor, nn

from cort33x_lib.training.optimizer import Optimizer, Together
from cort33x_lib.training.optimizer_state import blank_memory, parts_of
from cort33x_lib.training.recipe import Recipe


class Alone:
    """The world of one process, in which whatever is shared stays as it is."""

    rank, size, job = 0, 1, ""

    @cached_property
    def device(self) -> torch.device:
        """Where models are trained: a graphics card if there is one, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def main(self) -> bool:
        """Whether this process writes the record and the checkpoints."""
        return self.rank == 0

    def numbers(self, first: int, count: int) -> range:
        """Of `count` micro-batches from number `first` on, those of this process."""
        return range(first + self.rank, first + count, self.size)

    def sum(self, number: float) -> float:
        """The sum of a number over all processes."""
        return number

    def sum_gradients(self, model: nn.Module) -> None:
        """Put in place of each gradient its sum over all processes."""

    def shared(self, optimizer: Optimizer, model: nn.Module, recipe: Recipe):
        """The optimizer, its work divided among the processes.

        Raises ValueError when there are more of them than micro-batches in a step.
        """
        return optimizer

    @contextmanager
    def whole(self, optimizer: Optimizer) -> Iterator[None]:
        """While the block lasts, the main process remembers all of an optimizer."""
        yield

    def forget_others(self, optimizer: Optimizer) -> None:
        """Remember no more of an optimizer than this process updates."""

    def told(self, text: str) -> str:
        """What the main process says, at most 256 bytes of it."""
        return text


ALONE = Alone()


class Several(Alone):
    """One of several processes that torchrun has started together."""

    def __init__(self, device: torch.device, job: str):
        self.rank, self.size = group.get_rank(), group.get_world_size()
        self.device, self.job = device, job

    def sum(self, number: float) -> float:
        total = torch.tensor([number], dtype=torch.float64, device=self.device)
        group.all_reduce(total)
        return total.item()

    def sum_gradients(self, model: nn.Module) -> None:
        gradients = [w.grad for w in model.parameters() if w.grad is not None]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        group.all_reduce(joined)
        copy_back(joined, gradients)

    def shared(self, optimizer: Optimizer, model: nn.Module, recipe: Recipe):
        if self.size > recipe.accumulation:
            raise ValueError(
                f"{self.size} processes for {recipe.accumulation} micro-batches a step:"
                " expected at least one each; raise recipe.accumulation"
            )
        return Sharded(optimizer, model, self)

    @contextmanager
    def whole(self, optimizer: "Sharded") -> Iterator[None]:
        optimizer.gather()
        yield
        self.forget_others(optimizer)

    def forget_others(self, optimizer: "Sharded") -> None:
        for weights, part in optimizer.part_of.items():
            if optimizer.owner[weights] != self.rank:
                part.state.pop(weights, None)

    def told(self, text: str) -> str:
        data = text.encode("utf-8")[:256].ljust(256, b"\0")
        sent = torch.tensor(list(data), dtype=torch.uint8, device=self.device)
        group.broadcast(sent, 0)
        return bytes(sent.tolist()).rstrip(b"\0").decode("utf-8")


def copy_back(joined: Tensor, tensors: list[Tensor]) -> None:
    """Copy one long tensor back into the tensors that it was joined from."""
    parts = joined.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def owners(weights: list[Tensor], size: int) -> list[int]:
    """Which process updates each tensor: the largest first, to whom has least."""
    load, chosen = [0] * size, [0] * len(weights)
    for place in sorted(range(len(weights)), key=lambda place: -weights[place].numel()):
        chosen[place] = load.index(min(load))
        load[chosen[place]] += weights[place].numel()
    return chosen


class Sharded(Together):
    """An optimizer that updates this process's weights and is sent all others.

    ZeRO, stage 1: Rajbhandari et al. (2020).
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, world: Several):
        super().__init__(parts_of(optimizer))
        self.world, weights = world, [*model.parameters()]
        self.owner = dict(zip(weights, owners(weights, world.size), strict=True))
        self.part_of = {
            weights: part
            for part in self.parts
            for each in part.param_groups
            for weights in each["params"]
        }

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights that are owned, send them, and receive the others."""
        for weights, rank in self.owner.items():
            if rank != self.world.rank:
                weights.grad = None  # which the parts pass over
        super().step()
        for rank in {*self.owner.values()}:
            theirs = [weights for weights, r in self.owner.items() if r == rank]
            joined = torch.cat([weights.flatten() for weights in theirs])
            group.broadcast(joined, rank)
            copy_back(joined, theirs)

    def gather(self) -> None:
        """Have the main process remember what all of them do, in the groups' order."""
        kinds = {part: blank_memory(part) for part in self.parts}
        for weights, part in self.part_of.items():
            memory = part.state.pop(weights, {})
            for key, is_number in kinds[part].items():
                like = weights.new_empty(()) if is_number else weights.detach()
                memory[key] = memory.get(key, torch.empty_like(like))
                group.broadcast(memory[key], self.owner[weights])
            if self.world.rank in (0, self.owner[weights]):
                part.state[weights] = memory


def meeting() -> group.Store:
    """Where the processes of this attempt learn each other's addresses.

    torchrun keeps one store for all attempts: without a name of its own, a process that
    was started again would look for the dead ones of the attempt before.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = group.TCPStore(address, port, is_master=False)
    return group.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)


@contextmanager
def process_group() -> Iterator[Alone]:
    """The world that torchrun started this process in; without torchrun, `ALONE`.

    Where each has a graphics card, messages go by NCCL, else by Gloo. Raises ValueError
    for a torchrun whose restarts could not find their run again.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    job = os.environ["TORCHELASTIC_RUN_ID"]
    if job == "none":
        raise ValueError("torchrun has no job: say --standalone, or --rdzv-id NAME")
    device = torch.device("cpu")
    if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo" if device.type == "cpu" else "nccl"
    day = timedelta(days=1)  # the others wait while the main one prepares a corpus
    group.init_process_group(
        backend, timeout=day, store=meeting(), rank=rank, world_size=size
    )
    try:
        yield Several(device, job)
    finally:
        group.destroy_process_group()
