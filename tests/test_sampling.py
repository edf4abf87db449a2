"""The sampling explorer in a real browser, without a kernel: it computes as PyTorch."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect

from cort33x_lib.lab.folder import FolderError, load_folder, save_folder
from cort33x_lib.lab.generation import Sampling
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.patterns import PATTERNS
from cort33x_lib.text.tokenizer import train_tokenizer
from cort33x_lib.view.sampling import HERE, SamplingExplorer
from run import ROOT

RECORDED = ROOT / "data" / "runs" / "tour-model"
TOLERANCE = 1e-3  # between logits in PyTorch's single precision and the browser's
TEXT = "Mia had a kite, and Tom's naïve dog ate 12 plums 👨‍👩‍👧. "
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\u202e\x07"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in int8 with shared heads, both letters, and a context soon full."""
    tokenizer = train_tokenizer([TEXT * 9 + "the end of the text"], 300)
    shape = dict(vocabulary=300, heads=4, head_channels=8, key_value_heads=2)
    model = Transformer(replace(CONFIGS["tiny"], **shape, pattern="WFWF", context=48))
    generator = torch.Generator().manual_seed(0)
    for weights in model.parameters():
        weights.data.normal_(0, 0.3, generator=generator)
    at = tmp_path_factory.mktemp("model")
    return save_folder(at, model, tokenizer, int8=True)


def page_with(explorer: SamplingExplorer) -> str:
    """A page as the site makes them: the widget's state and the host, no kernel."""
    state = explorer.get_state()
    for name in ("layout", "tabbable", "tooltip"):
        state.pop(name, None)
    data = base64.b64encode(state.pop("weights")).decode()
    buffers = [{"path": ["weights"], "encoding": "base64", "data": data}]
    record = {"model_module": "anywidget", "state": state, "buffers": buffers}
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
    """Opens an explorer and gives its page and the list of its faults."""
    context = browser.new_context(viewport={"width": 900, "height": 900})

    def open_one(folder: Path, prompt: str = TEXT):
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append("a dialog was opened"))
        path = tmp_path / "page.html"
        path.write_text(page_with(SamplingExplorer(folder, prompt)), "utf-8")
        page.goto(path.as_uri())
        page.locator(".sampling-explorer").wait_for()
        return page, faults

    yield open_one
    context.close()


def run_script(page, body: str, given: object) -> object:
    """What a function body computes in the page, with the names of forward.js."""
    script = (HERE / "forward.js").read_text("utf-8")
    program = """async ([script, body, given]) => {
        const source = `${script}\\nexport default (given) => { ${body} }`;
        const blob = new Blob([source], { type: "text/javascript" });
        const { default: found } = await import(URL.createObjectURL(blob));
        return JSON.stringify(found(given));
    }"""
    return json.loads(page.evaluate(program, [script, body, given]))


READ = """
    const bytes = Uint8Array.from(atob(given.weights), (c) => c.charCodeAt(0));
    const reader = new Reader(new DataView(bytes.buffer), given.config);
    const all = given.ids.map((id) => [...reader.read(id)]);
    reader.forget(given.back);
    const again = given.ids.slice(given.back).map((id) => [...reader.read(id)]);
    return [all, again];
"""


def read_in_browser(page, folder, ids, back):
    explorer = SamplingExplorer(folder, "")
    weights = base64.b64encode(explorer.weights).decode()
    given = dict(weights=weights, config=explorer.config, ids=ids, back=back)
    return run_script(page, READ, given)


@torch.inference_mode()
def check_logits(page, folder, ids, back):
    model, _ = load_folder(folder)
    expected = model(torch.tensor([ids]))[0][0].double()
    all_logits, again = (
        torch.tensor(found, dtype=torch.float64)
        for found in read_in_browser(page, folder, ids, back)
    )
    assert expected.std() > 0.5
    assert (all_logits - expected).abs().max() < TOLERANCE
    assert torch.equal(again, all_logits[back:])


