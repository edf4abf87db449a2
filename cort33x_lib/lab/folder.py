"""A model to keep or to give away: one folder with all that is needed to use it.

    config.json          format, config of the model, tokenizer's name, kind of weights,
                         sha256 of the weights
    tokenizer.json       the tokenizer, as it saves itself
    model.safetensors    weights by name; with int8, NAME.scales beside each matrix

    from cort33x_lib.lab.folder import load_folder
    model, tokenizer = load_folder("data/runs/tour-model")

Chosen: safetensors and JSON, so that loading runs no code; everything is checked before
it is used, config.json is written last. Left out: what training needs to go on, which
a checkpoint holds.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from cort33x_lib.files import digest, write_atomically
from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.int8 import dequantise, matrix_names, quantise
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.tokenizer import Tokenizer

FORMAT = "cort33x-model-1"
KINDS = ("float32", "int8")


class FolderError(ValueError):
    """A folder holds no model, or its parts do not fit together."""


def save_folder(
    folder: str | os.PathLike[str],
    model: Transformer,
    tokenizer: Tokenizer,
    int8: bool = False,
) -> Path:
    """Write a model and its tokenizer, in float32 or with matrices in int8.

    Raises FolderError when the tokenizer has more ids than the model can name; OSError
    passes through.
    """
    folder, config = Path(folder), model.config
    if tokenizer.vocabulary > config.vocabulary:
        raise FolderError(
            f"the tokenizer has {tokenizer.vocabulary} ids, the model's vocabulary is"
            f" {config.vocabulary}: expected room for each id"
        )
    weights = save(stored_weights(model, int8))
    contents = {
        "format": FORMAT,
        "model": asdict(config),
        "tokenizer": tokenizer.name,
        "weights": KINDS[int8],
        "sha256": digest(weights),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", weights)
    tokenizer.save(folder / "tokenizer.json")
    write_atomically(folder / "config.json", json.dumps(contents, indent=2) + "\n")
    return folder


def stored_weights(model: Transformer, int8: bool) -> dict[str, Tensor]:
    """The tensors of a file, by name: float32, or int8 and scales for each matrix."""
    matrices, stored = matrix_names(model) if int8 else set(), {}
    for name, weights in model.state_dict().items():
        if name in matrices:
            stored[name], stored[f"{name}.scales"] = quantise(weights.cpu())
        else:
            stored[name] = weights.detach().cpu().float().contiguous()
    return stored


def load_folder(folder: str | os.PathLike[str]) -> tuple[Transformer, Tokenizer]:
    """The model and the tokenizer of a folder, ready to generate, on the CPU.

    int8 matrices become float32 again. Raises FolderError that names the file and what
    does not fit.
    """
    folder = Path(folder)
    contents = read_config(folder)
    try:
        config = ModelConfig(**contents["model"])
        model = Transformer(config)
    except (TypeError, ValueError) as fault:
        raise FolderError(f"{folder / 'config.json'}: {fault}") from fault
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    except (OSError, ValueError) as fault:
        raise FolderError(str(fault)) from fault
    if tokenizer.name != contents["tokenizer"]:
        raise FolderError(
            f"{folder / 'tokenizer.json'} is tokenizer {tokenizer.name:.12}, expected"
            f" {contents['tokenizer']:.12}, with which the model was saved"
        )
    stored = read_weights(folder / "model.safetensors", contents["sha256"])
    fill(model, stored, contents["weights"] == "int8", folder / "model.safetensors")
    return model, tokenizer


def read_config(folder: str | os.PathLike[str]) -> dict:
    """What config.json says. Raises FolderError for anything but a config of ours."""
    path = Path(folder) / "config.json"
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise FolderError(f"{path} cannot be read: {fault}") from fault
    found = contents.get("format") if isinstance(contents, dict) else contents
    if found != FORMAT:
        raise FolderError(f"{path} has the format {found!r:.40}, expected {FORMAT!r}")
    for name, kind in dict(model=dict, tokenizer=str, weights=str, sha256=str).items():
        if not isinstance(contents.get(name), kind):
            raise FolderError(f"{path} has no {name!r} that is a {kind.__name__}")
    if contents["weights"] not in KINDS:
        kinds = " or ".join(KINDS)
        raise FolderError(f"{path}: weights {contents['weights']!r}, expected {kinds}")
    return contents


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises FolderError if it is not what was saved."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise FolderError(f"{path} cannot be read: {fault}") from fault
    if digest(data) != sha256:
        raise FolderError(f"{path} is not the file that was saved: its sha256 differs")
    return load(data)


@torch.no_grad()
def fill(model: Transformer, stored: dict[str, Tensor], int8: bool, path: Path) -> None:
    """Set the weights of a model; raises FolderError naming all that do not fit."""
    wanted = stored_weights(model, int8)
    faults = [f"{name} is missing" for name in wanted.keys() - stored.keys()]
    faults += [f"{name} is unknown" for name in stored.keys() - wanted.keys()]
    for name in wanted.keys() & stored.keys():
        found, expected = described(stored[name]), described(wanted[name])
        if found != expected:
            faults.append(f"{name} is {found}, expected {expected}")
    if faults:
        raise FolderError(
            f"{path} does not fit its config: {'; '.join(sorted(faults))}"
        )
    for name, weights in model.state_dict().items():
        scales = stored.get(f"{name}.scales") if int8 else None
        numbers = stored[name]
        weights.copy_(numbers if scales is None else dequantise(numbers, scales))


def described(weights: Tensor) -> str:
    """The kind and shape of a tensor: "float32 (2, 3)"."""
    return f"{weights.dtype} {tuple(weights.shape)}".removeprefix("torch.")
