"""The tokenizer: no text is lost, none forges a special, and it equals a plain one."""

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from cort33x_lib.files import sha256_of
from cort33x_lib.text.merging import counted_merges, joined, naive_merges
from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.story_world import World
from cort33x_lib.text.tokenizer import (
    END,
    SpecialPolicy,
    Tokenizer,
    train_tokenizer,
)

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "nothing": "",
    "one letter": "a" * 1_000_000,
    "one space": " " * 1_000_000,
    "line ends": "\r\n" * 300_000,
    "NUL": "\x00" * 300_000,
    "apostrophes": "'" * 300_000,
    "digits": "7" * 300_000,
    "combining marks": "e\u0301\u0302" * 100_000,
    "Chinese": "".join(map(chr, range(0x4E00, 0x9F00))) * 5,
    "alternating case": "aB" * 150_000,
    "byte order mark": "\ufeffhello \ufeff",
    "emoji": "👨‍👩‍👧‍👦👍🏽🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️" * 1000,
    "right to left": "שלום עולם \u202eمرحبا\u202c " * 1000,
    "separators": "a\u2028b\u2029c\x85d\x0be\x1cf\xa0g\u3000h",
    "numbers beyond ten": "½ ² Ⅷ 四 ٣٤٥ 𝟙𝟚𝟛",
}
PIECES_OF_CODE = ["def", " ", "  ", "\n", "_x", "it's", "'re", "12345", "é", "\u0301"]
PIECES_OF_CODE += ["<|end|>", "<|", "|>", "end", "\t", "👍", "\u200d", "...", "DON'T"]


def plain_encode(text: str, merges: list[tuple[int, int]]) -> list[int]:
    ids = []
    for piece in PATTERNS["prose-2"].regex.findall(text):
        word = list(piece.encode())
        for new, pair in enumerate(merges, 256):
            word = joined(word, pair, new)
        ids += word
    return ids


