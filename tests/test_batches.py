"""Batches: every document once an epoch, never from its middle, the same every time."""

import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.tokenizer import END, Tokenizer, train_tokenizer

LETTERS = Tokenizer(())  # one id a byte, then the end token
STOP = LETTERS.specials[END]


def corpus(sizes: list[int]) -> Tokens:
    """Documents of the given numbers of ids; no id but the end occurs twice in all."""
    ids, number = [], 1000
    for size in sizes:
        ids += [*range(number, number + size - 1), STOP]
        number += size - 1
    starts = np.cumsum([0, *sizes])
    return Tokens(np.array(ids, np.uint32), starts, np.array(sizes) - 1, "by hand")


def rows_of(batches: Batches, steps: int) -> list[np.ndarray]:
    """All ids of each row, the last target too."""
    rows = []
    for step in range(steps):
        inputs, targets = batches[step]
        rows += list(torch.cat([inputs, targets[:, -1:]], dim=1).numpy())
    return rows


def random_sizes(seed: int, count: int, longest: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(2, longest) for _ in range(count)]


CASES = [
    (random_sizes(0, 200, 30), 4, 32),
    (random_sizes(1, 50, 300), 3, 64),
    (random_sizes(2, 7, 9), 8, 16),
    ([5, 70, 1, 3], 1, 8),
    ([2] * 9, 2, 16),
    ([40], 2, 7),
    ([2] * 200, 5, 5),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_targets_are_the_inputs_one_further(case: int) -> None:
    sizes, rows, length = CASES[case]
    batches = Batches(corpus(sizes), rows, length, seed=case)
    for step in range(20):
        inputs, targets = batches[step]
        assert inputs.shape == targets.shape == (rows, length)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


@pytest.mark.parametrize("case", range(len(CASES)))
def test_rows_are_whole_documents_and_each_starts_once_an_epoch(case: int) -> None:
    sizes, rows, length = CASES[case]
    tokens = corpus(sizes)
    documents = {int(tokens.document(n)[0]): n for n in range(len(tokens))}
    begun = []
    for row in rows_of(Batches(tokens, rows, length, seed=case), 60):
        assert row[0] == STOP
        place = 1
        while place < len(row):
            number = documents[int(row[place])]  # a KeyError is a row from the middle
            document = tokens.document(number)[: len(row) - place]
            assert np.array_equal(row[place : place + len(document)], document)
            begun.append(number)
            place += len(document)
    epochs = [
        begun[start : start + len(sizes)]
        for start in range(0, len(begun) - len(sizes) + 1, len(sizes))
    ]
    assert len(epochs) >= 3
    for epoch in epochs:
        assert sorted(epoch) == list(range(len(sizes)))
    if len(sizes) > 20:
        assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    tokens = corpus(random_sizes(3, 300, 60))
    expected = [Batches(tokens, 4, 48, seed=9)[step] for step in range(40)]
    batches = Batches(tokens, 4, 48, seed=9)
    steps = [step % 40 for step in range(0, 40 * 7, 7)]
    for step in [39, *steps, 0, 39]:
        for mine, other in zip(batches[step], expected[step], strict=True):
            assert torch.equal(mine, other)
    other_seed = Batches(tokens, 4, 48, seed=10)
    assert not torch.equal(other_seed[0][0], expected[0][0])


def test_asking_for_batches_touches_no_random_state() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    Batches(corpus([9, 9]), 2, 4, seed=0)[5]
    after = torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1]) and before[2] == after[2]


def test_resumed_in_a_far_epoch_it_goes_on_as_if_never_stopped() -> None:
    tokens = corpus(random_sizes(4, 20, 12))
    run = rows_of(Batches(tokens, 3, 10, seed=2), 400)
    for stop in (1, 57, 399):
        inputs, targets = Batches(tokens, 3, 10, seed=2)[stop]
        for row in range(3):
            assert np.array_equal(inputs[row], run[3 * stop + row][:-1])
            assert np.array_equal(targets[row], run[3 * stop + row][1:])


def test_changing_a_batch_changes_nothing_else() -> None:
    batches = Batches(corpus([30, 30]), 2, 8, seed=0)
    inputs, targets = batches[0]
    kept = inputs.clone(), targets.clone()
    inputs += 1
    assert torch.equal(targets, kept[1])
    assert torch.equal(batches[0][0], kept[0])


