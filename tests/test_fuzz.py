"""Random and hostile input for the tokenizer, as much of it as FUZZ_TRIALS says.

`make fuzz` runs a million of each kind. A failure names its seed: the text of trial
seed S comes from `random.Random(S)` again.
"""

import os
import random
import subprocess
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiktoken
import tokenizers

from cort33x_lib.text.exchange import to_huggingface, to_tiktoken
from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import SpecialPolicy, Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]
TRIALS = int(os.environ.get("FUZZ_TRIALS", "10000"))
LONG = TRIALS >= 100_000
SPECIALS = ("<|end|>", "<|ask|>", "end", "[a b]")
PARTS = [" ", "  ", "\n", "\r\n", "\t", "\x00", "\ufeff", "'s", "'LL", "don't", "_x"]
PARTS += [
    "12345",
    "٣٤",
    "½",
    "é",
    "e\u0301",
    "\u0301\u0302",
    "👨‍👩‍👧‍👦",
    "👍🏽",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\u200d",
]
PARTS += [
    "שלום",
    "\u202e",
    "مرحبا",
    "\u202c",
    "中文",
    "ﬁ",
    "ﷺ",
    "\x85",
    "\u2028",
    "\u00a0",
]
PARTS += ["the ", "return", "self.", "=" * 70, "aB" * 20, "\ufffd", "<|end|>", "ends"]
WIDTHS = (0x80, 0x800, 0x10000, 0x110000)
LOOK_ALIKES = [
    "＜|end|＞",
    "<｜end｜>",
    "<|END|>",
    "<|eпd|>",
    "ｅｎｄ",
    "<|en\u200bd|>",
]
LOOK_ALIKES += [
    "<|\u0435nd|>",
    "e\u0301nd",
    "< |end| >",
    "&lt;|end|&gt;",
    "<|end|\u00ad>",
]