def test_its_logits_are_pytorchs_at_every_place(folder, opened):
    page, faults = opened(folder)
    ids = torch.randint(0, 300, (48,), generator=torch.Generator().manual_seed(1))
    check_logits(page, folder, ids.tolist(), back=20)
    assert faults == []


@pytest.mark.skipif(not RECORDED.exists(), reason="data/runs/tour-model is not there")
def test_the_recorded_models_logits_are_pytorchs_and_it_is_small(opened):
    page, faults = opened(RECORDED, "")
    _, tokenizer = load_folder(RECORDED)
    text = "Once upon a time, Mia and Tom lived in Willowton. Mia had 3 plums. " * 9
    ids = [tokenizer.specials["<|end|>"], *tokenizer.encode(text)][:120]
    check_logits(page, RECORDED, ids, back=110)
    assert sum(path.stat().st_size for path in RECORDED.iterdir()) < 2_000_000
    assert faults == []


SETTINGS = [
    {},
    {"temperature": 0},
    {"temperature": 0.01},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 20},
    {"top_k": 5000},
    {"top_p": 0.05},
    {"top_p": 0.9},
    {"min_p": 0.2},
    {"repetition_penalty": 1.7},
    {"temperature": 0.6, "top_k": 50, "top_p": 0.8, "min_p": 0.05,
     "repetition_penalty": 1.3},
]  # fmt: skip


def test_it_draws_from_what_the_library_draws_from(folder, opened):
    page, _ = opened(folder)
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(1, 300, generator=generator, dtype=torch.float64)
    seen = torch.rand(1, 300, generator=generator) < 0.3
    ids = seen[0].nonzero().flatten().tolist()
    standing = dict(temperature=1, top_k=0, top_p=1, min_p=0, repetition_penalty=1)
    given = [[logits[0].tolist(), ids, standing | options] for options in SETTINGS]
    body = "return given.map((one) => [...narrow(...one)]);"
    for options, found in zip(SETTINGS, run_script(page, body, given), strict=True):
        expected = Sampling(**options).probabilities(logits, seen)[0].tolist()
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), options


