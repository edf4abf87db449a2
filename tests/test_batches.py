"""Batches: every document once an epoch, never from its middle, the same every time."""

import hashlib
import os
import random
import subprocess
import sys
import sysconfig
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cort33x_lib.text.batches import Batches, Tokens, encode_documents
from cort33x_lib.text.corpus import CorpusError, Document
from cort33x_lib.text.mixtures import Mixture, take_turns
from cort33x_lib.text.shards import open_shards
from cort33x_lib.text.token_files import HEAD, encode_to_file, verify
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


GOLDEN = {
    0: "c3d1dca7c92f9201",
    1: "562350cc1e856915",
    2: "c50281ef5879158e",
    3: "2489fc87c274d1c3",
    4: "3277de9b3eb7221c",
    5: "3f75d8b99c1f3e19",
    6: "6da15142bc27e02e",
}


@pytest.mark.parametrize("case", GOLDEN)
def test_batches_are_those_of_every_recorded_run(case: int) -> None:
    sizes, rows, length = CASES[case]
    batches, seen = Batches(corpus(sizes), rows, length, seed=case), hashlib.sha256()
    for step in (0, 1, 2, 7, 19, 300):
        for ids in batches[step]:
            seen.update(ids.numpy().tobytes())
    assert seen.hexdigest()[:16] == GOLDEN[case]


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


def some_file(folder: Path) -> Path:
    path = folder / "tokens"
    encode_documents(LETTERS, [Document("abc " * 50, "u", "o", "l")] * 3).save(path)
    return path


def test_every_changed_bit_is_found(tmp_path: Path) -> None:
    path, chance = some_file(tmp_path), random.Random(0)
    data = path.read_bytes()
    used = len(data[:HEAD].rstrip())
    places = [*range(used), *(chance.randrange(HEAD, len(data)) for _ in range(300))]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        expected = "damaged" if place >= HEAD else "damaged in its head|no cort33x-tok"
        with pytest.raises(ValueError, match=expected):
            Tokens.load(path, LETTERS)
            verify(path)
        if place < HEAD:
            with pytest.raises(ValueError, match="tokens is"):
                Tokens.load(path, LETTERS)


