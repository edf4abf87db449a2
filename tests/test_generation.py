"""Generation: the cache changes nothing, draws follow the odds, text stays whole."""

from collections import Counter
from dataclasses import replace
from math import exp

import numpy as np
import pytest
import torch

from cort33x_lib.lab.generation import Sampling, generate, generate_batch, stream
from cort33x_lib.lab.repetition import Copies, distinct, grams, repeated
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.mixers import MIXERS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.batches import encode_documents
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.tokenizer import Tokenizer

BYTES = Tokenizer(())
CONFIG = replace(CONFIGS["tiny"], vocabulary=BYTES.vocabulary)
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]])
UNSEEN = torch.zeros(1, 5, dtype=torch.bool)
PATTERNS = [*MIXERS, "".join(MIXERS), "".join(reversed(MIXERS))]


def random_model(pattern="WF", seed=0):
    """A model sure enough of itself to be worth sampling, in double precision."""
    model = Transformer(replace(CONFIG, pattern=pattern)).double()
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        if name == "residual":
            weights.data.fill_(0.1)  # so that the context counts more than the last id
        elif weights.dim() == 2:
            weights.data.normal_(0, 0.3, generator=generator)
    return model


def drawn_from(logits=LOGITS, seen=UNSEEN, **options):
    return Sampling(**options).probabilities(logits, seen)[0]


@torch.inference_mode()
def read_again(model, ids):
    """The likeliest next id, all being read from the start."""
    return int(model(torch.tensor([ids]))[0][0, -1].argmax())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_with_a_cache_is_greedy_without_500_tokens_past_the_window(pattern):
    seed = 4 if pattern == "SLDWF" else 0  # with 0 it writes two different ids
    model, ids = random_model(pattern, seed), [5, 6, 7]
    count = CONFIG.window + 500
    cached = list(generate(model, ids, count, temperature=0))
    with torch.inference_mode():
        whole = model(torch.tensor([ids + cached]))[0][0].argmax(-1).tolist()
    assert whole[2:-1] == cached
    for number in [*range(30), 255, 256, 400, count - 1]:
        assert read_again(model, ids + cached[:number]) == cached[number]
    assert len(set(cached)) > 10


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_row_of_a_batch_is_what_it_would_be_alone(pattern):
    model = random_model(pattern)
    prompts = [[1], list(range(30)), [9, 8, 7], list(range(50, 58))]
    options = dict(temperature=0.8, top_p=0.95, repetition_penalty=1.2)
    rows = list(
        zip(*generate_batch(model, prompts, 40, seed=5, **options), strict=True)
    )
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        alone = list(generate(model, prompt, 40, seed=5 + number, **options))
        assert list(row) == alone


def test_rows_of_a_batch_end_on_their_own():
    model, prompts = random_model(), [[1], [2], [3]]
    whole = list(zip(*generate_batch(model, prompts, 60, seed=1), strict=True))
    stop = {whole[0][4], whole[1][11]}
    rows = list(
        zip(*generate_batch(model, prompts, 60, seed=1, stop=stop), strict=True)
    )
    for row, full in zip(rows, whole, strict=True):
        end = next((n for n, id in enumerate(full) if id in stop), 60)
        assert list(row[:end]) == list(full[:end])
        assert set(row[end:]) <= {None}
    longest = max(sum(id is not None for id in row) for row in rows)
    assert len(rows[0]) == longest


def test_generation_is_seeded_and_stops():
    model = random_model()
    first = list(generate(model, [1], 30, seed=3))
    assert list(generate(model, [1], 30, seed=3)) == first
    assert list(generate(model, [1], 30, seed=4)) != first
    for stop in (first[5], [first[5]], {first[5], first[9]}):
        ends = {stop} if isinstance(stop, int) else set(stop)
        end = next(n for n, id in enumerate(first) if id in ends)
        assert list(generate(model, [1], 30, seed=3, stop=stop)) == first[:end]
    assert list(generate(model, [1], 0)) == []
    before = torch.get_rng_state()
    list(generate(model, [1], 5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt is empty"),
        ([1], {"temperature": -1}, "temperature is -1, expected 0 or more"),
        ([1], {"temperature": float("nan")}, "temperature is nan"),
        ([1], {"top_k": 0}, "top_k is 0"),
        ([1], {"top_p": 1.5}, "top_p is 1.5"),
        ([1], {"top_p": 0}, "top_p is 0"),
        ([1], {"min_p": -0.1}, "min_p is -0.1"),
        ([1], {"repetition_penalty": 0}, "repetition_penalty is 0"),
    ],
)
def test_impossible_wishes_are_refused(prompt, options, message):
    with pytest.raises(ValueError, match=message):
        next(generate(random_model(), prompt, 1, **options))


def test_temperature_divides_the_logits():
    torch.testing.assert_close(drawn_from(temperature=0.5), (LOGITS[0] * 2).softmax(0))
    for cold in (0, 1e-45, 1e-3):
        assert drawn_from(temperature=cold).tolist() == [1, 0, 0, 0, 0]
    assert drawn_from(temperature=1e30).tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize("k", [1, 2, 5, 50])
def test_top_k_keeps_the_k_likeliest(k):
    kept = drawn_from(top_k=k)
    assert (kept > 0).sum() == min(k, 5)
    expected = [exp(x) for x in LOGITS[0, :k].tolist()]
    assert kept[0] == pytest.approx(expected[0] / sum(expected))