def sources(size: int) -> str:
    """Real text: the start of some modules of the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = ["argparse.py", "inspect.py", "typing.py", "doctest.py", "random.py"]
    text = "".join((folder / name).read_text(encoding="utf-8") for name in names)
    return text[:size]


def random_text(chance: random.Random, size: int) -> str:
    """Code points of every plane, mixed with pieces that the pattern must cut."""
    parts = []
    for _ in range(size):
        if chance.random() < 0.6:
            parts.append(chance.choice(PIECES_OF_CODE))
            continue
        point = chance.randrange(chance.choice([0x80, 0x800, 0x10000, 0x110000]))
        parts.append(chr(point) if not 0xD800 <= point < 0xE000 else "\ufffd")
    return "".join(parts)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([sources(150_000)], 1000)


def every_code_point() -> str:
    return "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


def stories() -> str:
    return "\n".join(story.text for story in World.load().stories("train", 40))


CORPORA = {
    "code": lambda: sources(12_000),
    "stories": stories,
    "random": lambda: random_text(random.Random(1), 2000),
    "one letter": lambda: "a" * 5000,
    "two letters": lambda: "".join(random.Random(2).choices("ab", k=3000)),
    "runs": lambda: "".join(random.Random(3).choices("aaaab ", k=3000)),
    "apostrophes": lambda: "'" * 900 + "'s 't''ll" * 100,
    "white space": lambda: "".join(random.Random(4).choices(" \n\t\r", k=3000)),
    "Chinese": lambda: "".join(map(chr, range(0x4E00, 0x5000))) * 2,
    "NUL": lambda: "\x00" * 300 + "a\x00" * 300,
}


@pytest.mark.parametrize("name", CORPORA)
def test_the_three_trainers_learn_the_same_merges(name: str) -> None:
    text = CORPORA[name]()
    for pattern in ("prose-2", "code-1"):
        pieces = Counter(PATTERNS[pattern].pieces(text.encode()))
        counted = counted_merges(pieces, 600)
        assert naive_merges(pieces, 60) == counted[:60]
        texts = [*text.partition("\n"), ""]
        counted = counted_merges(Counter(pieces_of(pattern, texts)), 600)
        for workers in (1, 2, 3, 8):
            size = 257 + len(counted)
            trained = train_tokenizer(texts, size, (END,), pattern, workers)
            assert list(trained.merges) == counted


def pieces_of(pattern: str, texts: list[str]) -> Iterator[bytes]:
    for text in texts:
        yield from PATTERNS[pattern].pieces(text.encode())


def test_training_equals_the_definition_to_the_last_pair() -> None:
    chance = random.Random(1)
    for size in (30, 100, 200):
        for alphabet in ("ab", "aab ", "abc'1 \n", None):
            letters = "".join(chance.choices(alphabet or "x", k=5 * size))
            texts = [letters if alphabet else random_text(chance, size)]
            most = supported(texts)
            expected = naive_merges(Counter(pieces_of("prose-2", texts)), 10_000)
            assert list(train_tokenizer(texts, most).merges) == expected
            assert most == 257 + len(expected)


def test_many_texts_in_any_order_and_number_of_workers() -> None:
    chance = random.Random(5)
    texts = [sources(30_000)[n : n + 997] for n in range(0, 30_000, 997)] * 60
    names = set()
    for workers in (1, 2, 3, 8):
        chance.shuffle(texts)
        names.add(train_tokenizer(iter(texts), 1500, workers=workers).name)
    assert len(names) == 1
    pieces = Counter(pieces_of("prose-2", texts))
    assert list(train_tokenizer(texts, 1500).merges) == counted_merges(pieces, 1243)


def supported(texts: list[str]) -> int:
    """The largest vocabulary that the texts allow, as the error message says it."""
    with pytest.raises(ValueError, match="support at most") as caught:
        train_tokenizer(texts, 100_000)
    return int(re.search(r"at most (\d+)", str(caught.value))[1])


def test_encoding_equals_the_plain_encoder(tokenizer: Tokenizer) -> None:
    chance = random.Random(2)
    texts = [random_text(chance, chance.randrange(12)) for _ in range(2000)]
    texts += ["a" * 300, "=" * 200, sources(170_000)[-1500:]]
    small = Tokenizer(tokenizer.merges[:200])
    for text in texts:
        assert small.encode(text) == plain_encode(text, small.merges)


def test_encoding_equals_tiktoken_with_our_ranks(tokenizer: Tokenizer) -> None:
    chance = random.Random(7)
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=PATTERNS[tokenizer.pattern].expression,
        mergeable_ranks={tokenizer.token_bytes(id): id for id in range(999)},
        special_tokens={},
    )
    for text in [sources(400_000), *(random_text(chance, 30) for _ in range(2000))]:
        assert theirs.encode_ordinary(text) == tokenizer.encode(text)
        data = text.encode()
        array = tokenizer.encode_array(data)
        assert array.dtype == np.uint32 and array.tolist() == tokenizer.encode(text)
        assert tokenizer.decode_bytes(array) == data


def output_of(script: str, *words: str, seed: int = 0) -> list[str]:
    command = [sys.executable, "-c", script, *words]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    out = subprocess.check_output(command, env=environment, cwd=ROOT, text=True)
    return out.splitlines()


def test_the_hash_seed_changes_nothing() -> None:
    script = """