def test_a_file_that_was_cut_or_grew_is_refused_unread(tmp_path: Path) -> None:
    path = some_file(tmp_path)
    data = path.read_bytes()
    for content in (data[:-1], data + b"\x00", data[: len(data) // 2], data[:HEAD]):
        path.write_bytes(content)
        message = f"has {len(content)} bytes, expected {len(data)}: it was cut"
        with pytest.raises(ValueError, match=message):
            Tokens.load(path, LETTERS)
    for content in (b"", b"\n", b"{}\n\n", data[1:], b"\x00" * 2000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no cort33x-tokens-2 file"):
            Tokens.load(path, LETTERS)
    with pytest.raises(ValueError, match="damaged in its head"):
        path.write_bytes(data[:100])
        Tokens.load(path, LETTERS)
    with pytest.raises(FileNotFoundError):
        Tokens.load(tmp_path / "absent", LETTERS)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    encode_documents(LETTERS, real_documents()).save(tmp_path / "tokens")
    other = Tokenizer(((97, 98),))
    with pytest.raises(ValueError, match=f"{LETTERS.name}, expected {other.name}"):
        Tokens.load(tmp_path / "tokens", other)


def test_a_loaded_file_stays_on_the_disk(tmp_path: Path) -> None:
    sizes = np.full(10_000, 200)
    ids = np.full(sizes.sum(), STOP, np.uint16)
    starts = np.concatenate([[0], sizes.cumsum()])
    Tokens(ids, starts, sizes - 1, LETTERS.name).save(tmp_path / "tokens")
    assert (tmp_path / "tokens").stat().st_size > 4_000_000
    tracemalloc.start()
    tokens = Tokens.load(tmp_path / "tokens", LETTERS)
    Batches(tokens, 4, 256, seed=0)[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_500_000  # the order of two epochs; the ids alone are 4 MB
    with pytest.raises(ValueError, match="read-only"):
        tokens.ids[0] = 1


def many_documents(count: int) -> list[Document]:
    chance = random.Random(count)
    texts = ["".join(chance.choices("ab é\n", k=chance.randrange(3000)))]
    texts += ["c d" * chance.randrange(60_000) for _ in range(count - 1)]
    return [Document(text, "u", "o", "l") for text in texts]


@pytest.mark.parametrize("count", [0, 1, 2, 15])
def test_encoding_to_a_file_gives_the_same_bytes_for_every_number_of_workers(
    tmp_path: Path, count: int
) -> None:
    documents = many_documents(count)[:count]
    encode_documents(LETTERS, documents).save(tmp_path / "expected")
    for workers in (None, 1, 2, 5):
        tokens = encode_to_file(LETTERS, iter(documents), tmp_path / "file", workers)
        assert len(tokens) == count
        found = (tmp_path / "file").read_bytes()
        assert found == (tmp_path / "expected").read_bytes()
    verify(tmp_path / "file")


def test_a_file_with_room_for_large_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tuple((a, b) for a in range(256) for b in range(256)))
    tokens = encode_to_file(tokenizer, real_documents(), tmp_path / "file")
    assert tokens.ids.dtype == np.uint32 and tokens.ids.max() == 65792
    for number, document in enumerate(real_documents()):
        assert tokenizer.decode(tokens.document(number)[:-1]) == document.text


def test_few_documents_are_in_memory_at_a_time(tmp_path: Path) -> None:
    alive, most = weakref.WeakSet(), 0

    def stream() -> Iterator[Document]:
        nonlocal most
        for number in range(30):
            document = Document(f"{number}" + "a" * (1 << 18), "u", "o", "l")
            alive.add(document)
            most = max(most, len(alive))
            yield document

    assert len(encode_to_file(LETTERS, stream(), tmp_path / "file", workers=2)) == 30
    assert most <= 2 * 2 + 3


def test_a_stream_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def stream() -> Iterator[Document]:
        yield from many_documents(9)
        raise CorpusError("the source is gone")

    with pytest.raises(CorpusError, match="the source is gone"):
        encode_to_file(LETTERS, stream(), tmp_path / "file")
    with pytest.raises(ValueError, match="expected '<.end.>' in them"):
        encode_to_file(Tokenizer((), ("x",)), [], tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_full_disk_is_an_error_with_the_path(small_disk: Path) -> None:
    (small_disk / "file").write_bytes(b"old")
    documents = [Document("a" * 300_000, "u", "o", "l")] * 9
    with pytest.raises(OSError, match="No space left") as caught:
        encode_to_file(LETTERS, documents, small_disk / "file")
    assert caught.value.filename == str(small_disk / "file")
    assert [path.name for path in small_disk.iterdir()] == ["file"]
    assert (small_disk / "file").read_bytes() == b"old"


WRITER = """
import itertools, sys
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.token_files import encode_to_file
from cort33x_lib.text.tokenizer import Tokenizer
print("ready", flush=True)
text = Document("a b " * 100_000, "u", "o", "l")
encode_to_file(Tokenizer(()), itertools.repeat(text), sys.argv[1])
"""


def test_a_killed_process_leaves_no_half_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    for pause in (0.05, 1.0):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
        with subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            process.stdout.readline()
            time.sleep(pause)
            process.kill()
        assert not (tmp_path / "file").exists()
    names = os.listdir(tmp_path)
    assert names and all(name.endswith(".tmp") for name in names)


PARTS = [[1], [1, 1], [7, 3], [1, 1000], [1] * 7, [5, 3, 2], [997, 2, 1], [70, 30]]


def test_turns_keep_every_share_to_within_one() -> None:
    chance = random.Random(5)
    drawn = [
        [chance.randrange(1, 60) for _ in range(chance.randrange(1, 9))]
        for _ in range(150)
    ]
    worst = 0.0
    for parts in PARTS + drawn:
        cycle, taken = sum(parts), np.zeros(len(parts), int)
        for turn, place in enumerate(take_turns(parts), start=1):
            taken[place] += 1
            off = np.abs(taken * cycle - np.array(parts) * turn)
            worst = max(worst, off.max() / cycle)
        assert taken.tolist() == parts
    assert worst < 1
    print(f"{len(PARTS + drawn)} mixtures, at worst {worst:.3f} rows off")


def three_sources() -> dict[str, Tokens]:
    sizes = [random_sizes(seed, 40 + seed, 30) for seed in range(3)]
    return dict(zip("abc", map(corpus, sizes), strict=True))


def test_a_mixture_gives_each_source_its_share_in_its_own_order() -> None:
    mixture = Mixture(three_sources(), {"a": 5, "b": 3, "c": 2}, 4, 16, seed=3)
    turns, given = take_turns([5, 3, 2]), dict.fromkeys("abc", 0)
    for step in range(60):
        assert mixture.counters(step) == given
        inputs, targets = mixture[step]
        assert inputs.shape == targets.shape == (4, 16)
        for row in range(4):
            name = "abc"[turns[(4 * step + row) % 10]]
            expected = mixture.sources[name].row(given[name])
            assert np.array_equal(inputs[row], expected[:-1])
            assert np.array_equal(targets[row], expected[1:])
            given[name] += 1
    assert given == {"a": 120, "b": 72, "c": 48}
    assert mixture.counters(10**9) == {"a": 2 * 10**9, "b": 12 * 10**8, "c": 8 * 10**8}


def test_a_mixed_batch_depends_on_seed_and_step_alone() -> None:
    parts = {"a": 7, "b": 1, "c": 4}
    run = [Mixture(three_sources(), parts, 3, 20, seed=1)[step] for step in range(50)]
    asked = Mixture(three_sources(), parts, 3, 20, seed=1)
    for step in (49, 0, 17, 17, 48, 3):
        for mine, other in zip(asked[step], run[step], strict=True):
            assert torch.equal(mine, other)
    other_seed = Mixture(three_sources(), parts, 3, 20, seed=2)
    assert not torch.equal(other_seed[0][0], run[0][0])


def test_a_source_keeps_its_order_whatever_is_mixed_in() -> None:
    sources = three_sources()
    whole = Mixture(sources, {"a": 5, "b": 3, "c": 2}, 4, 16, seed=3)
    alone = Mixture({"b": sources["b"]}, {"b": 9}, 2, 16, seed=3)
    for number in range(100):
        mine, other = whole.sources["b"].row(number), alone.sources["b"].row(number)
        assert np.array_equal(mine, other)


def test_equal_shares_are_equal_mixtures() -> None:
    sources = three_sources()
    small = Mixture(sources, {"a": 7, "b": 2, "c": 1}, 4, 16, seed=0)
    large = Mixture(sources, {"a": 700, "b": 200, "c": 100}, 4, 16, seed=0)
    for step in range(30):
        assert torch.equal(small[step][0], large[step][0])


def test_mixtures_that_cannot_be_are_refused() -> None:
    sources = three_sources()
    refused = [{}, {"a": 1}, {"a": 1, "b": 1, "c": 0}, {"a": 1, "b": 1, "c": 0.5}]
    for parts in [*refused, {"a": 1, "b": 1, "c": 1, "d": 1}]:
        with pytest.raises(ValueError, match="expected a whole number from 1 for each"):
            Mixture(sources, parts, 4, 16, seed=0)
    other = encode_documents(LETTERS, real_documents())
    with pytest.raises(ValueError, match="ids of 2 tokenizers"):
        Mixture({"a": sources["a"], "b": other}, {"a": 1, "b": 1}, 4, 16, seed=0)
    with pytest.raises(ValueError, match="step -1"):
        Mixture({"b": other}, {"b": 1}, 4, 16, seed=0)[-1]


def test_shards_are_one_corpus(tmp_path):
    """Files of different sizes, an empty one among them, put end to end."""
    documents = [
        Document("ab" * n, f"unit {n}", "here", "CC0-1.0")
        for n in random_sizes(3, 60, 40)
    ]
    cuts = [0, 1, 1, 25, 59, 60]
    paths = []
    for number, (first, last) in enumerate(pairwise(cuts)):
        paths.append(tmp_path / f"{number}.tokens")
        encode_to_file(LETTERS, documents[first:last], paths[-1])
    whole, sharded = encode_documents(LETTERS, documents), open_shards(paths, LETTERS)
    assert len(sharded) == 60 and sharded.end == whole.end
    for number in range(60):
        assert np.array_equal(sharded.document(number), whole.document(number))
    one, other = (rows_of(Batches(each, 3, 64, 0), 30) for each in (whole, sharded))
    assert np.array_equal(one, other)
    sharded.save(tmp_path / "joined")
    whole.save(tmp_path / "whole")
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not any(ids.flags.owndata for ids in sharded.ids.shards)


def test_shards_that_are_no_corpus_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no token files: expected one or more"):
        open_shards([], LETTERS)
    documents = [Document("abc", "u", "o", "CC0-1.0")] * 2
    for name in "ab":
        encode_to_file(LETTERS, documents, tmp_path / name)
    sharded = open_shards([tmp_path / "a", tmp_path / "b"], LETTERS)
    with pytest.raises(IndexError, match="ids 6 to 10: expected all in one file"):
        sharded.ids[6:10]
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-1])
    with pytest.raises(ValueError, match="b has .* bytes, expected"):
        open_shards([tmp_path / "a", tmp_path / "b"], LETTERS)