def chances(kind: str, share: int = 1) -> Iterator[tuple[str, random.Random]]:
    """A seed and its random numbers for each trial."""
    for trial in range(TRIALS // share):
        seed = f"{kind} {trial}"
        yield seed, random.Random(seed)


def random_text(chance: random.Random) -> str:
    """Code points of every plane between pieces that patterns must cut."""
    letters = chance.choices(PARTS, k=chance.randrange(8))
    for _ in range(chance.randrange(8)):
        point = int(chance.random() * chance.choice(WIDTHS))
        letters.append(chr(point) if not 0xD800 <= point < 0xE000 else "\ufffd")
    chance.shuffle(letters)
    return "".join(letters)


def random_bytes(chance: random.Random) -> bytes:
    """Noise, or a text that lost, gained or changed bytes."""
    if chance.random() < 0.5:
        return chance.randbytes(chance.randrange(40))
    data = bytearray(random_text(chance).encode())
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(data)


def forged(chance: random.Random) -> str:
    """A text of pieces of special names: split, nested, doubled, disguised."""
    parts = []
    for _ in range(chance.randrange(1, 6)):
        name = chance.choice(SPECIALS)
        at = chance.randrange(len(name) + 1)
        disguise = chance.choice(["\u200b", "\u2060", "\u00ad", name, " ", "|", "\x00"])
        parts += chance.choice(
            [
                [name],
                [name[:at]],
                [name[at:]],
                [name[:at], disguise, name[at:]],
                [name.upper()],
                [name.title()],
                [unicodedata.normalize("NFKC", chance.choice(LOOK_ALIKES))],
                [chance.choice(LOOK_ALIKES)],
                [chance.choice(PARTS)],
            ]
        )
    return "".join(parts)


def plain_encode(text: str, tokenizer: Tokenizer) -> list[int]:
    """The definition: cut, then merge after merge, each from the left."""
    ids = []
    pieces = PATTERNS[tokenizer.pattern].regex.findall(text)
    ranks = {pair: id for id, pair in enumerate(tokenizer.merges, 256)}
    for piece in pieces:
        word = list(piece.encode())
        while True:
            pairs = [
                pair for pair in zip(word, word[1:], strict=False) if pair in ranks
            ]
            if not pairs:
                break
            best = min(pairs, key=ranks.__getitem__)
            merged, at = [], 0
            while at < len(word):
                here = tuple(word[at : at + 2]) == best
                merged.append(ranks[best] if here else word[at])
                at += 2 if here else 1
            word = merged
        ids += word
    return ids


@pytest.fixture(scope="module")
def trained() -> list[Tokenizer]:
    """One for each pattern, with merges of code, of emoji and of specials' names."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = ["argparse", "random", "heapq", "typing"]
    texts = [(folder / f"{name}.py").read_text("utf-8") for name in names]
    chance = random.Random("training")
    texts += [random_text(chance) + forged(chance) for _ in range(2000)]
    return [train_tokenizer(texts, 2000, SPECIALS, name) for name in PATTERNS]


@pytest.fixture
def report(capsys) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return say


def test_random_strings_come_back(trained, report):
    tokens = 0
    for seed, chance in chances("string"):
        tokenizer, text = chance.choice(trained), random_text(chance)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text, seed
        assert max(ids, default=0) < tokenizer.vocabulary - len(SPECIALS), seed
        tokens += len(ids)
    report(f"{TRIALS:,} random strings came back ({tokens:,} tokens)")


def test_random_bytes_come_back(trained, report):
    for seed, chance in chances("bytes"):
        tokenizer, data = chance.choice(trained), random_bytes(chance)
        ids = tokenizer.encode_bytes(data)
        assert tokenizer.decode_bytes(ids) == data, seed
        assert tokenizer.decode(ids) == data.decode("utf-8", "replace"), seed
    report(f"{TRIALS:,} random byte strings came back")


def test_no_text_gives_a_special(trained, report):
    named = 0
    refusing = SpecialPolicy(refuse=frozenset(SPECIALS))
    for seed, chance in chances("injection"):
        tokenizer, text = chance.choice(trained), forged(chance)
        ids = tokenizer.encode(text)
        assert not {*ids} & {*tokenizer.specials.values()}, seed
        assert tokenizer.decode(ids) == text, seed
        if any(name in text for name in SPECIALS):
            named += 1
            with pytest.raises(ValueError, match="expected text without it"):
                pytest.fail(f"{seed}: {tokenizer.encode(text, policy=refusing)}")
        else:
            assert tokenizer.encode(text, policy=refusing) == ids, seed
    assert TRIALS / 4 < named < TRIALS
    report(f"{TRIALS:,} injections gave no special; {named:,} of {named:,} refused")


def test_named_specials_are_the_only_ones(trained):
    allowing = SpecialPolicy(allow=frozenset(SPECIALS[:1]))
    for seed, chance in chances("allowed", 10):
        tokenizer, text = chance.choice(trained), forged(chance)
        ids = tokenizer.encode(text, policy=allowing)
        found = [id for id in ids if id in tokenizer.specials.values()]
        assert found == [tokenizer.specials[SPECIALS[0]]] * text.count(SPECIALS[0]), (
            seed
        )
        assert tokenizer.decode(ids) == text, seed


def test_ids_equal_the_definition(trained, report):
    for seed, chance in chances("definition", 10):
        tokenizer, text = chance.choice(trained), random_text(chance)
        assert tokenizer.encode(text) == plain_encode(text, tokenizer), seed
    report(f"{TRIALS // 10:,} texts gave the ids of the definition")


def test_ids_equal_tiktokens(trained, report):
    theirs = [tiktoken.Encoding(**to_tiktoken(tokenizer)) for tokenizer in trained]
    for seed, chance in chances("tiktoken", 10):
        place, text = chance.randrange(len(trained)), random_text(chance)
        assert trained[place].encode(text) == theirs[place].encode_ordinary(text), seed
    report(f"{TRIALS // 10:,} texts gave tiktoken's ids")


def test_ids_equal_hugging_faces(report, tmp_path):
    # "end" as a special has no id of its own there, so other specials here.
    folder = Path(sysconfig.get_path("stdlib"))
    chance = random.Random("training")
    texts = [(folder / "argparse.py").read_text("utf-8")]
    texts += [random_text(chance) + forged(chance) for _ in range(1000)]
    pairs = []
    for name in PATTERNS:
        tokenizer = train_tokenizer(texts, 1500, SPECIALS[:2], name)
        to_huggingface(tokenizer, tmp_path / "tokenizer.json")
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        theirs.encode_special_tokens = True
        pairs.append((tokenizer, theirs))
    for seed, chance in chances("Hugging Face", 10):
        (ours, theirs), text = chance.choice(pairs), random_text(chance)
        assert ours.encode(text) == theirs.encode(text).ids, seed
    report(f"{TRIALS // 10:,} texts gave Hugging Face's ids")


def test_streams_equal_the_whole(trained, report):
    for seed, chance in chances("stream", 10):
        tokenizer, text = chance.choice(trained), random_text(chance)
        data = text.encode()
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(4))
        ids = []  # cut inside characters, so that tokens end there too
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            ids += tokenizer.encode_bytes(data[start:end])
        assert "".join(tokenizer.decode_stream(iter(ids))) == text, seed
        wild = [chance.randrange(tokenizer.vocabulary) for _ in range(12)]
        streamed = "".join(tokenizer.decode_stream(iter(wild)))
        assert streamed == tokenizer.decode(wild), seed
    report(f"{TRIALS // 10:,} streams cut at random equal the whole")


FAMILIES = {
    "one letter": lambda n: b"a" * n,
    "one space": lambda n: b" " * n,
    "new lines": lambda n: b"\n" * n,
    "digits": lambda n: b"7" * n,
    "apostrophes": lambda n: b"'" * n,
    "alternating case": lambda n: b"aB" * (n // 2),
    "punctuation": lambda n: b"!?" * (n // 2),
    "Chinese": lambda n: (
        "".join(map(chr, range(0x4E00, 0x9F00))).encode() * (n // 60000)
    ),
    "combining marks": lambda n: "\u0301".encode() * (n // 2),
    "NUL": lambda n: bytes(n),
    "lone 0x80": lambda n: b"\x80" * n,
    "random": lambda n: random.Random(n).randbytes(n),
}
SIZES = (120_000, 1_200_000, 12_000_000)[: 2 + LONG]
MEMORY = """
import os, resource, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from cort33x_lib.text.tokenizer import Tokenizer
from test_fuzz import FAMILIES
tokenizer = Tokenizer.load({path!r})
tokenizer.encode_array(b"warm" * 50)
for name, make in FAMILIES.items():
    data = make({size})
    if os.fork() == 0:
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        ids = tokenizer.encode_array(data)
        unit = 1 if sys.platform == "darwin" else 1024
        print(name, len(ids), (peak() - before) * unit / len(data), sep="|", flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_input_stays_linear(family, trained):
    for tokenizer in trained:
        counts = []
        for size in SIZES:
            data = FAMILIES[family](size)
            ids = tokenizer.encode_array(data)
            assert tokenizer.decode_bytes(ids) == data
            counts.append(len(ids))
        for small, large in zip(counts, counts[1:], strict=False):
            assert large <= 10.1 * small + 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="reads a child's peak memory")
def test_hostile_input_takes_little_memory(trained, report, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained[0].save(path)
    script = MEMORY.format(root=str(ROOT), path=str(path), size=SIZES[-1])
    command = [sys.executable, "-W", "ignore", "-c", script]
    lines = subprocess.check_output(command, text=True, cwd=ROOT).splitlines()
    peaks = {name: float(peak) for name, _, peak in (s.split("|") for s in lines)}
    assert peaks.keys() == FAMILIES.keys()
    assert max(peaks.values()) <= 60, peaks
    worst = max(peaks, key=peaks.__getitem__)
    report(
        f"{len(peaks)} hostile families of {SIZES[-1] / 1e6:.1f} MB: at most"
        f" {peaks[worst]:.0f} bytes of memory a byte ({worst})"
    )
