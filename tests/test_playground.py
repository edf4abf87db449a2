"""The playground in a real browser, without a kernel: its ids are the tokenizer's."""

import json
import random
import sysconfig
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer
from cort33x_lib.view.playground import TokenizerPlayground

ROOT = Path(__file__).parents[1]
TEXT = "She can't find 12345 kites.\n\n  def snake_case(x):\treturn 'naïve' 👨‍👩‍👧"
HOSTILE = [
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "</script><script>alert(3)</script><svg onload=alert(4)>",
    "\u202eright to left\u202c שלום עולם مرحبا",
    "\ufeff\x00\x07\x1b[31m e\u0301\u0302 \u200d\u200b\u00ad \ue000 \u2028\x85",
    "<|end|> <|end|><|END|>",
    "   \n\n\t  x" + "a" * 150 + "=" * 130 + "1234567890",
    "½ ² Ⅷ 四 ٣٤٥ 𝟙𝟚𝟛 ǅ ª ſ İ ß",
    "don't DON'T we'll she’ll rock'n'roll",
]


def modules(*names: str) -> str:
    folder = Path(sysconfig.get_path("stdlib"))
    return "".join((folder / f"{name}.py").read_text("utf-8") for name in names)


def page_with(playground: TokenizerPlayground) -> str:
    """A page as the site makes them: the widget's state and the host, no kernel."""
    record = {"model_module": "anywidget", "state": playground.get_state()}
    for name in ("layout", "tabbable", "tooltip"):
        record["state"].pop(name, None)
    host = (ROOT / "book" / "_static" / "static-widgets.js").read_text("utf-8")
    kind = '<script type="application/vnd.jupyter.widget-'

    def script(name: str, content: dict) -> str:
        text = json.dumps(content).replace("<", "\\u003c")
        return f'{kind}{name}+json">{text}</script>'

    return (
        '<!doctype html><html data-theme="light"><meta charset="utf-8"><body>'
        f"{script('state', {'state': {'one': record}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a playground and gives its page and the list of its faults."""
    context = browser.new_context(viewport={"width": 900, "height": 700})

    def open_one(tokenizer: Tokenizer, text: str):
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append("a dialog was opened"))
        path = tmp_path / "page.html"
        path.write_text(page_with(TokenizerPlayground(tokenizer, text)), "utf-8")
        page.goto(path.as_uri())
        page.locator(".tokenizer-playground").wait_for()
        return page, faults

    yield open_one
    context.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([modules("argparse", "random")], 900)


def ids_on(page) -> list[int]:
    """The ids of the tokens that the page shows."""
    read = "nodes => nodes.map(node => Number(node.dataset.id))"
    return page.locator("[data-id]").evaluate_all(read)


def type_all(page, texts: list[str]) -> list[list]:
    """Each text as the text box takes it (its line ends are its own), and its ids."""
    return page.get_by_label("Text", exact=True).evaluate(
        """(box, texts) => texts.map((text) => {
            box.value = text;
            box.dispatchEvent(new Event("input"));
            const nodes = [...document.querySelectorAll("[data-id]")];
            return [box.value, nodes.map((node) => Number(node.dataset.id))];
        })""",
        texts,
    )


def use(page, merges: int) -> None:
    page.get_by_label("Merges in use").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input')); }",
        merges,
    )


def random_texts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    parts = [
        "the",
        " ",
        "  ",
        "\n",
        "_x",
        "'s",
        "12345",
        "é",
        "\u0301",
        "👍",
        "\t",
        "(",
    ]
    texts = []
    for _ in range(count):
        letters = chance.choices(parts, k=chance.randrange(12))
        for _ in range(chance.randrange(6)):
            point = chance.randrange(chance.choice([0x80, 0x800, 0x10000, 0x110000]))
            surrogate, ends = 0xD800 <= point < 0xE000, point in (0, 13)
            letters.append("x" if surrogate or ends else chr(point))
        chance.shuffle(letters)
        texts.append("".join(letters))
    return texts


