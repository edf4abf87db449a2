"""Hugging Face and tiktoken read what we write, and their ids are ours."""

import base64
import json
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import tiktoken
import tokenizers

from cort33x_lib.text.exchange import (
    byte_alphabet,
    from_ranks,
    to_huggingface,
    to_ranks,
    to_tiktoken,
)
from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import END, Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]
HOSTILE = [
    "",
    "\x00",
    "\ufeffa\ufeff",
    "\r\n\r\n  x\t\n",
    "a" * 1000 + " " * 1000 + "\n" * 1000 + "7" * 1000 + "'" * 1000 + "é\u0301" * 500,
    "<|end|>",
    "<|end|><|end|> <|END|> <| end |> ＜|end|＞",
    "Ġthe Ċ Ġ<|end|>",
    "👨‍👩‍👧 \u202eשלום\u202c ½ ² Ⅷ 四 ٣٤٥ 𝟙𝟚𝟛 ǅ ª ſ",
    "don't DON'T we'll 'sx 'then' ''s rock'n'roll she’ll",
    "x_1 __init__ 1_000 3.14 0xFF == != -> //",
]


def modules(*names: str) -> str:
    folder = Path(sysconfig.get_path("stdlib"))
    return "".join((folder / f"{name}.py").read_text("utf-8") for name in names)


def random_text(chance: random.Random) -> str:
    parts = [" ", "  ", "\n", "'s", "'re", "12345", "é", "\u0301", "\u200d", "\t", END]
    letters = chance.choices(parts, k=chance.randrange(10))
    for _ in range(chance.randrange(10)):
        point = chance.randrange(chance.choice([0x80, 0x800, 0x10000, 0x110000]))
        letters.append("x" if 0xD800 <= point < 0xE000 else chr(point))
    chance.shuffle(letters)
    return "".join(letters)


@pytest.fixture(scope="module", params=PATTERNS)
def tokenizer(request) -> Tokenizer:
    return train_tokenizer([modules("argparse")], 1200, (END, "<|a b|>"), request.param)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    chance = random.Random(11)
    return [
        *HOSTILE,
        modules("random", "heapq"),
        *(random_text(chance) for _ in range(2000)),
    ]


def ranks_file(path: Path, tokens: list[bytes]) -> Path:
    lines = [
        f"{base64.b64encode(token).decode()} {rank}\n"
        for rank, token in enumerate(tokens)
    ]
    path.write_text("".join(lines))
    return path


