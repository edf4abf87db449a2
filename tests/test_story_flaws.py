"""Planted flaws: exact counts, a truth that holds, the same on every machine."""

import hashlib
import re
from collections import Counter

import pytest

from cort33x_lib.text.story_flaws import COPIES, NOTICE, SPOILED, plant, wilson
from cort33x_lib.text.story_world import World

GOLDEN = "2ef05949daddf239a3ced770b78cb7ef74eab28032220255a2c089d89f575ec4"


@pytest.fixture(scope="module")
def world():
    return World.load()


@pytest.fixture(scope="module")
def stories(world):
    return list(world.stories("train", 400))


@pytest.fixture(scope="module")
def held_out(world):
    return list(world.stories("validation", 60))


@pytest.fixture(scope="module")
def documents(stories, held_out):
    rates = dict.fromkeys(COPIES + SPOILED, 0.05)
    return plant(stories, rates, seed=3, held_out=held_out)


def test_counts_are_the_rates_rounded(stories, held_out):
    rates = {"leak": 0.0312, "shuffled": 0.501, "exact duplicate": 0.0087}
    counts = Counter(d.flaw for d in plant(stories, rates, held_out=held_out))
    assert counts == {"": 200, "leak": 12, "shuffled": 200, "exact duplicate": 3}


def test_spoiled_stories_keep_their_place_and_copies_come_last(documents, stories):
    assert len(documents) == 400 + 3 * 20
    for place, document in enumerate(documents[:400]):
        assert document.source == place and document.flaw not in COPIES
        if not document.flaw:
            assert document.text == stories[place].text
            assert document.origin == stories[place].origin
    assert {d.flaw for d in documents[400:]} == set(COPIES)
    assert len({d.origin for d in documents}) == len(documents)


def test_no_story_has_two_flaws(documents):
    used = [d.source for d in documents if d.flaw not in ("", "leak")]
    assert len(used) == len(set(used)) == 8 * 20
    copied = {d.source for d in documents[400:] if d.flaw != "leak"}
    assert all(documents[source].flaw == "" for source in copied)


def test_the_truth_holds(documents, stories, held_out):
    names = set()
    for document in documents:
        source = (held_out if document.flaw == "leak" else stories)[document.source]
        words, before = document.text.split(), source.text.split()
        names.add(document.flaw)
        match document.flaw:
            case "exact duplicate" | "leak":
                assert document.text == source.text and document.similarity == 1
            case "near duplicate":
                changed = sum(a != b for a, b in zip(words, before, strict=True))
                assert 1 <= changed <= 4 and 0 < document.similarity < 1
            case "boilerplate":
                assert document.text == f"{NOTICE}\n\n{source.text}"
                assert document.repaired == source.text
            case "mojibake":
                assert "â€œ" in document.text
                assert re.sub("[“”]", '"', document.repaired) == source.text
                if "\x9d" in document.text:
                    read = [
                        letter.encode("latin-1" if letter == "\x9d" else "cp1252")
                        for letter in document.text
                    ]
                    assert b"".join(read).decode("utf-8") == document.repaired
            case "shuffled":
                assert words != before and sorted(words) == sorted(before)
            case "truncated":
                assert source.text.startswith(document.text)
                assert 0.29 < len(document.text) / len(source.text) < 0.91
            case "foreign":
                assert not set(re.findall("[a-z]+", document.text)) & {"the", "and"}
                assert len(words) == len(before)
            case "personal":
                assert document.text.startswith(source.text + " ")
    assert names == {"", *COPIES, *SPOILED}


def test_similarity_is_that_of_plain_sets_of_five_words(documents, stories):
    def runs(text):
        words = re.findall(r"\w+", text.lower())
        return {" ".join(words[n : n + 5]) for n in range(len(words) - 4)}

    for document in documents:
        if document.flaw == "near duplicate":
            one, other = runs(document.text), runs(stories[document.source].text)
            assert document.similarity == len(one & other) / len(one | other)


def test_the_same_everywhere_and_another_with_another_seed(stories, documents):
    texts = "\n".join(d.text for d in plant(stories, {"near duplicate": 0.1}))
    assert hashlib.sha256(texts.encode()).hexdigest() == GOLDEN
    other = plant(stories, {"near duplicate": 0.1}, seed=1)
    assert [d.source for d in other[400:]] != [d.source for d in documents[400:420]]


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        ({"typo": 0.1}, "no flaw 'typo': expected one of"),
        ({"leak": 0.1}, "leak: 40 texts needed, 0 can bear it"),
        ({"shuffled": 0.7, "foreign": 0.4}, "foreign: 160 texts needed, 120 can"),
        ({"mojibake": 1}, "mojibake: 400 texts needed"),
    ],
)
def test_what_cannot_be_planted_is_refused(stories, rates, fault):
    with pytest.raises(ValueError, match=fault):
        plant(stories, rates)


def test_wilson_gives_the_published_intervals():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    for hits, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(20, 20)[1] == 1
