"""Cleaning: ledgers that add up, duplicates as datasketch finds them, each filter."""

import re
import sysconfig
import time
import tracemalloc
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from cort33x_lib.text import filters_code, filters_prose, story_flaws
from cort33x_lib.text.cleaning import (
    EXAMPLES,
    Removed,
    apply_filter,
    clean,
    one_by_one,
    with_text,
)
from cort33x_lib.text.corpus import Document
from cort33x_lib.text.duplicates import (
    NearDuplicates,
    buckets,
    chance_found,
    clusters,
    exact_duplicates,
    jaccard,
    permutations,
    shingles,
    signature,
)
from cort33x_lib.text.filters import (
    Boilerplate,
    Leaked,
    Shuffled,
    find_personal,
    passes_luhn,
    redact,
    repair_encoding,
)
from cort33x_lib.text.story_world import World

RULES = [
    repair_encoding,
    redact,
    *(filters_prose.prose, filters_prose.english, filters_prose.ended),
    *(filters_prose.gopher, filters_prose.c4, filters_prose.fineweb),
    *(filters_code.own, filters_code.written, filters_code.code),
    filters_code.strip_licence,
]

SHINGLES = ["0x33481e2a48387dab", "0xf0a40fff294234fe"]


def document(text, origin="a/b.py"):
    return Document(text, origin, origin, "none")


@pytest.fixture(scope="module")
def stories():
    return list(World.load().stories("train", 400, seed=2))


@pytest.fixture(scope="module")
def held_out():
    return list(World.load().stories("validation", 40, seed=2))


@pytest.fixture(scope="module")
def planted(stories, held_out):
    rates = dict.fromkeys(story_flaws.COPIES + story_flaws.SPOILED, 0.05)
    return story_flaws.plant(stories, rates, seed=2, held_out=held_out)


@pytest.fixture(scope="module")
def steps(held_out):
    """The whole pipeline for stories."""
    return {
        "encoding": one_by_one(repair_encoding),
        "boilerplate": Boilerplate(),
        "personal": one_by_one(redact),
        "words": one_by_one(filters_prose.prose),
        "language": one_by_one(filters_prose.english),
        "end": one_by_one(filters_prose.ended),
        "leaks": Leaked(tuple(held.text for held in held_out)),
        "exact": exact_duplicates,
        "near": NearDuplicates(),
        "order": Shuffled(),
    }


@pytest.fixture(scope="module")
def cleaned(planted, steps):
    return clean(planted, steps)


def sizes(documents):
    return len(documents), sum(d.nbytes for d in documents)


# --- ledgers ---------------------------------------------------------------------


def test_nothing_is_lost_or_counted_twice(planted, steps, cleaned):
    before = list(planted)
    for step, filter in steps.items():
        answers = list(filter(before))
        after, ledger = apply_filter(step, lambda _, a=answers: a, before)
        assert ledger.documents == (len(before), len(after))
        assert ledger.nbytes == (sizes(before)[1], sizes(after)[1])
        removed = sum(total.removed for total in ledger.totals)
        changed = sum(total.changed for total in ledger.totals)
        taken = sum(total.nbytes for total in ledger.totals)
        assert len(before) - removed == len(after)
        assert sizes(before)[1] - taken == sizes(after)[1]
        assert removed == sum(isinstance(answer, Removed) for answer in answers)
        old = {id(d) for d in before}
        assert changed == sum(id(d) not in old for d in after)
        assert after == [a for a in answers if not isinstance(a, Removed)]
        before = after
    kept, ledgers = cleaned
    assert kept == before
    assert [ledger.step for ledger in ledgers] == list(steps)
    for one, other in zip(ledgers, ledgers[1:], strict=False):
        assert one.documents[1] == other.documents[0]
        assert one.nbytes[1] == other.nbytes[0]