def test_draws_follow_their_shares(folder, opened):
    page, _ = opened(folder)
    shares = [0.0, 0.5, 0.125, 0.0, 0.375, 0.0]
    body = """
        const [next, counts] = [lots(7), given.map(() => 0)];
        for (let n = 0; n < 20000; n++) counts[draw(given, next())]++;
        return counts;
    """
    counts = run_script(page, body, shares)
    for share, count in zip(shares, counts, strict=True):
        assert abs(count - 20000 * share) <= 5 * (20000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_its_tokenizer_is_the_librarys(pattern, folder, opened):
    tokenizer = train_tokenizer([TEXT * 9], 290, pattern=pattern)
    page, _ = opened(folder)
    texts = [TEXT, "", "   x\n\n y's", HOSTILE, "<|end|>", "a" * 150, "é\u0301👍"]
    given = [tokenizer.merges, PATTERNS[pattern].expression, texts]
    body = """
        const pieces = new Pieces(given[0], given[1]);
        const both = (ids) => [ids, pieces.decode(ids)];
        return given[2].map((text) => both(pieces.encode(text)));
    """
    for text, (ids, back) in zip(texts, run_script(page, body, given), strict=True):
        assert ids == tokenizer.encode(text)
        assert back == text


def bars(page) -> list[list]:
    """The id and the stated share of each bar."""
    read = """rows => rows.map(row => [
        Number(row.dataset.id), row.querySelector('.share').textContent])"""
    return page.locator(".bars button").evaluate_all(read)


@torch.inference_mode()
def expected_bars(folder, ids, **options) -> list[list]:
    model, _ = load_folder(folder)
    logits = model(torch.tensor([ids]))[0][:, -1].double()
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    seen[0, ids] = True
    shares = Sampling(**options).probabilities(logits, seen)[0]
    order = logits[0].sort(descending=True).indices[:12].tolist()
    return [[id, 100 * shares[id].item()] for id in order]


def same_bars(found, expected):
    assert [id for id, _ in found] == [id for id, _ in expected]
    for (_, text), (_, share) in zip(found, expected, strict=True):
        shown = 0 if text == "0" else 0.03 if "<" in text else float(text.strip("%"))
        assert abs(shown - share) < 0.11


def move(page, label: str, value: float) -> None:
    page.get_by_label(label, exact=True).fill(str(value))


def test_the_bars_are_the_models_and_follow_the_sliders(folder, opened):
    page, faults = opened(folder)
    _, tokenizer = load_folder(folder)
    ids = [tokenizer.specials["<|end|>"], *tokenizer.encode(TEXT)]
    same_bars(bars(page), expected_bars(folder, ids, temperature=0.6))
    move(page, "Temperature", 1.5)
    move(page, "Top-k", 4)  # the fifth of the list: 10
    move(page, "Repetition penalty", 1.5)
    options = dict(temperature=1.5, top_k=10, repetition_penalty=1.5)
    same_bars(bars(page), expected_bars(folder, ids, **options))
    page.get_by_label("Prompt").fill("the dog")
    ids = [tokenizer.specials["<|end|>"], *tokenizer.encode("the dog")]
    same_bars(bars(page), expected_bars(folder, ids, **options))
    page.locator(".bars button").nth(2).click()
    ids.append(expected_bars(folder, ids, **options)[2][0])
    same_bars(bars(page), expected_bars(folder, ids, **options))
    assert faults == []


def test_the_same_seed_writes_the_same_text_in_one_go_or_by_hand(folder, opened):
    page, faults = opened(folder, "the dog")
    written, status = page.locator(".written"), page.locator(".status")
    done = "document.querySelector('.status').textContent.startsWith('The ')"
    move(page, "Temperature", 1.5)
    page.get_by_role("button", name="Write").click()
    page.wait_for_function(done)
    first = written.inner_text()
    expect(status).to_have_text("The context is full.")
    assert page.get_by_role("button", name="One token").is_disabled()
    page.get_by_role("button", name="Start again").click()
    expect(written).to_have_text("the dog")
    for _ in range(10):
        page.get_by_role("button", name="One token").press("Enter")
    expect(status).to_contain_text("10 tokens")
    part = written.inner_text()
    assert first.startswith(part.rstrip()) and len(part) > len("the dog")
    page.get_by_role("button", name="Write").press("Space")
    page.wait_for_function(done)
    assert written.inner_text() == first
    move(page, "Seed", 1)
    page.get_by_role("button", name="Write").click()
    page.wait_for_function(done)
    assert written.inner_text() != first
    assert faults == []


def test_sliders_are_reached_and_moved_by_keyboard(folder, opened):
    page, _ = opened(folder)
    page.get_by_label("Prompt").focus()
    page.keyboard.press("Tab")
    for label in ("Temperature", "Top-k", "Top-p", "Min-p", "Repetition penalty"):
        slider = page.get_by_label(label, exact=True)
        expect(slider).to_be_focused()
        before = slider.get_attribute("aria-valuetext")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") != before
        page.keyboard.press("Tab")
    expect(page.locator(".bars button").first).to_be_focused()


def test_hostile_text_stays_text(folder, opened):
    page, faults = opened(folder, HOSTILE)
    page.get_by_role("button", name="One token").click()
    assert page.locator(".sampling-explorer :is(img, script)").count() == 0
    assert faults == []


def test_a_prompt_longer_than_the_context_is_cut_and_nothing_breaks(folder, opened):
    page, faults = opened(folder, TEXT * 20)
    page.get_by_role("button", name="One token").click()
    expect(page.locator(".status")).to_have_text("The context is full.")
    assert faults == []


def test_models_that_the_browser_cannot_read_are_refused(folder, tmp_path):
    model, tokenizer = load_folder(folder)
    save_folder(tmp_path / "a", model, tokenizer)
    with pytest.raises(FolderError, match="float32 weights, .* expected int8"):
        SamplingExplorer(tmp_path / "a", "")
    with pytest.raises(FolderError, match="config.json cannot be read"):
        SamplingExplorer(tmp_path / "b", "")
