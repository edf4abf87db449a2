"""A saved model is the model; a folder that does not fit says what does not."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cort33x_lib.files import sha256_of
from cort33x_lib.lab.folder import FolderError, load_folder, save_folder
from cort33x_lib.lab.generation import generate
from cort33x_lib.model import int8
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.int8 import dequantise, matrix_names, quantise
from cort33x_lib.model.mixers import MIXERS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer
from run import ROOT

BYTES = Tokenizer(())
CONFIG = replace(CONFIGS["tiny"], vocabulary=300)
IDS = torch.arange(40).view(2, 20)


def random_model(seed=0, pattern="WF"):
    model = Transformer(replace(CONFIG, pattern=pattern))
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture
def saved(tmp_path):
    save_folder(tmp_path / "model", random_model(), BYTES)
    return tmp_path / "model"


def change_config(folder, **changes):
    path = folder / "config.json"
    contents = json.loads(path.read_text())
    for name, value in changes.items():
        if name in contents["model"]:
            contents["model"][name] = value
        else:
            contents[name] = value
    path.write_text(json.dumps(contents))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    change_config(folder, sha256=sha256_of(path))


def test_what_is_loaded_is_what_was_saved(tmp_path):
    model = random_model()
    tokenizer = train_tokenizer(["to be or not to be, that is the question"], 264)
    folder = save_folder(tmp_path / "a" / "model", model, tokenizer)
    loaded, its_tokenizer = load_folder(str(folder))
    assert its_tokenizer == tokenizer and loaded.config == model.config
    for name, weights in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights), name
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_int8_is_off_by_half_a_scale_at_most_and_a_quarter_of_the_size(tmp_path):
    model = random_model()
    folder = save_folder(tmp_path / "int8", model, BYTES, int8=True)
    loaded, _ = load_folder(folder)
    matrices = matrix_names(model)
    assert "embedding.weight" in matrices and len(matrices) == 1 + 4 * 2
    for name, weights in model.state_dict().items():
        error = (loaded.state_dict()[name] - weights).abs()
        if name in matrices:
            half = weights.abs().amax(1, keepdim=True) / 254
            assert (error <= half * 1.0001).all() and error.max() > 0
        else:
            assert error.max() == 0, name
    whole = save_folder(tmp_path / "whole", model, BYTES)
    size = [(path / "model.safetensors").stat().st_size for path in (folder, whole)]
    assert size[0] < 0.4 * size[1]
    again = save_folder(tmp_path / "again", loaded, BYTES, int8=True)
    data = [(path / "model.safetensors").read_bytes() for path in (folder, again)]
    assert data[0] == data[1]


def test_quantising_keeps_zero_rows_and_the_largest_weight_of_each_row():
    weights = torch.tensor([[0.0, 0.0], [-2.0, 1.0], [1e-30, 1e-31], [5.0, 5.0]])
    numbers, scales = quantise(weights)
    assert numbers.tolist() == [[0, 0], [-127, 64], [127, 13], [127, 127]]
    back = dequantise(numbers, scales)
    assert torch.isfinite(back).all() and back[0].tolist() == [0, 0]
    torch.testing.assert_close(back.abs().amax(1), weights.abs().amax(1))


def test_a_fresh_process_loads_it_in_five_lines(saved):
    program = (
        "from cort33x_lib.lab.folder import load_folder\n"
        "from cort33x_lib.lab.generation import generate\n"
        f"model, tokenizer = load_folder({str(saved)!r})\n"
        "ids = generate(model, tokenizer.encode('to be'), 20, temperature=0)\n"
        "print(list(ids))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    prompt = BYTES.encode("to be")
    expected = list(generate(random_model(), prompt, 20, temperature=0))
    assert json.loads(answer.stdout) == expected


def test_saving_again_replaces_the_model(saved):
    save_folder(saved, random_model(1), BYTES, int8=True)
    loaded, _ = load_folder(saved)
    difference = loaded.embedding.weight - random_model(1).embedding.weight
    assert difference.abs().max() < 0.01


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path):
    model = Transformer(CONFIGS["tiny"])
    with pytest.raises(FolderError, match="257 ids, the model's vocabulary is 64"):
        save_folder(tmp_path / "model", model, BYTES)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: None,
        lambda data: b"",
        lambda data: data[:-3],
        lambda data: data[: len(data) // 2],
        lambda data: b"\x80" + data,
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
    ],
)
def test_damage_to_any_file_is_refused_by_its_name(saved, name, damage):
    path = saved / name
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(FolderError, match=name):
        load_folder(saved)


def test_one_flipped_bit_of_the_weights_is_found(saved):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    for place in (0, 40, len(data) // 2, len(data) - 1):
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(FolderError, match="not the file that was saved"):
            load_folder(saved)
        data[place] ^= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other-1"}, "config.json has the format 'other-1', expected"),
        ({"model": [1]}, "config.json has no 'model' that is a dict"),
        ({"sha256": None}, "config.json has no 'sha256' that is a str"),
        ({"weights": "int4"}, "weights 'int4', expected float32 or int8"),
        ({"model": {"heads": 1}}, "missing .* required"),
        ({"heads": 0}, "config.json: heads is 0"),
        ({"pattern": "W?"}, "config.json: pattern has the letter '\\?'"),
        ({"tokenizer": "0" * 64}, "tokenizer .*, expected 000000000000,"),
        (
            {"feed_forward": 65},
            r"blocks.0.feed_forward.widen.weight is float32 \(64, 32\), expected"
            r" float32 \(65, 32\)",
        ),
        ({"pattern": "WFF"}, "blocks.2.mixer.project_in.weight is missing"),
        ({"pattern": "W"}, "blocks.1.mixer.project_in.weight is unknown"),
        ({"weights": "int8"}, "embedding.weight is float32 .*, expected int8"),
    ],
)
def test_a_config_that_does_not_fit_says_what(saved, changes, message):
    change_config(saved, **changes)
    with pytest.raises(FolderError, match=message):
        load_folder(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.gain"), "norm.gain is missing"),
        (lambda t: t.update(extra=torch.ones(2)), "extra is unknown"),
        (
            lambda t: t.update({"norm.gain": torch.ones(31)}),
            r"norm.gain is float32 \(31,\), expected float32 \(32,\)",
        ),
        (
            lambda t: t.update({"norm.gain": torch.ones(32).half()}),
            r"norm.gain is float16 \(32,\), expected float32 \(32,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    change_weights(saved, change)
    with pytest.raises(FolderError, match=message):
        load_folder(saved)


@pytest.mark.parametrize("rows", [1, int8.FEW, int8.FEW + 1])
def test_int8_products_are_those_of_the_dequantised_weights(rows):
    matrix = int8.Int8Matrix(torch.linspace(-1, 2, 33 * 70).view(33, 70))
    x = torch.linspace(-3, 3, rows * 70).view(rows, 1, 70)
    expected = x.double() @ dequantise(matrix.numbers, matrix.scales).double().T
    torch.testing.assert_close(matrix(x).double(), expected, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_a_model_that_keeps_int8_is_the_model_of_the_int8_folder(tmp_path):
    model = random_model(pattern="".join(MIXERS))
    loaded, _ = load_folder(save_folder(tmp_path / "int8", model, BYTES, int8=True))
    small = int8.Int8Transformer(loaded)
    torch.testing.assert_close(small(IDS)[0], loaded(IDS)[0], rtol=1e-4, atol=1e-4)
    logits, states = small(IDS[:, :-1])
    logits, _ = small(IDS[:, -1:], states)
    torch.testing.assert_close(logits, loaded(IDS)[0][:, -1:], rtol=1e-4, atol=1e-4)
    prompt = list(range(9))
    ids = list(generate(small, prompt, 30, temperature=0))
    assert ids == list(generate(loaded, prompt, 30, temperature=0))
    size = sum(part.nbytes for part in [*small.parameters(), *small.buffers()])
    assert size < 0.4 * sum(part.nbytes for part in model.parameters())