import collections, hashlib, random
from cort33x_lib.text.merging import counted_merges
chance = random.Random(0)
words = {"".join(chance.choices("abcde", k=chance.randrange(9))) for _ in range(900)}
merges = counted_merges({word.encode(): len(word) for word in words}, 400)
print(hashlib.sha256(repr(merges).encode()).hexdigest())
"""
    found = {tuple(output_of(script, seed=seed)) for seed in range(20)}
    assert len(found) == 1


WITHOUT_NUMBA = """
import sys, warnings
if sys.argv[1] == "without":
    sys.modules["numba"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from cort33x_lib.text.patterns import PATTERNS
    from cort33x_lib.text.tokenizer import END, SpecialPolicy, train_tokenizer
    text = open(sys.argv[2], encoding="utf-8").read()
    for pattern in PATTERNS:
        made = train_tokenizer([text, "naïve 日本"], 700, pattern=pattern)
        policy = SpecialPolicy(allow=frozenset({END}))
        ids = made.encode(text + END + "''s  \u3000 x", policy=policy)
        data = bytes(range(256)) * 3
        print(made.name, sum(ids), len(ids), sum(made.encode_bytes(data)))
        assert made.decode_bytes(made.encode_array(data)) == data
said = [str(w.message) for w in caught if w.category is RuntimeWarning]
print(len(said), "numba" in str(said), file=sys.stderr)
"""


def test_without_numba_the_ids_are_the_same_and_it_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "text.py"
    path.write_text(sources(30_000), encoding="utf-8")
    found = {
        kind: subprocess.run(
            [sys.executable, "-c", WITHOUT_NUMBA, kind, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for kind in ("with", "without")
    }
    assert found["with"].stdout == found["without"].stdout
    assert found["with"].stdout.count("\n") == len(PATTERNS)
    assert [found[kind].stderr.strip() for kind in found] == ["0 False", "1 True"]


FAMILIES = r"""
import random, resource
from cort33x_lib.text.tokenizer import train_tokenizer
made = train_tokenizer(["hello there, hello again"], 262)
size, chance = 3_000_000, random.Random(1)
families = [
    lambda: b"a" * size,
    lambda: b" " * size,
    lambda: b"\n" * size,
    lambda: b"7" * size,
    lambda: b"'" * size,
    lambda: b"aB" * (size // 2),
    lambda: b"!?" * (size // 2),
    lambda: "".join(map(chr, range(0x4E00, 0x9F00))).encode() * (size // 62_208),
    lambda: "e\u0301\u0302".encode() * (size // 5),
    lambda: bytes(size),
    lambda: b"\x80" * size,
    lambda: chance.randbytes(size),
]
made.encode_bytes(b"first use")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for family in families:
    data = family()
    ids = made.encode_bytes(data)
    assert made.decode_bytes(ids) == data
    del ids
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) * 1024 / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units")
def test_hostile_input_takes_at_most_60_bytes_of_memory_a_byte() -> None:
    assert float(output_of(FAMILIES)[0]) <= 60


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_comes_back(name: str, tokenizer: Tokenizer) -> None:
    text = HOSTILE[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(text.encode("utf-8")) == ids
    assert max(ids, default=0) < tokenizer.specials[END]


def test_every_code_point_and_random_text_come_back(tokenizer: Tokenizer) -> None:
    points = every_code_point()
    assert tokenizer.decode(tokenizer.encode(points)) == points
    chance = random.Random(3)
    for _ in range(1000):
        text = random_text(chance, chance.randrange(40))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_any_bytes_come_back(tokenizer: Tokenizer) -> None:
    chance = random.Random(4)
    samples = [bytes(range(256)), b"\x80" * 5000, b"\xed\xa0\x80", b"\xf0\x9f\x91"]
    samples += [chance.randbytes(chance.randrange(60)) for _ in range(3000)]
    for data in samples:
        ids = tokenizer.encode_bytes(data)
        assert tokenizer.decode_bytes(ids) == data
        assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


def test_no_text_makes_a_special(tokenizer: Tokenizer) -> None:
    chance = random.Random(5)
    parts = [END, "<", "|", "end", ">", "<|", "|>", "END", "\u200b", " ", "＜|end|＞"]
    trained = train_tokenizer([f"{END} {END}{END} an end " * 50], 267, (END, "end"))
    for _ in range(3000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 8)))
        for one in (tokenizer, trained):
            ids = one.encode(text)
            assert not set(ids) & set(one.specials.values())
            assert one.decode(ids) == text


def test_a_policy_says_which_names_count() -> None:
    names = ("<|end|>", "<|end|>>", "<|ask|>")
    made = train_tokenizer(["low lower lowest"], 263, names)
    end, longer, ask = (made.specials[name] for name in names)
    low = made.encode("low")
    allow = SpecialPolicy(allow=frozenset(names))
    assert made.encode("low<|end|>low", policy=allow) == [*low, end, *low]
    assert made.encode("<|end|>><|end|><|ask|>", policy=allow) == [longer, end, ask]
    some = SpecialPolicy(allow=frozenset({"<|ask|>"}))
    text = "<|end|><|ask|>"
    assert made.encode(text, policy=some) == [*made.encode("<|end|>"), ask]
    assert made.encode("", policy=allow) == []
    refuse = SpecialPolicy(frozenset({"<|ask|>"}), refuse=frozenset({"<|end|>"}))
    with pytest.raises(ValueError, match=r"'<\|end\|>' at character 3"):
        made.encode("low<|end|>", policy=refuse)
    assert made.encode("low<|end|", policy=refuse) == made.encode("low<|end|")
    assert made.encode("é\ud800<|ask|>", "replace", refuse)[-1] == ask
    with pytest.raises(ValueError, match="to be allowed or refused"):
        SpecialPolicy(frozenset({"a"}), frozenset({"a", "b"}))
    with pytest.raises(ValueError, match="'<|pad|>'.*expected some of"):
        made.encode("low", policy=SpecialPolicy(refuse=frozenset({"<|pad|>"})))


def test_many_threads_encode_at_once(tokenizer: Tokenizer) -> None:
    text = sources(200_000)
    expected = tokenizer.encode(text)
    with ThreadPoolExecutor(8) as pool:
        for ids in pool.map(tokenizer.encode, [text] * 24):
            assert ids == expected


def test_more_pieces_than_the_encoder_keeps(tokenizer: Tokenizer) -> None:
    chance = random.Random(9)
    words = ["".join(chance.choices("abcdefghij", k=7)) for _ in range(300_000)]
    text = " ".join(words)
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    part = tokenizer.encode_array(text[-8000:])
    assert (ids[-len(part) + 9 :] == part[9:]).all()


def test_specials_have_the_last_ids() -> None:
    tokenizer = train_tokenizer(["low lower lowest"], 262, ("<|end|>", "<|ask|>"))
    assert tokenizer.specials == {"<|end|>": 260, "<|ask|>": 261}
    assert tokenizer.vocabulary == 262 and len(tokenizer.merges) == 4
    assert tokenizer.token_bytes(260) == b"<|end|>"
    assert tokenizer.decode([*tokenizer.encode("low"), 261]) == "low<|ask|>"


def test_ids_that_do_not_exist_are_refused(tokenizer: Tokenizer) -> None:
    strange = [-1, 1000, 2**63, 1.0, float("nan"), True, None, "a", b"a", [1]]
    for id in strange:
        for call in (tokenizer.token_bytes, lambda id: tokenizer.decode([id])):
            with pytest.raises(ValueError, match="expected 0 to 999"):
                call(id)
    assert tokenizer.decode(np.array([104, 105], np.uint16)) == "hi"


def test_lone_surrogates_are_refused_or_replaced(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"U\+DC80 at character 3"):
        tokenizer.encode("abc\udc80")
    with pytest.raises(ValueError, match=r"U\+D83D at character 1"):
        train_tokenizer(["a\ud83d\ude00"], 257)
    ids = tokenizer.encode("é\ud800 \udfff", errors="replace")
    assert tokenizer.decode(ids) == "é\ufffd \ufffd"
    with pytest.raises(ValueError, match="errors='ignore'"):
        tokenizer.encode("a", errors="ignore")


def test_streamed_text_equals_the_whole(tokenizer: Tokenizer) -> None:
    chance = random.Random(6)
    for _ in range(1000):
        text = random_text(chance, 12)
        ids = [chance.randrange(1000) for _ in range(12)]
        parts = list(tokenizer.decode_stream(iter(ids)))
        assert "".join(parts) == tokenizer.decode(ids) and all(parts)
        assert "".join(tokenizer.decode_stream(tokenizer.encode(text))) == text
    family = "👨‍👩‍👧"
    by_byte = list(tokenizer.decode_stream(family.encode("utf-8")))
    assert by_byte == list(family)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["ab"], 256), "vocabulary 256: expected at least 257"),
        (([], 300), "support at most 257"),
        ((["ab"], 300), "support at most 258"),
        (("ab", 258), "expected a list of texts"),
        (([b"ab"], 258), "expected text, got bytes"),
        ((["ab"], 259, ("x", "x")), "expected distinct names"),
        ((["ab"], 259, ("",)), "expected distinct names"),
        ((["ab"], 258, (7,)), "expected text, got int"),
        ((["ab"], 258, ("\ud800",)), "lone surrogate"),
        ((["ab"], 258, (END,), "prose-0"), "pattern 'prose-0'"),
    ],
)
def test_training_says_what_is_wrong(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_tokenizer(*arguments)


def test_merges_that_make_no_tokenizer_are_refused() -> None:
    doubling = tuple((id, id) for id in [97, *range(256, 270)])
    for merges, message in [
        (((97, 256),), "expected ids below 256"),
        (((-1, 97),), "expected ids below 256"),
        (((97, 98.0),), "expected ids below 256"),
        (((True, 98),), "expected ids below 256"),
        (((97, 98, 99),), "expected a pair"),
        (((97, 98), (97, 98)), "expected distinct tokens"),
        (((97, 98), (256, 99), (98, 99), (97, 258)), "expected distinct tokens"),
        (doubling, "short tokens"),
    ]:
        with pytest.raises(ValueError, match=message):
            Tokenizer(merges)


def test_a_tokenizer_is_fixed_once_made(tokenizer: Tokenizer) -> None:
    with pytest.raises(AttributeError):
        tokenizer.merges = ()
    tokenizer.specials[END] = 3
    assert tokenizer.specials[END] == 999


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert loaded == tokenizer and loaded.name == tokenizer.name == sha256_of(path)
    text = sources(20_000)
    assert loaded.encode(text) == tokenizer.encode(text)
    content = json.loads(path.read_text(encoding="utf-8"))
    first = content["merges"][0]
    assert first[2].encode() == tokenizer.token_bytes(256)
    with_spaces = train_tokenizer(["abc é"], 260, (" <|a b|>\n", '"'))
    with_spaces.save(path)
    assert Tokenizer.load(path) == with_spaces


BROKEN = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "with a byte more": lambda data: data + b"\n",
    "not UTF-8": lambda data: data.replace(b'"he"', b'"\xff"'),
    "with Windows line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "NUL": lambda data: data + b"\x00",
    "a list": lambda data: b"[]",
    "a number": lambda data: b"7",
    "deeply nested": lambda data: b"[" * 100_000,
    "a long number": lambda data: data.replace(b"[32,", b"[" + b"9" * 9999 + b",", 1),
    "no merges": lambda data: data.replace(b'"merges"', b'"merge"'),
    "merges twice": lambda data: data[:-2] + b', "merges": []}\n',
    "another format": lambda data: data.replace(b"izer-1", b"izer-2"),
    "another pattern": lambda data: data.replace(b"prose-2", b"(a+)+$"),
    "a pattern that is a list": lambda data: data.replace(b'"prose-2"', b"[]"),
    "specials that are null": lambda data: data.replace(b'["<|end|>"]', b"null"),
    "specials that are text": lambda data: data.replace(b'["<|end|>"]', b'"abc"'),
    "a special that is a number": lambda data: data.replace(b'"<|end|>"', b"5"),
    "a special twice": lambda data: data.replace(b'"<|end|>"', b'"a", "a"'),
    "a merge of its own id": lambda data: data.replace(b"[32, 32", b"[256, 32", 1),
    "a negative id": lambda data: data.replace(b"[32, 32", b"[-32, 32", 1),
    "an id that is true": lambda data: data.replace(b"[32, 32", b"[true, 32", 1),
    "a fraction": lambda data: data.replace(b"[32, 32", b"[32.0, 32", 1),
    "not a number": lambda data: data.replace(b"[32, 32", b"[NaN, 32", 1),
    "another id": lambda data: data.replace(b"[32, 32", b"[32, 33", 1),
    "another token": lambda data: data.replace(b'"  "', b'" x"', 1),
    "a merge of three": lambda data: data.replace(b"[32, 32", b"[32, 32, 32", 1),
    "merges that are objects": lambda data: re.sub(rb"\[\d[^\]]*\]", b"{}", data),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files_are_refused(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(((32, 32), (104, 101), (116, 257), (256, 256))).save(path)
    assert Tokenizer.load(path).token_bytes(258) == b"the"
    broken = BROKEN[fault](path.read_bytes())
    assert broken != path.read_bytes()
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer"):
        Tokenizer.load(path)


def test_changed_bytes_never_pass_for_the_same_tokenizer(tmp_path: Path) -> None:
    path, chance, refused = tmp_path / "tokenizer.json", random.Random(8), 0
    tokenizer = train_tokenizer([sources(3000)], 300)
    tokenizer.save(path)
    data = path.read_bytes()
    for _ in range(1000):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            assert Tokenizer.load(path).name != tokenizer.name
        except ValueError:
            refused += 1
    assert refused > 900  # the rest are tokenizers with a special of another name