def test_ten_examples_a_rule_are_kept_and_true(planted, cleaned):
    _, ledgers = cleaned
    texts = {d.origin: d.text for d in planted}
    shown = Counter()
    for ledger in ledgers:
        totals = {total.rule: total for total in ledger.totals}
        for example in ledger.examples:
            shown[example.rule] += 1
            assert example.step == ledger.step and example.origin in texts
            assert example.after != example.before
            if ledger.step == "encoding":
                assert example.before == texts[example.origin]
        for rule, total in totals.items():
            assert shown[rule] == min(total.removed + total.changed, EXAMPLES)


def test_a_change_that_lengthens_takes_away_fewer_than_no_bytes():
    longer = one_by_one(lambda d: with_text(d, d.text + "é"))
    kept, ledger = apply_filter("longer", longer, [document("a"), document("b")])
    assert ledger.totals[0].nbytes == -4 and sizes(kept) == (2, 6)


def test_one_answer_a_document_is_asked_for(stories):
    with pytest.raises(ValueError, match="half: 200 answers for 400 documents"):
        apply_filter("half", lambda documents: documents[::2], stories)


def test_a_changed_story_is_no_story_any_more(stories):
    assert with_text(stories[0], stories[0].text) is stories[0]
    changed = with_text(stories[0], "Other text.")
    assert type(changed) is Document and changed.unit == stories[0].unit
    assert with_text(stories[0], " \n") == Removed("nothing left")


def test_what_is_clean_stays_as_it_is(stories, steps, cleaned):
    assert clean(stories, steps)[0] == stories
    kept, _ = cleaned
    again, ledgers = clean(kept, steps)
    assert again == kept and not any(ledger.totals for ledger in ledgers)


def test_code_that_is_clean_stays_as_it_is():
    folder = Path(sysconfig.get_path("stdlib"))
    files = [
        document(path.read_text("utf-8"), f"python/{path.name}")
        for path in sorted(folder.glob("[a-d]*.py"))
    ]
    rules = "own strip_licence written code".split()
    steps = {name: one_by_one(getattr(filters_code, name)) for name in rules}
    kept, _ = clean(files, steps)
    assert len(kept) > 0.8 * len(files)
    assert clean(kept, steps)[0] == kept


# --- hostile documents -----------------------------------------------------------