def test_hugging_face_gives_our_ids(tokenizer, texts, tmp_path):
    path = tmp_path / "tokenizer.json"
    to_huggingface(tokenizer, path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    assert theirs.get_vocab_size() == tokenizer.vocabulary
    theirs.encode_special_tokens = True
    for text, encoded in zip(texts, theirs.encode_batch(texts), strict=True):
        ids = tokenizer.encode(text)
        assert encoded.ids == ids, repr(text)
        assert theirs.decode(ids) == text
    whole = tokenizer.encode(texts[11])
    assert len(whole) > 5000


def test_hugging_face_knows_our_specials(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    to_huggingface(tokenizer, path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    for name, id in tokenizer.specials.items():
        assert theirs.token_to_id(name) == id
        assert theirs.id_to_token(id) == name
        assert theirs.encode(f"a{name} b").ids == [
            *tokenizer.encode("a"),
            id,
            *tokenizer.encode(" b"),
        ]
    assert theirs.decode([*tokenizer.encode("low"), *tokenizer.specials.values()]) == (
        "low"
    )


def test_tiktoken_gives_our_ids(tokenizer, texts):
    theirs = tiktoken.Encoding(**to_tiktoken(tokenizer))
    assert theirs.n_vocab == tokenizer.vocabulary
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs.encode_ordinary(text) == ids, repr(text)
        assert theirs.decode(ids) == text
    for name, id in tokenizer.specials.items():
        assert theirs.encode(name, allowed_special="all") == [id]
        with pytest.raises(ValueError, match="disallowed special token"):
            theirs.encode(name)
    assert theirs.name.endswith(tokenizer.name[:12])


def test_ranks_come_back_as_the_same_tokenizer(tokenizer, tmp_path):
    path = tmp_path / "own.tiktoken"
    to_ranks(tokenizer, path)
    names = tokenizer.special_names
    assert from_ranks(path, tokenizer.pattern, names).name == tokenizer.name
    mergeable = to_tiktoken(tokenizer)["mergeable_ranks"]
    for line, (token, rank) in zip(
        path.read_text().splitlines(), mergeable.items(), strict=True
    ):
        assert line == f"{base64.b64encode(token).decode()} {rank}"


def test_tiktoken_reads_the_ranks_file_itself(tokenizer, tmp_path):
    from tiktoken.load import load_tiktoken_bpe

    path = tmp_path / "own.tiktoken"
    to_ranks(tokenizer, path)
    assert load_tiktoken_bpe(str(path)) == to_tiktoken(tokenizer)["mergeable_ranks"]


def test_a_file_in_gpt2s_order_of_bytes_gives_the_same_tokens(tmp_path):
    """GPT-2 ranks the bytes that print first; ids of bytes change, others do not."""
    own = train_tokenizer([modules("argparse")], 900, pattern="gpt-2")
    order = sorted(range(256), key=lambda value: ord(byte_alphabet()[value]))
    assert order[:2] == [0x21, 0x22] and order[188] == 0
    tokens = [bytes([value]) for value in order]
    tokens += [own.token_bytes(id) for id in range(256, 899)]
    read = from_ranks(ranks_file(tmp_path / "gpt2.tiktoken", tokens))
    assert read == own
    theirs = tiktoken.Encoding(
        name="gpt2-like",
        pat_str=PATTERNS["gpt-2"].expression,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={},
    )
    text = modules("heapq") + "é"
    ours = read.encode(text)
    for our_id, their_id in zip(ours, theirs.encode_ordinary(text), strict=True):
        assert our_id == (their_id if their_id > 255 else order[their_id])


def test_ranks_with_gaps_keep_their_order(tmp_path):
    own = train_tokenizer(["low lower lowest"], 261)
    lines = [
        f"{base64.b64encode(own.token_bytes(id)).decode()} {3 * id + 7}\n"
        for id in range(260)
    ]
    random.Random(1).shuffle(lines)
    path = tmp_path / "gaps.tiktoken"
    path.write_text("".join(lines))
    assert from_ranks(path, own.pattern) == own


def test_the_alphabet_is_hugging_faces():
    theirs = set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert set(byte_alphabet()) == theirs and len(theirs) == 256
    assert byte_alphabet()[0x20] == "Ġ" and byte_alphabet()[0x0A] == "Ċ"


def test_specials_that_would_lose_their_id_there_are_refused(tmp_path):
    for name in ("a", "Ġ", "low", "Ġlow"):
        tokenizer = train_tokenizer(["low low low low"], 260, (name,))
        assert tokenizer.token_bytes(258) == b" low"
        with pytest.raises(ValueError, match="no other token's letters"):
            to_huggingface(tokenizer, tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def test_merges_that_no_text_teaches_are_refused(tmp_path):
    # "bc" is learnt before "ab", so no text leads to "ab" + "c".
    merges = ((98, 99), (97, 98), (257, 99))
    tokenizer = Tokenizer(merges)
    with pytest.raises(ValueError, match=r"merge \(257, 99\) of b'abc'"):
        to_tiktoken(tokenizer)
    with pytest.raises(ValueError, match="expected learnt merges"):
        to_ranks(tokenizer, tmp_path / "own.tiktoken")
    to_huggingface(tokenizer, tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("abc", "xab", "ababc bc"):
        assert theirs.encode(text).ids == tokenizer.encode(text)


GOOD = [bytes([value]) for value in range(256)] + [b"lo", b"low", b" low"]
DAMAGED = {
    "empty": (lambda lines: [], "has no rank"),
    "a byte missing": (lambda lines: lines[1:], "has no rank: expected all 256"),
    "a token's half missing": (lambda lines: lines[:256] + lines[257:], "b'low'"),
    "no rank": (lambda lines: [*lines[:5], "BQ==", *lines[6:]], "line 6"),
    "a negative rank": (lambda lines: [*lines, "bG93ZXI= -1"], "line 260"),
    "a fraction": (lambda lines: [*lines, "bG93ZXI= 1.5"], "line 260"),
    "a long rank": (lambda lines: [*lines, "bG93ZXI= " + "9" * 5000], "line 260"),
    "three words": (lambda lines: [*lines, "bG93ZXI= 259 1"], "line 260"),
    "no base64": (lambda lines: [*lines, "l*w 259"], "line 260"),
    "base64 cut": (lambda lines: [*lines, "bG93ZX 259"], "line 260"),
    "an empty token": (lambda lines: [*lines, " 259"], "line 260"),
    "a blank line": (lambda lines: [*lines[:9], "", *lines[9:]], "line 10"),
    "a token twice": (lambda lines: [*lines, lines[-1]], "line 260"),
    "a rank twice": (lambda lines: [*lines, "bHg= 258"], "distinct ranks"),
    "JSON": (lambda lines: ['{"a": 1}'], "line 1"),
    "another alphabet": (lambda lines: [*lines, "_-8= 259"], "line 260"),
    "too long a token": (
        lambda lines: [
            *lines,
            *(
                f"{base64.b64encode(b'o' * 2**n).decode()} {300 + n}"
                for n in range(1, 10)
            ),
        ],
        "expected a new short token",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_ranks_file_is_refused(damage, tmp_path):
    path = ranks_file(tmp_path / "own.tiktoken", GOOD)
    assert from_ranks(path).token_bytes(258) == b" low"
    change, message = DAMAGED[damage]
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=message) as caught:
        from_ranks(path)
    assert "own.tiktoken is no ranks file" in str(caught.value)


def test_a_file_of_any_bytes_is_read_or_refused(tmp_path):
    path, chance = tmp_path / "own.tiktoken", random.Random(12)
    data = ranks_file(path, GOOD).read_bytes()
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            from_ranks(path)
        except ValueError as error:
            refused += 1
            assert "own.tiktoken is no ranks file" in str(error)
    assert refused > 300
    with pytest.raises(FileNotFoundError):
        from_ranks(tmp_path / "nothing")


def test_the_written_file_is_plain_json(tmp_path):
    tokenizer = train_tokenizer(["low lower lowest é"], 262)
    to_huggingface(tokenizer, tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    assert content["model"]["vocab"]["Ġlow"] == 258
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_neither_library_is_imported():
    script = (
        "import sys; import cort33x_lib.text.exchange;"
        "sys.exit(bool({'tiktoken', 'tokenizers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
