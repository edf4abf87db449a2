"""The model explorer in a real browser: its numbers are those of model/cost.py."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.model import places
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import (
    COSTS,
    fit_to_budget,
    forward_flops,
    parameters,
    state_bytes,
    step_seconds,
)
from cort33x_lib.view.model_explorer import LENGTHS, ROWS, WINDOWS, ModelExplorer

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "data" / "runs"
CORT33X = CONFIGS["cort33x"]
RATE, UPDATE = 1e11, 2e-9


def page_with(explorer: ModelExplorer) -> str:
    """A page as the site makes them: the widget's state and the host, no kernel."""
    record = {"model_module": "anywidget", "state": explorer.get_state()}
    for name in ("layout", "tabbable", "tooltip"):
        record["state"].pop(name, None)
    host = (ROOT / "book" / "_static" / "static-widgets.js").read_text("utf-8")
    # The stand-in for the kernel keeps what the widget computes; let the test read it.
    host = host.replace(
        "isStatic: true,", "isStatic: true, state: window.held = state,"
    )
    kind = '<script type="application/vnd.jupyter.widget-'

    def script(name: str, content: dict) -> str:
        return f'{kind}{name}+json">{json.dumps(content)}</script>'

    return (
        '<!doctype html><html data-theme="light"><meta charset="utf-8"><body>'
        f"{script('state', {'state': {'one': record}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """Opens an explorer and gives its page and the list of its faults."""
    context = browser.new_context(viewport={"width": 900, "height": 900})

    def open_one(explorer: ModelExplorer):
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        path = tmp_path / "page.html"
        path.write_text(page_with(explorer), "utf-8")
        page.goto(path.as_uri())
        page.locator(".model-explorer").wait_for()
        return page, faults

    yield open_one
    context.close()


def choose(page, settings: list[dict]) -> list[dict]:
    """Set the controls; for each setting, what was computed and what is said."""
    return page.evaluate(
        """(settings) => settings.map((setting) => {
            const labels = [...document.querySelectorAll(".model-explorer label")];
            for (const [name, value] of Object.entries(setting)) {
                const label = labels.find((one) => one.textContent.startsWith(name));
                const input = label.querySelector("input");
                input.value = value;
                input.dispatchEvent(new Event("input"));
            }
            const said = document.querySelector(".model-explorer output").textContent;
            return {...window.held.chosen, said};
        })""",
        settings,
    )


def expected(
    pattern: str, budget: int, window: int, vocabulary: int, step: int
) -> dict | None:
    config = replace(CORT33X, pattern=pattern, window=window, vocabulary=vocabulary)
    try:
        config = fit_to_budget(config, budget)
    except ValueError:
        return None
    flops = [sum(forward_flops(config, length).values()) for length in LENGTHS]
    return {
        "feed_forward": config.feed_forward,
        "parts": parameters(config),
        "total": sum(parameters(config).values()),
        "flops": pytest.approx(flops),
        "state": [state_bytes(config, length) for length in LENGTHS],
        "tokens_per_second": pytest.approx(
            step / step_seconds(config, 1024, step, RATE, UPDATE)
        ),
    }


def test_its_numbers_are_those_of_the_library(opened):
    page, faults = opened(ModelExplorer(CORT33X, RATE, UPDATE))
    chance, refused = random.Random(0), 0
    budgets = [10e6, 20e6, 35e6, 50e6, 70e6, 100e6]
    vocabularies = [1024, 2048, 4096, 8192, 16384, 32768]
    settings = [
        {
            "Pattern": "".join(chance.choices([*COSTS], k=chance.randrange(1, 25))),
            "Budget": chance.randrange(6),
            "Window": chance.randrange(len(WINDOWS)),
            "Vocabulary": chance.randrange(6),
            "Step": chance.randrange(len(ROWS)),
        }
        for _ in range(300)
    ]
    for setting, computed in zip(settings, choose(page, settings), strict=True):
        pattern, budget, window, vocabulary, step = setting.values()
        right = expected(
            pattern,
            int(budgets[budget]),
            WINDOWS[window],
            vocabularies[vocabulary],
            1024 * ROWS[step],
        )
        if right is None:
            assert "nothing is left" in computed["said"]
        else:
            assert {name: computed[name] for name in right} == right
            assert computed["said"].startswith(f"{right['total']:,} parameters")
        refused += right is None
    assert 10 < refused < 200
    assert faults == []


def test_it_starts_with_the_model_it_was_given(opened):
    page, faults = opened(ModelExplorer(CORT33X, RATE, UPDATE))
    assert page.evaluate("window.held.chosen")["feed_forward"] == CORT33X.feed_forward
    expect(page.locator("output")).to_contain_text("35,076,120 parameters")
    assert page.locator("svg").count() == 2
    assert page.locator(".bar span").all_text_contents() == ["12%", "18%", "70%"]
    assert page.get_by_role("slider", name="Budget").get_attribute(
        "aria-valuetext"
    ) == ("35.0 M parameters")
    assert faults == []


def test_it_says_what_its_forecast_holds(opened):
    page, faults = opened(ModelExplorer(CORT33X, RATE, UPDATE))
    said = page.locator("output")
    expect(said).to_contain_text("at 100 GFLOP/s, and an update of 70 ms every 1,024")
    few = page.evaluate("window.held.chosen.tokens_per_second")
    page.get_by_role("slider", name="Step").press("End")
    expect(said).to_contain_text("every 131,072 tokens")
    many = page.evaluate("window.held.chosen.tokens_per_second")
    # an update for each row, or for all of them
    assert 1024 / few - 1024 / many == pytest.approx(0.0702 * 127 / 128, rel=1e-3)
    assert faults == []


def test_a_wrong_letter_is_named_and_mended_by_the_keyboard(opened):
    page, faults = opened(ModelExplorer(CORT33X, RATE, UPDATE))
    text = page.get_by_label("Pattern", exact=True)
    text.focus()
    page.keyboard.press("End")
    page.keyboard.type("q")
    expect(page.locator("output")).to_contain_text("No mixer is called Q")
    assert text.get_attribute("aria-invalid") == "true"
    page.keyboard.press("Backspace")
    page.keyboard.type("f")  # small letters will do
    assert page.evaluate("window.held.pattern") == CORT33X.pattern + "F"
    expect(page.locator("output")).to_contain_text("parameters, feed-forward layers")
    text.fill("")
    expect(page.locator("output")).to_contain_text("one letter a layer")
    page.get_by_role("button", name="WFWFWFWFWFWF").press("Enter")
    assert page.evaluate("window.held.pattern") == "WF" * 6
    page.get_by_role("slider", name="Window").press("ArrowRight")
    assert page.evaluate("window.held.window") == 512
    assert faults == []


def test_it_takes_a_shape_that_is_in_no_list(opened):
    config = replace(CONFIGS["tiny"], context=100, window=7, vocabulary=99)
    page, faults = opened(ModelExplorer(config, RATE, UPDATE, budget=50_000))
    found = page.evaluate("window.held.chosen")
    config = fit_to_budget(config, 50_000)
    assert found["total"] == sum(parameters(config).values())
    assert page.evaluate("window.held.lengths")[0] == 100
    assert faults == []


def test_the_forecast_is_within_three_times_of_all_recorded_steps():
    """The rate is that of one recorded step; AdamW moves 40 bytes for a parameter."""
    kept = json.loads((RUNS / "training-step.json").read_text("utf-8"))["cells"]
    memory = json.loads((RUNS / "decoding.json").read_text("utf-8"))["bandwidth"]
    update = 40 / (memory["gb_per_second"] * 1e9)
    reference = CONFIGS["cort33x"]
    seconds = 1024 / kept["cort33x, 1 x 1,024"]["mixed"]["tokens_per_second"]
    seconds -= update * sum(parameters(reference).values())
    rate = 3 * 1024 * sum(forward_flops(reference, 1024).values()) / seconds
    ratios = {}
    for cell, (config, rows, tokens) in places().items():
        for name in ("mixed", "uniform"):
            if name == "uniform":
                config = replace(config, pattern="F" * len(config.pattern))
            step = rows * tokens
            said = step / step_seconds(config, tokens, step, rate, update)
            ratios[cell, name] = said / kept[cell][name]["tokens_per_second"]
    print(f"\nforecast / measured: {min(ratios.values()):.2f} to", end="")
    print(f" {max(ratios.values()):.2f}, n = {len(ratios)}")
    assert all(1 / 3 < ratio < 3 for ratio in ratios.values())