HOSTILE = {
    "empty": "",
    "one word": "word",
    "white space": " \n\t\n",
    "one line": "a" * 1_000_000,
    "words": "a " * 50_000,
    "digits": "1" * 100_000,
    "digits apart": "1 2-" * 25_000,
    "points": "1." * 50_000,
    "at": "@" * 30_000 + "a@" * 30_000 + "a.b@c." * 5_000,
    "plus": "+1 (" * 25_000,
    "no ASCII": "снег идёт " * 1000,
    "NUL": "\0" * 10_000 + "a\0b\n" * 10_000,
    "mojibake": "â€œ" * 10_000 + "Ã©€" * 10_000,
    "quotes": "\"'" * 50_000,
    "comments": "# licensed \n" * 10_000,
    "marks": "<script>{\u202e\ufeff…•\x85\u2028" * 5_000,
    "lines": "\n" * 100_000,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_answers_whatever_the_text(rule):
    for name, text in HOSTILE.items():
        answer = rule(document(text))
        assert isinstance(answer, Document | Removed), name
        if isinstance(answer, Document):
            assert rule(answer) == answer, name  # a second time changes nothing


def test_filters_of_a_corpus_answer_whatever_the_texts(stories):
    documents = [document(text, name) for name, text in HOSTILE.items()]
    for filter in (
        exact_duplicates,
        NearDuplicates(),
        Boilerplate(),
        Shuffled(),
        Leaked(("a " * 20, "")),
    ):
        answers = list(filter([*documents, *stories[:20], *documents]))
        assert len(answers) == 2 * len(documents) + 20
        assert list(filter([])) == []


# --- exact and near duplicates ---------------------------------------------------


def test_the_first_of_equal_texts_stays_and_nothing_is_normalised():
    texts = ["a b", "a  b", "a b", "A b", "a b\n", "a  b"]
    answers = list(exact_duplicates([document(t, str(n)) for n, t in enumerate(texts)]))
    assert [isinstance(answer, Removed) for answer in answers] == [0, 0, 1, 0, 0, 1]
    assert [answers[2].note, answers[5].note] == ["of 0", "of 1"]


def test_equal_origins_do_not_hide_a_duplicate():
    answers = list(exact_duplicates([document("a"), document("a"), document("b")]))
    assert [isinstance(answer, Removed) for answer in answers] == [False, True, False]


def test_shingles_are_runs_of_five_words():
    text = "One two, three -- four five six! One TWO three four five"
    assert len(shingles(text)) == 11 - 4 - 1
    assert len(shingles("a b c")) == 1 and len(shingles("?!")) == 0
    assert jaccard(shingles("a b c"), shingles("A, b: c")) == 1
    assert jaccard(shingles(""), shingles("")) == 0
    fixed = shingles("the quick brown fox jumps over")
    assert [hex(n) for n in fixed] == SHINGLES  # on every machine


def test_jaccard_is_that_of_the_runs(planted, stories):
    for one in planted:
        if one.flaw == "near duplicate":
            other = stories[one.source]
            assert jaccard(shingles(one.text), shingles(other.text)) == one.similarity


def theirs(sets, seed=1):
    return MinHash.bulk(
        [(shingles >> np.uint64(32)).tolist() for shingles in sets],
        num_perm=128,
        seed=seed,
        hashfunc=int,
    )


def pairs_of(groups):
    return {pair for group in groups for pair in combinations(group, 2)}


@pytest.mark.parametrize(("bands", "rows"), [(16, 8), (32, 4), (9, 13)])
def test_signatures_and_pairs_are_those_of_datasketch(planted, bands, rows, capsys):
    sets = [shingles(d.text) for d in planted]
    table = permutations()
    ours = np.stack([signature(one, table) for one in sets])
    sketches = theirs(sets)
    assert all((one.hashvalues == row).all() for one, row in zip(sketches, ours))  # noqa: B905
    index = MinHashLSH(num_perm=128, params=(bands, rows))
    for place, sketch in enumerate(sketches):
        index.insert(place, sketch)
    pairs = {
        (place, other)
        for place, sketch in enumerate(sketches)
        for other in index.query(sketch)
        if place < other
    }
    assert pairs_of(buckets(ours, bands, rows)) == pairs
    assert len(pairs) > 25
    with capsys.disabled():
        print(f"\n{len(sets)} documents, {bands} x {rows}: the same {len(pairs)} pairs")


def test_time_per_document_beside_datasketch(planted, capsys):
    """Printed and not judged: machines differ. Their way is the one they document."""

    def ours(texts):
        table = permutations()
        return [signature(shingles(text), table) for text in texts]

    def as_documented(texts):
        sketches = []
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            runs = {" ".join(words[n : n + 5]).encode() for n in range(len(words) - 4)}
            sketches.append(MinHash(num_perm=128))
            sketches[-1].update_batch(runs)
        return sketches

    texts, seconds = [d.text for d in planted], {ours: [], as_documented: []}
    for way in [ours, as_documented] * 3:
        start = time.process_time()
        assert len(way(texts)) == len(texts)
        seconds[way].append(time.process_time() - start)
    mine, other = (1e6 * min(taken) / len(texts) for taken in seconds.values())
    with capsys.disabled():
        print(f"\n{mine:.0f} us a document, datasketch {other:.0f} us", end="")


def test_other_seeds_are_those_of_datasketch_too(stories):
    sets = [shingles(stories[0].text), shingles("")]
    for seed in (0, 7):
        for sketch, one in zip(theirs(sets, seed), sets, strict=True):
            row = signature(one, permutations(128, seed))
            assert (sketch.hashvalues == row).all()


def test_bands_must_fit_into_the_signature():
    with pytest.raises(ValueError, match="20 bands of 7 need 140 permutations"):
        list(buckets(np.zeros((2, 128), np.uint32), 20, 7))


def test_the_chance_to_be_found():
    assert chance_found(0, 16, 8) == 0 and chance_found(1, 16, 8) == 1
    assert chance_found(0.5, 1, 1) == 0.5
    assert chance_found(0.8, 16, 8) == pytest.approx(0.947, abs=0.001)


def test_clusters_are_those_of_all_pairs():
    """Chains as well: words change one by one from a text to a quite other one."""
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in random.integers(10**6, size=200)]
    texts = []
    for step in range(30):
        words[6 * step % 200] = f"new{step}"
        texts += [" ".join(words), " ".join(f"x{step}y{n}" for n in range(40))]
    sets = [shingles(text) for text in texts]
    expected = list(range(len(sets)))
    for _ in range(3):  # after that nothing moves
        for i, j in combinations(range(len(sets)), 2):
            if jaccard(sets[i], sets[j]) >= 0.8:
                expected[i] = expected[j] = min(expected[i], expected[j])
    assert expected.count(0) == 30
    assert clusters(sets, 0.8, 64, 2) == expected
    shuffled = list(random.permutation(len(sets)))
    moved = clusters([sets[n] for n in shuffled], 0.8, 64, 2)
    assert len(set(moved)) == len(set(expected)) == 31
    assert all(first <= place for place, first in enumerate(moved))