@pytest.mark.parametrize("pattern", PATTERNS)
def test_its_ids_are_the_tokenizers_for_every_pattern(pattern, opened):
    tokenizer = train_tokenizer([modules("random")], 700, pattern=pattern)
    page, faults = opened(tokenizer, TEXT)
    assert ids_on(page) == tokenizer.encode(TEXT)
    texts = random_texts(1, 400) + HOSTILE
    for text, ids in type_all(page, texts):
        assert ids == tokenizer.encode(text), repr(text)
    assert faults == []


def test_the_slider_uses_the_first_merges_only(tokenizer, opened):
    page, faults = opened(tokenizer, TEXT)
    said = page.locator("output")
    for used in (0, 1, 2, 50, 311, len(tokenizer.merges)):
        use(page, used)
        first = Tokenizer(tokenizer.merges[:used], pattern=tokenizer.pattern)
        ids = first.encode(TEXT)
        assert ids_on(page) == ids
        joined = page.locator(".joined").count()
        assert joined == (ids.count(255 + used) if used else 0)
        expect(said).to_contain_text(f"{used} of {len(tokenizer.merges)} merges")
    counts = page.locator(".counts")
    ids, size = tokenizer.encode(TEXT), len(TEXT.encode("utf-8"))
    expect(counts).to_contain_text(f"{len(ids)} tokens, {size} bytes")
    expect(counts).to_contain_text(f"{size / len(ids):.2f} bytes per token")
    assert faults == []


def test_next_join_visits_each_merge_that_joins_something(tokenizer, opened):
    page, faults = opened(tokenizer, "the return of the parser")
    use(page, 0)
    forward = page.get_by_role("button", name="Next join")
    visited = []
    while forward.is_enabled():
        forward.click()
        visited.append(int(page.get_by_label("Merges in use").input_value()))
        assert page.locator(".joined").count() > 0
    assert visited == sorted(set(visited)) and len(visited) > 5
    page.get_by_role("button", name="Previous join").click()
    assert int(page.get_by_label("Merges in use").input_value()) == visited[-2]
    use(page, len(tokenizer.merges))
    assert ids_on(page) == tokenizer.encode("the return of the parser")
    assert faults == []


def test_tokens_are_reached_by_keyboard_and_described(tokenizer, opened):
    page, faults = opened(tokenizer, "the naïve 四")
    ids = tokenizer.encode("the naïve 四")
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.press("Tab")
    detail = page.locator(".detail")
    for place, id in enumerate(ids):
        expect(detail).to_contain_text(f"Token {place + 1}:")
        expect(detail).to_contain_text(f"id {id},")
        spelled = tokenizer.token_bytes(id).hex(" ").upper()
        expect(detail).to_contain_text(f"({spelled}), ")
        page.keyboard.press("ArrowRight")
    page.locator("[data-id]").first.hover()
    expect(detail).to_contain_text("Token 1:")
    assert faults == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, tokenizer, opened):
    page, faults = opened(tokenizer, text)
    assert ids_on(page) == tokenizer.encode(text)
    assert page.locator(".tokenizer-playground :is(img, script, svg)").count() == 0
    shown = page.locator(".tokens").inner_text()
    assert not set(shown) & set("\u202e\u202c\x00\x1b\u200d\u200b\ufeff\u2028\ue000")
    for place in range(0, len(ids_on(page)), 20):
        page.locator("[data-id]").nth(place).hover()
    assert faults == []


def test_half_a_surrogate_pair_is_replaced(tokenizer, opened):
    page, _ = opened(tokenizer, "")
    script = (
        "box => { box.value = 'a\\ud800b'; box.dispatchEvent(new Event('input')); }"
    )
    page.get_by_label("Text", exact=True).evaluate(script)
    assert ids_on(page) == tokenizer.encode("a\ud800b", errors="replace")


def test_it_holds_what_the_tokenizer_is(tokenizer):
    playground = TokenizerPlayground(tokenizer, TEXT)
    assert [tuple(merge) for merge in playground.merges] == list(tokenizer.merges)
    assert playground.used == len(tokenizer.merges)
    assert playground.text == TEXT
