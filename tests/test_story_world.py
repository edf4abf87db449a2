"""The story world: exact likelihood, one reading a text, right answers, splits."""

import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cort33x_lib.text.story_plot import Tale
from cort33x_lib.text.story_world import DATA, SPLITS, World

HOME = Path(__file__).resolve().parents[1]
GOLDEN = "03874e3bb977189997f63eb4e031c0b29fc6d9e3ced392a73409923ff27786c6"


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


def fingerprint(world: World) -> str:
    texts = "\n".join(story.text for story in world.stories("train", 200))
    return hashlib.sha256(texts.encode()).hexdigest()


# --- the same everywhere ---------------------------------------------------------


def test_first_stories_are_the_recorded_ones(world):
    assert fingerprint(world) == GOLDEN


@pytest.mark.parametrize("hash_seed", ["77"])
def test_another_process_tells_the_same_stories(hash_seed):
    code = (
        "import hashlib; from cort33x_lib.text.story_world import World; "
        "t = '\\n'.join(s.text for s in World.load().stories('train', 200)); "
        "print(hashlib.sha256(t.encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=HOME,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == GOLDEN


def test_a_story_does_not_depend_on_those_before_it(world):
    alone = World.load().story("test", 31, seed=5)
    assert alone == list(world.stories("test", 32, seed=5))[31]
    assert alone.unit == f"story-world-{world.lexicon.version}/test/5/31"
    assert alone.licence == "CC BY 4.0"
    for part in ("test", "seed 5", "index 31", f"world {world.lexicon.version}"):
        assert part in alone.origin
    assert alone.text != world.story("test", 31, seed=6).text


def test_splits_share_no_text(world):
    seen: dict[str, str] = {}
    for split in SPLITS:
        own = {story.text for story in world.stories(split, 20_000 // len(SPLITS))}
        assert not own & seen.keys()
        seen |= dict.fromkeys(own, split)


def test_an_unknown_split_is_refused(world):
    with pytest.raises(ValueError, match="train.*validation.*test.*composition"):
        world.story("dev", 0)


# --- one reading a text ----------------------------------------------------------


class Repeater:
    """Tells a story again from the option texts that a reader has found."""

    def __init__(self, options: list[str]):
        self.options = iter(options)
        self.parts: list[str] = []
        self.say = self.parts.append

    def choose(self, table):
        option = next(self.options)
        self.say(option)
        return table.values[table.place[option]]

    def choose_except(self, table, excluded, mass):
        return self.choose(table)

    def pick(self, texts):
        option = next(self.options)
        self.say(option)
        return list(texts).index(option)


@pytest.mark.parametrize("split", SPLITS)
def test_reader_recovers_likelihood_and_choices(world, split):
    for number, story in enumerate(world.stories(split, 3_000)):
        reading = world.read(story.text, split)
        assert abs(reading.nll - story.nll) < 1e-9
        assert abs(reading.nll - math.fsum(n for _, n in reading.choices)) < 1e-9
        if number >= 1_000:
            continue
        repeater = Repeater([option for option, _ in reading.choices])
        Tale(world.lexicon, repeater, split == "composition").tell()
        assert "".join(repeater.parts) == story.text


def test_reader_refuses_what_the_world_cannot_write(world):
    text = world.story("train", 3).text
    name = text.split(" had ")[0].split()[-1]
    edits = {
        "trailing": text + " The end.",
        "space": text + " ",
        "cut": text[: len(text) // 2],
        "empty": "",
        "double space": text.replace(". ", ".  ", 1),
        "lower": text.replace(name, name.lower(), 1),
        "unknown word": text.replace(" the ", " teh ", 1),
        "other name": text.replace(name, "Rumpelstiltskin"),
    }
    for edit, wrong in edits.items():
        with pytest.raises(ValueError, match="at character [0-9]+ expected"):
            world.read(wrong)
            pytest.fail(edit)


def test_reader_refuses_a_wrong_sum(world):
    found = 0
    for story in world.stories("train", 200):
        match = re.search(r"Now [A-Z][a-z]+ had ([0-9]+)", story.text)
        if match:
            found += 1
            start, end = match.span(1)
            wrong = story.text[:start] + str(int(match[1]) + 1) + story.text[end:]
            with pytest.raises(ValueError, match="at character"):
                world.read(wrong)
    assert found > 50


def test_a_story_of_one_split_is_not_one_of_the_other(world):
    for story in world.stories("composition", 50):
        with pytest.raises(ValueError, match="at character"):
            world.read(story.text, "train")


# --- small worlds, written out in full -------------------------------------------

SMALL_LISTS = {
    "girls": "Mia",
    "boys": "Bo",
    "villages": "[onsets] Oak [endings] ton",
    "surnames": "[onsets] Hart [endings] by",
    "places": "mill|at barn|in",
    "foods": "plum|plums",
    "containers": "box",
    "adjectives": "old",
    "colours": "red",
    "materials": "tin",
    "animals": "cat",
    "plants": "oak",
    "weather": "fine",
    "feelings": "glad",
    "traits": "shy",
    "verbs": "sang",
    "adverbs": "softly",
    "jobs": "king",
    "activities": "chess",
    "moods": "sad",
}
THINGS = "drum kite key cup ball bell hat map ring pen coin lamp".split()
PICKED = {"give": 2}  # sections that keep more than one entry
SMALL_WORLDS = {  # kinds of sentences, things, limits
    "gifts": (
        "go give steal see who where seen first last",
        9,
        {"beats": [1, 1], "quiz": 1, "finds": 0, "amounts": [3, 3]},
    ),
    "boxes": (
        "go give put take find see get scenery",
        12,
        {"beats": [1, 1], "quiz": 0, "finds": 1, "amounts": [3, 3]},
    ),
    "sums": (
        "go gain lose how_many sum then day_1",
        9,
        {"beats": [1, 2], "quiz": 0, "finds": 0, "amounts": [3, 3]},
    ),
}
ALWAYS = {"bare", "closing", "first_beat", "end"}


def small_world(folder: Path, name: str, **changes) -> World:
    """A world with so few words that all its texts can be listed."""
    kinds, things, limits = SMALL_WORLDS[name]
    folder.mkdir(exist_ok=True)
    for file, words in SMALL_LISTS.items():
        text = words.replace(" ", "\n").replace("|", " | ")
        (folder / f"{file}.txt").write_text(text + "\n")
    (folder / "things.txt").write_text("\n".join(THINGS[:things]) + "\n")
    lines, kept = [], 0
    for line in (DATA / "phrases.txt").read_text().splitlines():
        if line.startswith("["):
            section, kept = line[1:-1], 0
        elif line and not line.startswith("#"):
            kept += 1
            if kept > PICKED.get(section, 1) + (section == "inside"):
                continue
            if section == "inside" and (kept == 1) == (name == "boxes"):
                continue
        lines.append(line)
    (folder / "phrases.txt").write_text("\n".join(lines) + "\n")
    numbers = (DATA / "world.toml").read_text()
    usual = {
        "people": "{ 2 = 1 }",
        "places": 2,
        "asks": 1,
        "asides": 2,
        "gains": [4, 5],
        "largest": 9,
    }
    limits = usual | limits | changes
    head, tail = numbers.split("[limits]\n")
    rest = tail[tail.index("\n[kinds]") :]
    head = re.sub("pairs = [0-9]+", "pairs = 3", head)
    body = "\n".join(f"{key} = {value}" for key, value in limits.items())
    chosen = ALWAYS | set(kinds.split())
    for kind in re.findall(r"^(\w+) =", rest, re.M):
        if kind not in chosen:
            rest = re.sub(rf"^{kind} = .*$", f"{kind} = 0", rest, flags=re.M)
    (folder / "world.toml").write_text(f"{head}[limits]\n{body}\n{rest}")
    return World.load(folder)


class Enumerator:
    """Follows one path of choices and notes how many ways there were at each."""

    def __init__(self, path: list[int]):
        self.path = path
        self.ways: list[int] = []
        self.parts: list[str] = []
        self.say = self.parts.append
        self.probability = 1.0

    def step(self, weights: list[float]) -> int:
        depth = len(self.ways)
        self.ways.append(len(weights))
        if depth == len(self.path):
            self.path.append(0)
        way = self.path[depth]
        if len(weights) > 1:
            self.probability *= weights[way] / sum(weights)
        return way

    def choose(self, table):
        way = self.step(table.weights)
        self.say(table.texts[way])
        return table.values[way]

    def choose_except(self, table, excluded, mass):
        rows = zip(table.texts, table.weights, table.values, strict=True)
        left = [row for row in rows if row[2] not in excluded]
        text, _, value = left[self.step([weight for _, weight, _ in left])]
        self.say(text)
        return value

    def pick(self, texts):
        way = self.step([1] * len(texts))
        self.say(texts[way])
        return way


def all_texts(world: World, special: bool):
    """Every text of a small world with its probability, by walking all paths."""
    path: list[int] = []
    while True:
        walker = Enumerator(path)
        Tale(world.lexicon, walker, special).tell()
        yield "".join(walker.parts), walker.probability
        while path and path[-1] == walker.ways[len(path) - 1] - 1:
            path.pop()
        if not path:
            return
        path[-1] += 1


@pytest.fixture(scope="module", params=sorted(SMALL_WORLDS))
def listed(request, tmp_path_factory):
    world = small_world(tmp_path_factory.mktemp(request.param), request.param)
    texts = list(all_texts(world, special=False))
    return request.param, world, texts


def test_small_worlds_use_every_kind_of_sentence():
    used = {kind for kinds, _, _ in SMALL_WORLDS.values() for kind in kinds.split()}
    known = World.load().lexicon.kinds.keys()
    assert known == used | ALWAYS | {"day_2", "day_3"}  # day_1 stands for them


def test_probabilities_sum_to_one_and_no_text_has_two_derivations(listed):
    _, world, texts = listed
    assert 1_000 < len(texts) < 1_000_000
    assert math.fsum(p for _, p in texts) == pytest.approx(1, abs=1e-9)
    assert len({text for text, _ in texts}) == len(texts)
    for text, probability in texts[:: max(1, len(texts) // 500)]:
        assert world.read(text).nll == pytest.approx(-math.log(probability), abs=1e-9)


def test_every_kind_is_told_in_its_small_world(listed):
    name, world, texts = listed
    told = set()
    for text, _ in texts:
        told.update(text.split(". ")[6:] if name == "sums" else [text])
    told = " ".join(told)
    for kind in SMALL_WORLDS[name][0].split():
        heads = world.lexicon.plot[kind].texts
        assert any(head.strip() in told for head in heads), kind


def test_mean_nll_meets_the_entropy(listed):
    _, world, texts = listed
    entropy = -math.fsum(p * math.log(p) for _, p in texts)
    square = math.fsum(p * math.log(p) ** 2 for _, p in texts)
    count = 4_000
    error = math.sqrt((square - entropy**2) / count)
    stories = list(world.stories("train", count))
    mean = math.fsum(story.nll for story in stories) / count
    assert abs(mean - entropy) < 4 * error
    assert {story.text for story in stories} <= {text for text, _ in texts}


@pytest.mark.parametrize(
    ("name", "changes"), [("gifts", {"quiz": 0}), ("sums", {"beats": [1, 1]})]
)
def test_composition_of_a_small_world_sums_to_one(tmp_path, name, changes):
    world = small_world(tmp_path, name, **changes)
    texts = list(all_texts(world, special=True))
    assert math.fsum(p for _, p in texts) == pytest.approx(1, abs=1e-9)
    assert len({text for text, _ in texts}) == len(texts)


# --- what the stories are like ---------------------------------------------------


def test_lengths_words_and_floor(world):
    stories = list(world.stories("train", 5_000))
    lengths = [len(story.text.split()) for story in stories]
    assert min(lengths) >= 60 and max(lengths) <= 300
    assert 105 <= sum(lengths) / len(lengths) <= 140
    text = " ".join(story.text for story in stories)[:3_000_000]
    types = Counter(re.findall(r"[A-Za-z'-]+", text))
    assert len(types) >= 3_000
    assert sum(count == 1 for count in types.values()) > 300  # a heavy tail
    size = sum(len(story.text.encode()) for story in stories)
    floor = sum(story.nll for story in stories) / size / math.log(2)
    assert 0.2 < floor < 1.2


def test_stories_are_clean_text(world):
    for story in world.stories("validation", 2_000):
        text = story.text
        assert text.isascii() and text == text.strip() and "  " not in text
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]", text)
        assert not re.search(r"[{}~]|\b1 [a-z]+s\b(?<!s)", text)
        for sentence in re.split(r'(?<=[.]) |(?<=[.]") ', text):
            assert re.match(r'["A-Z]', sentence), sentence
            assert sentence[-1] in '.?!"', sentence


# --- a tracker of its own: what happens, read with plain patterns ----------------

TALK = re.compile(r'"[^"]*" (?:asked|said) [A-Za-z -]+\. "[^"]*," said [A-Z][a-z]+\.')
OWN = re.compile(
    r"([A-Z][a-z]+) (?:had|owned|loved|was proud of) (?:her|his|an?) \S+ ([a-z-]+)[,. ]"
)


class Tracker:
    """Follows places, things and counts through the text of a story."""

    def __init__(self, text: str):
        setup, day, rest = re.split(
            r"(One morning, everybody was|When the day began, they were all|At sunrise "
            r"the friends met|Early that day they came together)",
            TALK.sub("", text),
        )
        self.owner = {thing: name for name, thing in OWN.findall(setup)}
        self.people = list(self.owner.values())
        self.first = dict(self.owner)
        self.last = dict(self.owner)
        self.pairs = {(name, thing) for thing, name in self.owner.items()}
        self.sums: set[tuple[int, int]] = set()
        self.box = re.search(r"([a-z-]+) (?:in|on|at) the [a-z ]+(?:, |\.)", setup)[1]
        hidden = re.search(
            r"in it was an? \S+ (\S+)\.|with an? \S+ (\S+) inside", setup
        )
        self.boxed = {hidden[1] or hidden[2]} if hidden else set()
        found = re.findall(r"([A-Z][a-z]+) (?:also had|had|carried) ([0-9]+)", setup)
        self.count = {name: int(number) for name, number in found}
        place, self.rest = re.match(
            r" ((?:at|in|on) the [a-z ]+)\. ?(.*)", rest
        ).groups()
        self.at = dict.fromkeys(self.people, place)
        self.spots = {p.split(" the ")[1]: p for p in [place]}
        self.subject = None
        for sentence in re.split(r"(?<=\.) +", self.rest):
            self.follow(sentence)

    def follow(self, sentence: str) -> None:
        names = "|".join(self.people)
        match = re.match(
            rf"(?:(?:[A-Z][a-z ]+,|Then|Soon) )?({names}|[Ss]he|[Hh]e)\b (.*)", sentence
        )
        if not match:
            return
        who, act = match.groups()
        who = self.subject if who.lower() in ("she", "he") else who
        self.subject = who
        if found := re.search(
            r"(?:went|walked|ran|hurried|off) (?:to|for) the (.*?)[,.]", act
        ):
            self.at[who] = found[1]
        elif found := re.search(r"(?:gave|handed|passed) the (\S+) to (\w+)", act):
            assert self.owner[found[1]] == who and self.near(who, found[2])
            self.hand(found[1], found[2])
        elif found := re.search(r"let (\w+) have the ([a-z-]+)", act):
            assert self.owner[found[2]] == who and self.near(who, found[1])
            self.hand(found[2], found[1])
        elif found := re.search(
            r"(?:took|snatched|stole|grabbed) the (\S+) (?:from|that belonged to) "
            rf"({names})\b",
            act,
        ):
            assert self.owner[found[1]] == found[2] and self.near(who, found[2])
            self.hand(found[1], who)
        elif found := re.match(r"(?:put|hid|laid|dropped) the (\S+) in", act):
            assert self.owner.pop(found[1]) == who
            self.boxed.add(found[1])
        elif found := re.match(
            r"(?:fetched|lifted|opened the \S+ and pulled out|reached into the \S+ and "
            r"got) the ([a-z-]+)",
            act,
        ):
            self.boxed.remove(found[1])
            self.hand(found[1], who)
        elif found := re.match(r"(?:found|bought|won|noticed) an? \S+ ([a-z-]+) ", act):
            self.pairs.add((who, found[1]))
            self.hand(found[1], who)
        elif found := re.search(r" ([0-9]+) more ", act):
            self.sums.add((self.count[who], int(found[1])))
            self.count[who] += int(found[1])
        elif found := re.search(r" ([0-9]+) of the ", act):
            self.count[who] -= int(found[1])
            assert self.count[who] > 0
        elif found := re.search(r"(?:got|upon|for) ([0-9]+) ", act):
            assert who not in self.count
            self.count[who] = int(found[1])

    def near(self, a: str, b: str) -> bool:
        def bare(place):
            return place.split(" the ")[-1]

        return bare(self.at[a]) == bare(self.at[b])

    def hand(self, thing: str, who: str) -> None:
        self.owner[thing] = self.last[thing] = who
        self.first.setdefault(thing, who)


def expected_answer(tracker: Tracker, question) -> str:
    """What the tracker would answer, places without their preposition."""
    prompt, kind = question.prompt, question.kind
    words = re.findall("[A-Za-z-]+", prompt)
    person = next((name for name in tracker.people if name in words), "")
    things = tracker.owner.keys() | tracker.boxed
    thing = next((word for word in words if word in things), "")
    if kind == "who":
        return tracker.owner[thing]
    if kind == "where":
        if thing in tracker.boxed:
            return tracker.box
        return tracker.at[tracker.owner[thing]].split(" the ")[-1]
    if kind == "how_many":
        return str(tracker.count[person])
    if kind == "sum":
        more = int(re.search("[0-9]+", prompt)[0])
        return str(tracker.count[person] + more)
    return (tracker.last if " last " in prompt else tracker.first)[thing]


def core(question) -> str:
    """The part of an answer that the tracker knows."""
    answer = question.answer.strip()
    if question.kind == "where":
        return answer.split(" the ", 1)[1]
    return answer.split()[0]


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right(world, split):
    kinds: Counter[str] = Counter()
    for story in world.stories(split, 1_000):
        tracker = Tracker(story.text)
        assert len({question.kind for question in story.questions}) >= 2
        for question in story.questions:
            assert expected_answer(tracker, question) == core(question), (
                story.text,
                question,
            )
            assert question.prompt.startswith(' "') and question.answer[0] == " "
            kinds[question.kind] += 1
    assert kinds.keys() == {"who", "where", "how_many", "sum", "first_last"}
    assert min(kinds.values()) > 400


def test_questions_have_the_form_of_the_talk_in_the_stories(world):
    """The text, a prompt, its answer and any teller make a readable story again."""
    continued = 0
    for story in world.stories("test", 150):
        if TALK.search(story.text.rsplit(". ", 3)[-1]):
            continue
        for question in story.questions:
            names = Tracker(story.text).people
            endings = (f'," said {name}.' for name in names)
            for gap in ("", " has it"):
                for ending in endings:
                    text = story.text + question.prompt + question.answer + gap + ending
                    try:
                        world.read(text, "test")
                    except ValueError:
                        continue
                    continued += 1
    assert continued > 400


def test_reserved_pairs_and_sums(world):
    lexicon = world.lexicon
    ids = {
        name: place % lexicon.pairs for place, name in enumerate(lexicon.names.texts)
    }
    things = {t: p % lexicon.pairs for p, t in enumerate(lexicon.slots["thing"].texts)}
    for split in SPLITS:
        pairs, sums = 0, 0
        for story in world.stories(split, 600):
            tracker = Tracker(story.text)
            told = tracker.pairs
            if split != "composition":
                told = told | {(name, thing) for thing, name in tracker.last.items()}
            for name, thing in told:
                reserved = (ids[name] + things[thing]) % lexicon.pairs == 0
                assert reserved == (split == "composition"), (name, thing)
                pairs += 1
            for a, b in tracker.sums:
                assert lexicon.is_reserved_sum(a, b) == (split == "composition")
                sums += 1
        assert pairs > 1_500 and sums > 100
    low, high = lexicon.limits["gains"]
    numbers = range(1, lexicon.limits["largest"])
    kept = [
        lexicon.is_reserved_sum(a, b) for a in numbers for b in range(low, high + 1)
    ]
    assert 0.03 < sum(kept) / len(kept) < 0.07


# --- broken data -----------------------------------------------------------------


def broken(tmp_path: Path, file: str, text: str | None) -> str:
    """The message of loading a small world with one file (or number) replaced."""
    small_world(tmp_path, "gifts")
    path = tmp_path / file
    if text is None:
        path.unlink()
    elif re.fullmatch(r"\w+ = [0-9]", text) and not text.startswith("version"):
        key = text.split()[0]
        path.write_text(re.sub(rf"^{key} = .*$", text, path.read_text(), flags=re.M))
    else:
        path.write_text(text)
    with pytest.raises(ValueError) as caught:
        World.load(tmp_path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("animals.txt", "cat\n# pets\ndog\ncat\n", "animals.txt:4: 'cat' is already"),
        ("animals.txt", "", "animals.txt: expected at least one entry"),
        ("animals.txt", None, "animals.txt: expected a word list"),
        ("animals.txt", "sea\nsea lion\n", "animals.txt:2: 'sea lion' begins like"),
        ("places.txt", "mill | at\nbarn\n", "places.txt:2: expected 2 field"),
        ("girls.txt", "mia\n", "girls.txt:1: expected a capitalised name"),
        ("girls.txt", "The\n", "begins like 'The'"),
        ("boys.txt", "Mia\n", "boys.txt:1: 'Mia' is also at"),
        ("things.txt", "drum\nbox\n", "'box' is also in things.txt"),
        ("things.txt", "drum\nkite\n", "expected at least 9 things"),
        ("villages.txt", "Oak\n", "villages.txt: expected the sections"),
        ("villages.txt", "[onsets]\nA\n[endings]\n", "in section [endings]"),
        ("phrases.txt", "[opening]\nOnce {cast}\n", "phrases.txt: expected a section"),
        ("world.toml", "version = 1\n", "world.toml: expected the key"),
        ("world.toml", "version = \n", "world.toml: "),
        ("world.toml", "places = 1", "at least 2 places"),
        ("world.toml", "go = 0", "expected weights above 0"),
    ],
)
def test_broken_files_are_named(tmp_path, file, text, expected):
    assert expected in broken(tmp_path, file, text)


def test_broken_phrases_are_named(tmp_path):
    lines = (DATA / "phrases.txt").read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "{new_box}" in text)
    lines[line - 1] = "There {nonsense}."
    message = broken(tmp_path, "phrases.txt", "\n".join(lines))
    assert f"phrases.txt:{line}: nothing is called {{nonsense}}" in message