def test_near_duplicates_above_the_threshold_go_and_no_others(planted):
    answers = list(NearDuplicates()(planted))
    removed = {n for n, answer in enumerate(answers) if isinstance(answer, Removed)}
    alike = {
        n
        for n, d in enumerate(planted)
        if d.flaw in ("near duplicate", "exact duplicate") and d.similarity >= 0.8
    }
    assert removed <= alike and len(removed) >= 0.9 * len(alike)


def test_many_equal_documents_do_not_take_the_memory_of_their_pairs():
    one = shingles("a b c d e f g")
    tracemalloc.start()
    assert clusters([one] * 3000, 0.8, 16, 8) == [0] * 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # 4.5 million pairs would take forty times as much


# --- encodings, boilerplate, personal data, order, leaks -------------------------


@pytest.mark.parametrize(
    "text",
    ["Zoë’s café — “it’s gone” … 10 €", "naïve façade", "Übergröße: 5 £", "“¿Qué?”"],
)
def test_mojibake_is_repaired_and_good_text_is_left(text):
    broken = "".join(
        bytes([byte]).decode("cp1252", "ignore") or chr(byte)
        for byte in text.encode("utf-8")
    )
    lines = f"plain\n{broken}\r\nснег 雪 {text}"
    assert repair_encoding(document(broken)).text == text
    assert repair_encoding(document(lines)).text == f"plain\n{text}\r\nснег 雪 {text}"
    good = document(text)
    assert repair_encoding(good) is good


def test_a_line_goes_when_enough_documents_have_it():
    notice, short = "All rights are reserved here.", "return None"
    texts = [f"{notice}\nText {n}.\n{short}" for n in range(10)]
    texts += [f"Text.\n{notice} Not alone."] * 20
    documents = [document(text) for text in texts]
    answers = list(Boilerplate(documents=10)(documents[:10]))
    assert answers[3].text == "Text 3.\nreturn None"
    assert list(Boilerplate(documents=11)(documents[:10])) == documents[:10]
    only = [document(notice, str(n)) for n in range(10)]
    assert list(Boilerplate()(only)) == [Removed("nothing left")] * 10


