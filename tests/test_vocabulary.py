"""The vocabulary ladder, token health, and the recorded runs about vocabularies."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from cort33x_lib.model.config import ModelConfig
from cort33x_lib.model.cost import parameters
from cort33x_lib.text.corpus import manifest
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import END, Tokenizer, train_tokenizer
from cort33x_lib.text.vocabulary import (
    bytes_per_token,
    longest_tokens,
    token_health,
    truncated,
)

RUNS = Path(__file__).parents[1] / "data" / "runs"
RECORDED = sorted(RUNS.glob("vocabulary-*-seed-*"))


def sources(*names: str) -> list[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    return [(folder / f"{name}.py").read_text("utf-8") for name in names]


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [story.text for story in World.load().stories("train", 150)]


@pytest.mark.parametrize("pattern", ["prose-2", "code-1"])
def test_the_first_merges_are_the_smaller_tokenizer(stories, pattern):
    for texts in (stories, sources("random")):
        whole = train_tokenizer(texts, 900, pattern=pattern)
        for size in (257, 258, 300, 511, 899, 900):
            anew = train_tokenizer(texts, size, pattern=pattern)
            assert truncated(whole, size).merges == anew.merges
            assert truncated(whole, size).name == anew.name


def test_truncation_keeps_specials_and_pattern(stories):
    whole = train_tokenizer(stories, 400, specials=("<a>", END), pattern="code-1")
    small = truncated(whole, 258)
    assert (small.merges, small.special_names) == ((), ("<a>", END))
    assert small.pattern == "code-1"
    for size in (257, 401, 0, -1):
        with pytest.raises(ValueError, match=f"{size}: expected 258 to 400"):
            truncated(whole, size)


def test_bytes_per_token_rises_with_the_vocabulary(stories):
    whole = train_tokenizer(stories, 900)
    sizes = [257, 300, 512, 900]
    lengths = [bytes_per_token(truncated(whole, size), stories) for size in sizes]
    assert lengths == sorted(lengths) and lengths[0] == 1.0
    text = "Füße, naïve"
    assert bytes_per_token(truncated(whole, 257), [text, "", text]) == 1.0
    ids = whole.encode(text)
    assert bytes_per_token(whole, iter([text])) == len(text.encode()) / len(ids)
    with pytest.raises(ValueError, match="no token"):
        bytes_per_token(whole, ["", ""])


def test_health_is_what_counting_by_hand_gives():
    # 'ab' is id 256, 'abab' 257, 'ababab' 258; the end token is 259.
    tokenizer = Tokenizer(((97, 98), (256, 256), (257, 256)))
    ids = tokenizer.encode("ababab ababab abab c")
    health = token_health(tokenizer, ids, least=2)
    assert health.counts.tolist() == tokenizer_counts(ids, tokenizer.vocabulary)
    assert len(health.never) == 260 - len(set(ids))
    assert 256 in health.never and 259 in health.never and 258 not in health.never
    assert set(health.hardly) == {id for id in set(ids) if ids.count(id) == 1}
    assert set(health.steps) == {256, 257}  # bytes and unjoined tokens are no steps
    assert health.idle_parameters(64) == 64 * len(health.never)
    assert longest_tokens(tokenizer, 2) == [258, 257]


def tokenizer_counts(ids: list[int], size: int) -> list[int]:
    return [ids.count(id) for id in range(size)]


def test_health_of_nothing_and_of_foreign_ids():
    tokenizer = Tokenizer(())
    empty = token_health(tokenizer, np.zeros(0, np.uint32))
    assert len(empty.never) == 257 and len(empty.hardly) == len(empty.steps) == 0
    for ids in ([257], [-1], [3, 999]):
        with pytest.raises(ValueError, match="expected 0 to 256"):
            token_health(tokenizer, ids)


def recorded(folder: Path) -> tuple[dict, list[dict]]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    facts = json.loads((folder / "manifest.json").read_text("utf-8"))
    return facts, [json.loads(line) for line in lines]


def test_the_recorded_runs_differ_in_vocabulary_and_seed_alone():
    assert len(RECORDED) == 12
    facts = {folder.name: recorded(folder)[0] for folder in RECORDED}
    arms = set()
    for name, fact in facts.items():
        config, seed = ModelConfig(**fact["model"]), fact["recipe"]["seed"]
        assert name == f"vocabulary-{config.vocabulary}-seed-{seed}"
        arms.add((config.vocabulary, seed))
        size = sum(parameters(config).values())
        assert abs(size - fact["budget"]) < 0.01 * fact["budget"]
    assert arms == {(V, seed) for V in (512, 1024, 2048, 4096) for seed in (0, 1, 2)}
    for part in ("corpus", "code", "budget", "held_out", "floor"):
        assert len({json.dumps(fact[part]) for fact in facts.values()}) == 1, part
    for part, free in (("model", ("vocabulary", "feed_forward")), ("recipe", ["seed"])):
        kept = [
            {name: value for name, value in fact[part].items() if name not in free}
            for fact in facts.values()
        ]
        assert all(one == kept[0] for one in kept)
    named = {(f["model"]["vocabulary"], f["tokenizer"]) for f in facts.values()}
    assert len(named) == 4, "one tokenizer a vocabulary"


def test_the_recorded_tokenizers_and_stories_can_be_made_again():
    told = list(World.load().stories("train", 6000))
    largest = train_tokenizer((story.text for story in told), 4096)
    read = manifest(told[:1600])["fingerprint"]
    for folder in RECORDED:
        facts, _ = recorded(folder)
        again = truncated(largest, facts["model"]["vocabulary"])
        assert (facts["tokenizer"], facts["corpus"]) == (again.name, read)


def test_the_arms_of_a_seed_read_the_same_bytes():
    for seed in (0, 1, 2):
        read = [
            [line["bytes"] for line in recorded(folder)[1] if "bytes" in line]
            for folder in RECORDED
            if folder.name.endswith(f"-{seed}")
        ]
        assert len(read) == 4 and all(one == read[0] for one in read)
    for folder in RECORDED:
        assert (folder / "metrics.jsonl").stat().st_size < 60_000


def test_the_recorded_scores_are_of_these_stories_and_above_their_floor():
    held_out = list(World.load().stories("validation", 400))
    for folder in RECORDED:
        facts, lines = recorded(folder)
        assert facts["held_out"] == manifest(held_out)["fingerprint"]
        assert lines[-1]["story_bytes"] == [story.nbytes for story in held_out]
        nats, size = lines[-1]["story_nats"], sum(lines[-1]["story_bytes"])
        assert sum(story.nll for story in held_out) / np.log(2) / size == pytest.approx(
            facts["floor"]
        )
        score = lines[-1]["bits_per_byte"]
        assert sum(nats) / np.log(2) / size == pytest.approx(score, abs=1e-4)
        assert facts["floor"] < score < 2
