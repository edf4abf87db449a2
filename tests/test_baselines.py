"""Baselines: proper distributions, an independent count, bytes kept, honest noise."""

import random
from collections import defaultdict
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest

from cort33x_lib.lab.baselines import baseline_ladder, count_ngrams
from cort33x_lib.lab.evaluation import Evaluation, unigram
from cort33x_lib.lab.uncertainty import (
    detectable_difference,
    score_difference,
    score_interval,
)
from cort33x_lib.text.batches import Tokens, encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer

BYTES = Tokenizer(())
HOSTILE = [
    "",
    "\ufeffa BOM, then CRLF\r\n\r\n\ttabs\x00nul\x7f",
    "e\u0301 \u1100\u1161\u11a8 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb",
    "\u202eright to left\u202c \u0645\u0631\u062d\u0628\u0627 \ufffd \uffff \U0010ffff",
    "<|end|><|end|> <|user|> \\u0000 &lt;b&gt; {{x}} ${y}",
    "aaaaaaaaaa" * 500 + " " * 700 + "\n" * 300,
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002" * 40,
    "".join(chr(code) for code in range(0x20, 0x3000)),
]


def tokens_of(texts: list[str], tokenizer: Tokenizer = BYTES) -> Tokens:
    return encode_documents(tokenizer, [Document(t, "u", "o", "l") for t in texts])


def small_tokens(seed: int, documents: int, V: int) -> Tokens:
    """Random documents over a small vocabulary, its last id the end."""
    chance = random.Random(seed)
    texts = [
        [min(int(chance.expovariate(0.4)), V - 2) for _ in range(chance.randrange(9))]
        for _ in range(documents)
    ]
    ids = [id for text in texts for id in [*text, V - 1]]
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    nbytes = np.array([len(text) for text in texts])
    return Tokens(np.array(ids, np.uint16), starts, nbytes, "by hand")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_context_has_probabilities_that_sum_to_one(order: int) -> None:
    V = 7
    counted = count_ngrams(small_tokens(order, 60, V), V, order)
    every = np.arange(V**order)
    probabilities = counted.probability(every).reshape(-1, V)  # (contexts, V)
    assert len(probabilities) == V ** (order - 1)
    assert probabilities.min() > 0
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)


def test_contexts_of_real_text_sum_to_one() -> None:
    texts = [story.text for story in World.load().stories("train", 40)]
    tokenizer = train_tokenizer(texts, 400)
    counted = count_ngrams(tokens_of(texts, tokenizer), 400, 3)
    for level in counted.levels:
        for context in level.contexts:
            pair = [int(context) // 400, int(context) % 400]
            assert counted.after(pair).sum() == pytest.approx(1, rel=1e-12)
    print(f"{sum(len(level.contexts) for level in counted.levels)} contexts")


def plain_probability(documents, V, order, context, token):
    """Interpolated Kneser-Ney from dictionaries and the definition, token by token."""
    grams = defaultdict(int)
    for document in documents:
        padded = [V - 1] * (order - 1) + document
        for place in range(order - 1, len(padded)):
            grams[tuple(padded[place - order + 1 : place + 1])] += 1
    p, context = 1 / V, tuple(context)
    for length in range(1, order + 1):
        counts = grams
        for _ in range(order - length):
            shorter = defaultdict(int)
            for gram in counts:
                shorter[gram[1:]] += 1
            counts = shorter
        once = sum(count == 1 for count in counts.values())
        twice = sum(count == 2 for count in counts.values())
        discount = (once + 1) / (once + 2 * twice + 2)
        here = context[len(context) - length + 1 :]
        after = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == here}
        if after:
            total = sum(after.values())
            seen = max(after.get(token, 0) - discount, 0) / total
            p = seen + discount * len(after) / total * p
    return p


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_those_of_the_definition(order: int) -> None:
    V, training, held_out = 6, small_tokens(1, 25, 6), small_tokens(2, 12, 6)
    documents = [training.document(n).tolist() for n in range(len(training))]
    found = count_ngrams(training, V, order).surprise(held_out)
    expected = []
    for number in range(len(held_out)):
        padded = [V - 1] * (order - 1) + held_out.document(number).tolist()
        for place in range(order - 1, len(padded)):
            context = padded[place - order + 1 : place]
            p = plain_probability(documents, V, order, context, padded[place])
            expected.append(-log(p))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_ladder_goes_down_to_the_floor_and_not_under_it() -> None:
    world = World.load()
    training = [story.text for story in world.stories("train", 600)]
    held_out = list(world.stories("validation", 150))
    tokenizer = train_tokenizer(training, 600)
    examined = encode_documents(tokenizer, held_out)
    rungs = baseline_ladder(tokens_of(training, tokenizer), examined, 600)
    assert list(rungs) == ["uniform", "unigram", "bigram", "trigram"]
    floor = sum(story.nll for story in held_out)
    nats = [rung.nats for rung in rungs.values()]
    assert nats == sorted(nats, reverse=True) and nats[-1] > floor
    assert rungs["uniform"].nats_per_token == pytest.approx(log(600))
    assert rungs["unigram"] == unigram(tokens_of(training, tokenizer), examined, 600)
    for rung in rungs.values():
        assert rung.tokens == len(examined.ids)
        assert rung.nbytes == sum(story.nbytes for story in held_out)
        assert rung.by_document[:, 0].sum() == pytest.approx(rung.nats)
        assert rung.by_document[:, 1].tolist() == [story.nbytes for story in held_out]