@pytest.mark.parametrize(("p", "count"), [(0.01, 1), (0.6, 1), (0.7, 2), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_p(p, count):
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    kept = drawn_from(LOGITS[:, shuffled], top_p=p)
    expected = LOGITS[0].softmax(0)[:count]
    assert sorted(kept[kept > 0].tolist(), reverse=True) == pytest.approx(
        (expected / expected.sum()).tolist()
    )
    assert kept[shuffled.argsort()][:count].min() > 0


@pytest.mark.parametrize(
    ("p", "count"), [(0, 5), (0.001, 4), (0.1, 3), (0.3, 2), (1, 1)]
)
def test_min_p_keeps_a_share_of_the_likeliest(p, count):
    kept = drawn_from(min_p=p)
    assert (kept > 0).tolist() == [True] * count + [False] * (5 - count)
    assert kept.sum() == pytest.approx(1)


def test_a_penalty_makes_what_was_read_less_likely_whatever_its_sign():
    seen = torch.tensor([[True, False, True, True, False]])
    expected = torch.tensor([1.0, 1.0, 0.0, -2.0, -9.0]).softmax(0)
    found = drawn_from(seen=seen, repetition_penalty=2.0)
    torch.testing.assert_close(found, expected)
    assert torch.equal(drawn_from(seen=seen), drawn_from())


def test_a_penalty_counts_prompt_and_sample():
    model, prompt = random_model(), [4, 4, 9]
    ids = list(generate(model, prompt, 80, temperature=0, repetition_penalty=1e6))
    positive = len(set(ids))
    assert positive > len(set(generate(model, prompt, 80, temperature=0)))
    assert not {4, 9} & set(ids[:20]) and len(set(ids[:20])) == 20


def test_generation_draws_what_the_model_expects():
    """Frequencies of 2,000 first tokens against the model's own probabilities."""
    model = random_model()
    drawn = Counter()
    for seed in range(0, 2000, 500):
        rows = generate_batch(model, [[7, 8]] * 500, 1, top_k=4, seed=seed)
        drawn.update(next(rows))
    with torch.inference_mode():
        logits = model(torch.tensor([[7, 8]]))[0][:, -1]
    none = torch.zeros_like(logits, dtype=torch.bool)
    expected = Sampling(top_k=4).probabilities(logits, none)[0]
    assert set(drawn) == set(expected.nonzero().flatten().tolist())
    for id, count in drawn.items():
        p = expected[id].item()
        assert abs(count - 2000 * p) < 5 * (2000 * p * (1 - p)) ** 0.5 + 1


def test_streamed_text_has_no_broken_characters():
    """A model that repeats what it read two tokens ago writes a snowman for ever."""
    model, snowman = Transformer(replace(CONFIG, pattern="F")), "☃".encode()
    model.embedding.weight.data.zero_()
    for place, byte in enumerate(snowman):
        after = snowman[(place + 1) % 3]
        model.embedding.weight.data[byte, place] = 1
        model.embedding.weight.data[after, (place + 1) % 3] = 1
    with torch.no_grad():
        for place in range(3):  # the feed-forward layer says: after this comes that
            block = model.blocks[0].feed_forward
            block.widen.weight[place] = torch.eye(32)[place]
            block.narrow.weight[(place + 1) % 3, place] = 9
    parts = list(stream(model, BYTES, "☃", 31, temperature=0))
    assert parts == ["☃"] * 10  # the 31st byte, without its others, is left out


def test_a_stream_is_the_text_of_what_was_generated():
    model = random_model()
    end = BYTES.specials["<|end|>"]
    ids = generate(model, [end, *b"abc"], 50, stop=end, seed=2, top_k=20)
    expected = BYTES.decode(ids)
    text = "".join(stream(model, BYTES, "abc", 50, seed=2, top_k=20))
    assert expected.startswith(text) and set(expected[len(text) :]) <= {"\ufffd"}


def tokens_of(*texts):
    return encode_documents(BYTES, [Document(t, t, "here", "MIT") for t in texts])


def naive_grams(ids, n):
    return [tuple(ids[place : place + n]) for place in range(len(ids) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_measures_equal_counting_by_hand(n):
    chance = np.random.default_rng(n)
    samples = [chance.integers(0, 4, size).tolist() for size in (0, 1, 5, 40, 200)]
    by_hand = [naive_grams(ids, n) for ids in samples]
    total = sum(map(len, by_hand))
    assert distinct(samples, n) == len(set().union(*by_hand)) / total
    assert repeated(samples, n) == 1 - sum(len(set(one)) for one in by_hand) / total
    numbers = np.concatenate([grams(ids, n) for ids in samples])
    assert len(np.unique(numbers)) == len(set().union(*by_hand))


def test_a_loop_repeats_and_a_list_does_not():
    assert repeated([[1, 2, 3] * 100], 4) > 0.98
    assert repeated([list(range(300))], 4) == 0
    assert distinct([list(range(300))] * 4, 2) == 0.25
    assert distinct([[1]], 2) == 1 and repeated([[1]], 2) == 0


@pytest.mark.parametrize("n", [1, 3, 5])
def test_copied_tokens_equal_a_search_by_hand(n):
    training = tokens_of("the cat sat on the mat", "a dog ran away")
    known = set(naive_grams(training.ids.tolist(), n))
    sample = BYTES.encode("the dog sat on a mat: away!")
    expected = np.zeros(len(sample), dtype=bool)
    for place, gram in enumerate(naive_grams(sample, n)):
        if gram in known:
            expected[place : place + n] = True
    copies = Copies(training, n)
    assert copies.copied(sample).tolist() == expected.tolist()
    assert copies.share([sample, []]) == expected.mean()
    assert copies.share([BYTES.encode("the cat sat on the mat")]) == 1
    with pytest.raises(ValueError, match="n is 99, expected 1 to 38"):
        Copies(training, 99)
