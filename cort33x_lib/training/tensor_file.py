"""Tensors in a safetensors file, written one at a time and read only when they fit.

    8 bytes   length of the header, little-endian
    header    JSON: for each name its type, its shape, and from where to where it lies
    the rest  the numbers, one tensor after another

Written here, so that the hash is that of the numbers in memory, taken as they pass, and
a full disk is an OSError. Read by the safetensors library, which checks the structure.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
LONGEST_HEADER = 1 << 20  # bytes; that of a hundred million parameters has 50,000


class CheckpointError(ValueError):
    """No intact checkpoint is there, or one does not fit."""


def layout(tensors: Mapping[str, Tensor]) -> bytes:
    """What stands before the numbers: the header's length, and the header."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)  # so that numbers of 8 bytes start at multiples
    return len(text).to_bytes(8, "little") + text


def numbers_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes in memory; copied only from another device."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Make a file that is on the disk when this returns; gives its SHA-256.

    Raises OSError, also when there is such a file.
    """
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    running = hashlib.sha256()
    with open(path, "xb") as file:
        for part in chain([layout(ordered)], map(numbers_of, ordered.values())):
            file.write(part)
            running.update(part)
        file.flush()
        os.fsync(file.fileno())
    return running.hexdigest()


@contextmanager
def open_tensors(path: Path) -> Iterator[Mapping[str, Tensor]]:
    """A file's tensors by name, read from the disk as they are asked for.

    Raises CheckpointError for what is no such file, or has a header too long.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise CheckpointError(
                f"{path} has a header of {length} bytes, expected at most"
                f" {LONGEST_HEADER}"
            )
        with safe_open(path, framework="pt") as file:
            yield {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as fault:
        raise CheckpointError(f"{path}: {fault}") from fault


def check_fit(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless the tensors have these names, types and shapes."""
    for name in sorted({*targets} ^ {*tensors}):
        state = "is missing" if name in targets else "is unknown"
        raise CheckpointError(f"{name} {state}")
    for name, target in targets.items():
        found, expected = describe(tensors[name]), describe(target)
        if found != expected:
            raise CheckpointError(f"{name} is {found}, expected {expected}")


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy the numbers of tensors into others of the same names."""
    for name, target in targets.items():
        target.copy_(tensors[name])


def describe(tensor: Tensor) -> str:
    """Its type and shape: "float32 (512, 8)"."""
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