def test_what_cannot_be_counted_is_refused() -> None:
    tokens = tokens_of(["abc"])
    for order, vocabulary in ((0, 257), (4, 1 << 16)):
        with pytest.raises(ValueError, match="below 2\\*\\*63"):
            count_ngrams(tokens, vocabulary, order)
    with pytest.raises(ValueError, match="1 ids: expected a context of 2"):
        count_ngrams(tokens, 257, 3).after([1])
    with pytest.raises(ValueError, match="held-out ids of tokenizer other"):
        baseline_ladder(tokens, replace(tokens, tokenizer="other"), 257)


@pytest.mark.parametrize("vocabulary", [257, 300, 700])
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_file(
    tmp_path: Path, vocabulary: int
) -> None:
    stories = [story.text for story in World.load().stories("train", 30)]
    tokenizer = train_tokenizer(HOSTILE + stories, vocabulary)
    by_letters = 0
    for number, text in enumerate(HOSTILE):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(text.encode("utf-8"))
        tokens = tokens_of([path.read_bytes().decode("utf-8")], tokenizer)
        ids = tokens.document(0)[:-1]
        size = sum(len(tokenizer.token_bytes(int(id))) for id in ids)
        assert size == path.stat().st_size == tokens.nbytes[0]
        decoded = [tokenizer.decode([id]) for id in ids]
        by_letters += sum(len(part.encode("utf-8")) for part in decoded) != size
    assert by_letters >= 3  # counting decoded tokens, U+FFFD and all, is wrong here


def test_bytes_that_are_no_text_are_conserved_too() -> None:
    data = random.Random(1).randbytes(20_000)
    tokenizer = train_tokenizer([text for text in HOSTILE], 400)
    ids = tokenizer.encode_bytes(data)
    assert sum(len(tokenizer.token_bytes(int(id))) for id in ids) == len(data)


def scored(bits: np.ndarray, nbytes: np.ndarray) -> Evaluation:
    nats = bits * log(2)
    columns = np.column_stack([nats, nbytes])
    return Evaluation(float(nats.sum()), 1, int(nbytes.sum()), columns)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for number in range(300):
        nbytes = random.integers(100, 2000, 120)
        bits = nbytes * random.gamma(9, 2 / 9, 120)  # 2 bits a byte on average
        low, high = score_interval(scored(bits, nbytes), draws=200, seed=number)
        held += low <= 2 <= high
    assert 0.90 <= held / 300 <= 0.98
    print(f"{held} of 300 intervals of 95% hold the truth")


def test_a_paired_difference_sees_what_two_intervals_do_not() -> None:
    random = np.random.default_rng(1)
    nbytes = random.integers(100, 2000, 200)
    bits = nbytes * random.gamma(9, 2 / 9, 200)
    one = scored(bits + 0.01 * nbytes * random.normal(1, 1, 200), nbytes)
    other = scored(bits, nbytes)
    found, low, high = score_difference(one, other)
    assert low < found < high and low > 0
    assert found == pytest.approx(one.bits_per_byte - other.bits_per_byte)
    mine, its = score_interval(one), score_interval(other)
    assert mine[0] < its[1], "the two intervals overlap"


def test_the_detectable_difference_is_detected_four_times_of_five() -> None:
    random = np.random.default_rng(2)

    def pair(documents: int, difference: float) -> tuple[Evaluation, Evaluation]:
        nbytes = random.integers(100, 2000, documents)
        bits = nbytes * random.gamma(9, 2 / 9, documents)
        more = nbytes * random.normal(difference, 0.05, documents)
        return scored(bits + more, nbytes), scored(bits, nbytes)

    smallest = detectable_difference(*pair(20_000, 0.0), documents=150)
    seen = 0
    for number in range(300):
        _, low, _ = score_difference(*pair(150, smallest), draws=200, seed=number)
        seen += low > 0
    assert 0.72 <= seen / 300 <= 0.88
    halved = detectable_difference(*pair(20_000, 0.0), documents=600)
    assert halved == pytest.approx(smallest / 2, rel=0.05)
    print(f"{seen} of 300 differences of {smallest:.4f} bits per byte were seen")


def test_evaluations_that_cannot_be_compared_are_refused() -> None:
    one = scored(np.ones(3), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="expected evaluations of the same"):
        score_difference(one, scored(np.ones(2), np.array([1, 2])))
    with pytest.raises(ValueError, match="that keep nats by document"):
        score_interval(Evaluation(1.0, 1, 1))