@pytest.mark.parametrize(
    ("sizes", "rows", "length", "seed", "message"),
    [
        ([4, 3], 2, 8, 0, "7 tokens in 2 documents: expected at least 8"),
        ([], 2, 8, 0, "0 tokens in 0 documents"),
        ([9], 0, 4, 0, "rows 0, length 4, seed 0"),
        ([9], 1, 0, 0, "rows 1, length 0, seed 0"),
        ([9], 1, 4, -1, "rows 1, length 4, seed -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    sizes: list[int], rows: int, length: int, seed: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(corpus(sizes), rows, length, seed)


def test_a_step_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="step -1"):
        Batches(corpus([9]), 1, 4, 0)[-1]


def test_the_smallest_corpus_fills_one_row() -> None:
    inputs, targets = Batches(corpus([8]), 3, 8, 0)[10]
    assert inputs.tolist() == [[STOP, *range(1000, 1007)]] * 3
    assert targets[0, -1] == STOP


def real_documents() -> list[Document]:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / name for name in ("random.py", "bisect.py", "enum.py")]
    texts = [path.read_text(encoding="utf-8") for path in paths] + ["", f"é{END}👍"]
    return [Document(text, f"unit {n}", "here", "PSF") for n, text in enumerate(texts)]


def test_encoded_documents_keep_their_order_and_their_bytes() -> None:
    documents = real_documents()
    tokenizer = train_tokenizer([document.text for document in documents], 600)
    tokens = encode_documents(tokenizer, iter(documents))
    assert len(tokens) == len(documents) and tokens.ids.dtype == np.uint16
    assert tokens.tokenizer == tokenizer.name
    end = tokenizer.specials[END]
    for number, document in enumerate(documents):
        ids = tokens.document(number)
        assert tokenizer.decode(ids[:-1]) == document.text
        assert ids[-1] == end and end not in ids[:-1]
        assert tokens.nbytes[number] == len(document.text.encode("utf-8"))


def test_ids_above_65535_have_room() -> None:
    pairs = [(left, right) for left in range(256) for right in range(256)]
    tokenizer = Tokenizer(tuple(pairs))
    tokens = encode_documents(tokenizer, [Document("\x00é", "u", "o", "l")])
    assert tokens.ids.dtype == np.uint32
    assert tokens.ids[-1] == tokenizer.vocabulary - 1 == 65792
    assert tokenizer.decode(tokens.ids[:-1]) == "\x00é"


def test_no_end_token_and_no_documents() -> None:
    with pytest.raises(ValueError, match="expected '<.end.>' in them"):
        encode_documents(Tokenizer((), ("<|stop|>",)), [])
    assert len(encode_documents(LETTERS, [])) == 0


def test_tokens_that_do_not_fit_together_are_refused() -> None:
    for starts, nbytes in (([0, 2], [1]), ([1, 3], [1]), ([0, 3], [1, 1]), ([], [])):
        with pytest.raises(ValueError, match="expected"):
            Tokens(np.arange(3), np.array(starts, int), np.array(nbytes, int), "x")


def test_saved_tokens_come_back(tmp_path: Path) -> None:
    for number, documents in enumerate((real_documents(), [])):
        tokens = encode_documents(LETTERS, documents)
        path = tmp_path / f"tokens {number}"
        tokens.save(path)
        loaded = Tokens.load(path, LETTERS)
        for name in ("ids", "starts", "nbytes"):
            assert np.array_equal(getattr(loaded, name), getattr(tokens, name))
            assert getattr(loaded, name).dtype == getattr(tokens, name).dtype
        assert loaded.tokenizer == LETTERS.name


def test_damaged_tokens_are_refused(tmp_path: Path) -> None:
    path, chance = tmp_path / "tokens", random.Random(0)
    encode_documents(LETTERS, [Document("abc " * 50, "u", "o", "l")] * 3).save(path)
    data = path.read_bytes()
    broken = [b"", b"\n", data[:-1], data + b"\x00", data[: len(data) // 2]]
    for _ in range(300):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        broken.append(bytes(changed))
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="tokens is damaged"):
            Tokens.load(path, LETTERS)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    encode_documents(LETTERS, real_documents()).save(tmp_path / "tokens")
    other = Tokenizer(((97, 98),))
    with pytest.raises(ValueError, match=f"{LETTERS.name}, expected {other.name}"):
        Tokens.load(tmp_path / "tokens", other)