def test_luhn_tells_numbers_apart():
    good = ["4111111111111111", "5500005555555559", "378282246310005", "0"]
    assert all(map(passes_luhn, good))
    for number in good[:3]:
        others = [number[:-1] + digit for digit in "0123456789"]
        assert sum(map(passes_luhn, others)) == 1
        swapped = number[:3] + number[4] + number[3] + number[5:]
        assert passes_luhn(swapped) == (number[3] == number[4])


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("ann@example.org", ["email"]),
        ("Ask <ann.lee+b@mail.example.co.uk>.", ["email"]),
        ("@decorator a@ @b a@b user@host", []),
        ("4111 1111 1111 1111 and 4111-1111-1111-1111", ["card"] * 2),
        ("4111 1111 1111 1112", []),
        ("from 192.0.2.17, 255.255.255.0.", ["address"] * 2),
        ("256.1.1.1 and 1.2.3 and 1.2.3.4.5 and v1.2.3.4", []),
        ("+44 7700 900123, (555) 010-0123, 555-010-0199", ["phone"] * 3),
        ("in 1999, 3 of 12 had 1234567890 and 2024-01-15", []),
    ],
)
def test_personal_data_are_told_by_their_form(text, kinds):
    assert [kind for kind, _, _ in find_personal(text)] == kinds
    answer = redact(document(text))
    assert sum(answer.text.count(f"[{kind}]") for kind in set(kinds)) == len(kinds)


def test_a_shuffled_text_is_known_by_its_pairs(planted):
    shares = dict(zip(range(len(planted)), Shuffled().shares(planted), strict=True))
    least = min(shares[n] for n, d in enumerate(planted) if d.flaw == "")
    most = max(shares[n] for n, d in enumerate(planted) if d.flaw == "shuffled")
    assert most < 0.6 < least
    assert Shuffled().shares([document("word")]) == [1]


def test_a_leak_goes_and_fresh_text_stays(stories, held_out):
    filter = Leaked(tuple(held.text for held in held_out))
    answers = list(filter([*stories[:50], *held_out]))
    assert answers[:50] == stories[:50]
    assert {answer.rule for answer in answers[50:]} == {"held out"}


# --- rules for prose and for code ------------------------------------------------


def broken_rule(rule, text):
    answer = rule(document(text))
    return answer.rule if isinstance(answer, Removed) else ""


SENTENCE = "The cat sat on the mat and looked at the dog with big eyes for a while. "
DIFFERENT = (
    "Early one morning the fisher pushed his boat into a calm sea. Gulls cried above"
    " him, and far out a sail was to be seen. Would it be that of his brother? He had"
    " not come home for seven years! Slowly they drew near, waved with both arms, and"
    " laughed. That evening every house in town had its windows full of light."
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (DIFFERENT, ""),
        ("Too short.", "gopher: number of words"),
        ("a " * 60, "gopher: length of words"),
        ("incomprehensibilities " * 60, "gopher: length of words"),
        (DIFFERENT + " #" * 20, "gopher: symbols"),
        (
            "\n".join(f"- {word} was everywhere" for word in DIFFERENT.split()),
            "bullets",
        ),
        ("12345 the to " * 40, "gopher: words without letters"),
        ("lorem ipsum dolor sit amet " * 12, "gopher: stop words"),
        (f"{SENTENCE}\n" * 12, "gopher: repeated lines"),
        (DIFFERENT + " what the dog" * 30, "gram"),
    ],
)
def test_gopher(text, rule):
    assert rule in broken_rule(filters_prose.gopher, text)
    assert bool(rule) == bool(broken_rule(filters_prose.gopher, text))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (DIFFERENT, ""),
        (SENTENCE, "c4: fewer than five sentences"),
        (DIFFERENT + "\n{}", "c4: curly bracket"),
        (DIFFERENT + "\nLorem ipsum dolor.", "c4: lorem ipsum"),
    ],
)
def test_c4(text, rule):
    assert broken_rule(filters_prose.c4, text) == rule


def test_c4_keeps_lines_that_end():
    text = f"Menu\n{DIFFERENT}\nEnable JavaScript to read this.\nAnd so on..."
    assert filters_prose.c4(document(text)).text == DIFFERENT


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (DIFFERENT.replace(". ", ".\n"), ""),
        ("\n".join(DIFFERENT.split()[:40]), "fineweb: lines without an end"),
        ("Yes, it is.\n" * 10 + SENTENCE.strip(), "fineweb: short lines"),
        (f"{SENTENCE.strip()}\n" * 10, "fineweb: repeated characters"),
        ("\n\n\n\n".join(["Whatsoeverandevermoreandevermore."] * 1) * 3, ""),
    ],
)
def test_fineweb(text, rule):
    assert broken_rule(filters_prose.fineweb, text) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (SENTENCE * 3, ""),
        (SENTENCE, "short"),
        ("1 + 2 = 3; " * 20, "few letters"),
        ("a b c " * 20, "strange words"),
    ],
)
def test_own_rules_for_prose(text, rule):
    assert broken_rule(filters_prose.prose, text) == rule


FRENCH = (
    "Il y avait en Westphalie, dans le château de monsieur le baron, un jeune garçon à"
    " qui la nature avait donné les mœurs les plus douces."
)


def test_english_is_told_from_french():
    assert broken_rule(filters_prose.english, SENTENCE) == ""
    assert broken_rule(filters_prose.english, FRENCH) == "not English"


@pytest.mark.parametrize("end", [".", "!", "?", '."', ".'\n", "…", ".)", "?» "])
def test_an_end_is_seen(end):
    assert broken_rule(filters_prose.ended, f"It was late{end}") == ""


@pytest.mark.parametrize("end", ["", ",", " and", '"', ". Then"])
def test_a_missing_end_is_seen(end):
    assert broken_rule(filters_prose.ended, f"It was late{end}") == "cut off"


PROGRAM = "import os\n\n\ndef main(path):\n    return os.path.join(path, 'name')\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (PROGRAM, ""),
        ("# Automatically generated, DO NOT EDIT\n" + PROGRAM, "generated"),
        ('"""Codec generated from \'CP037.TXT\' with a script."""\n', "generated"),
        ("# Autogenerated by a tool\n", "generated"),
        ("# A tree can be generated by using this.\n" + PROGRAM, ""),
        (PROGRAM + "\n" * 3000 + "# do not edit\n", ""),
    ],
)
def test_generated_files_say_so_in_their_first_lines(text, rule):
    assert broken_rule(filters_code.written, text) == rule


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        ("pip/_vendor/idna/core.py", False),
        ("a\\third_party\\b.py", False),
        ("shop/vendors.py", True),
        ("vendor.py", True),
    ],
)
def test_vendored_files_are_told_by_their_folders(origin, kept):
    answer = filters_code.own(document(PROGRAM, origin))
    assert isinstance(answer, Document) == kept


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (PROGRAM, ""),
        (PROGRAM + f"x = '{'a' * 1000}'", "long line"),
        (PROGRAM + "t = [\n" + "    0.25, 17, 0x9f,\n" * 40, "few letters in code"),
        (PROGRAM + "# снег идёт\n" * 3, "not ASCII"),
    ],
)
def test_tables_are_no_code(text, rule):
    assert broken_rule(filters_code.code, text) == rule


def test_a_licence_goes_and_what_python_needs_stays():
    notice = "# Copyright 2001 Somebody.\n#\n# All rights reserved.\n"
    about = "# How it works: like this.\n"
    head = "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n"
    text = f"{head}{notice}\n{about}\n{PROGRAM}# copyright below stays\n"
    left = filters_code.strip_licence(document(text)).text
    assert left == f"{head}\n{about}\n{PROGRAM}# copyright below stays\n"
    assert filters_code.strip_licence(document(notice)) == Removed("nothing left")
    for text in (PROGRAM, about + PROGRAM, "\n" + PROGRAM):
        plain = document(text)
        assert filters_code.strip_licence(plain) is plain


def test_own_rules_keep_code_that_published_ones_throw_away():
    folder = Path(sysconfig.get_path("stdlib"))
    files = [document(p.read_text("utf-8")) for p in sorted(folder.glob("[a-c]*.py"))]

    def kept(rule):
        return sum(isinstance(rule(file), Document) for file in files) / len(files)

    assert kept(filters_prose.c4) < 0.5 and kept(filters_prose.fineweb) < 0.3
    assert kept(filters_code.code) > 0.9
