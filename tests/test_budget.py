"""The budget explorer in a real browser: its numbers are those of model/cost.py."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.cost import fit_to_budget, forward_flops, parameters
from cort33x_lib.view.budget import BudgetExplorer

ROOT = Path(__file__).parents[1]
LADDER = {512: 2.1, 2048: 3.0, 8192: 3.9, 32768: 4.3, 65536: 4.4}
MEASURED = [[512, 0.08, 0.5, 0.49, 0.52], [4096, 0.65, 0.45, 0.44, 0.46]]
CORT33X = CONFIGS["cort33x"]
BUDGETS = [10_000_000, 20_000_000, 35_000_000, 50_000_000, 70_000_000, 100_000_000]


def page_with(explorer: BudgetExplorer) -> str:
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
    context = browser.new_context(viewport={"width": 900, "height": 800})

    def open_one(explorer: BudgetExplorer):
        page, faults = context.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        path = tmp_path / "page.html"
        path.write_text(page_with(explorer), "utf-8")
        page.goto(path.as_uri())
        page.locator(".budget-explorer").wait_for()
        return page, faults

    yield open_one
    context.close()


def choose(page, settings: list[dict[str, int]]) -> list[dict]:
    """Move the sliders to places; for each setting, what was computed and is said."""
    return page.evaluate(
        """(settings) => settings.map((setting) => {
            const labels = [...document.querySelectorAll(".budget-explorer label")];
            for (const [name, value] of Object.entries(setting)) {
                const label = labels.find((one) => one.textContent.startsWith(name));
                const slider = label.querySelector("input");
                slider.value = value;
                slider.dispatchEvent(new Event("input"));
            }
            const said = document.querySelector(".budget-explorer output").textContent;
            return {...window.held.chosen, said};
        })""",
        settings,
    )


def expected(vocabulary: int, channels: int, layers: int, budget: int) -> dict:
    config = replace(
        CORT33X, vocabulary=vocabulary, channels=channels, pattern="F" * layers
    )
    try:
        config = fit_to_budget(config, budget)
    except ValueError:
        return {"fits": False}
    forward = sum(forward_flops(config, config.context).values())
    return {
        "fits": True,
        "feed_forward": config.feed_forward,
        "parts": parameters(config),
        "total": sum(parameters(config).values()),
        "bytes_held": pytest.approx(config.context * LADDER[vocabulary]),
        "flops_per_byte": pytest.approx(3 * forward / LADDER[vocabulary]),
    }


def test_its_numbers_are_those_of_the_library(opened):
    page, faults = opened(BudgetExplorer(LADDER, MEASURED))
    chance, ladder, refused = random.Random(0), sorted(LADDER), 0
    settings = [
        {
            "Vocabulary": chance.randrange(5),
            "Budget": chance.randrange(6),
            "Width": 64 * chance.randrange(2, 17),
            "Layers": chance.randrange(2, 25),
        }
        for _ in range(300)
    ]
    for setting, computed in zip(settings, choose(page, settings), strict=True):
        place, budget, channels, layers = setting.values()
        right = expected(ladder[place], channels, layers, BUDGETS[budget])
        assert {name: computed[name] for name in right} == right
        assert computed["said"].startswith("The" if right["fits"] else "No:")
        refused += not right["fits"]
    assert 30 < refused < 270
    assert faults == []


def test_it_starts_with_the_model_it_was_given(opened):
    page, faults = opened(BudgetExplorer(LADDER, MEASURED))
    assert page.evaluate("window.held.chosen")["feed_forward"] == CORT33X.feed_forward
    own = BudgetExplorer({512: 2.1}, vocabulary=512, heads=2, layers=3).get_state()
    assert (own["vocabulary"], own["heads"], own["layers"]) == (512, 2, 3)
    expect(page.locator("output")).to_contain_text("2,000 columns, 3.9 times")
    assert page.locator(".ladder-bar").count() == len(LADDER)
    assert page.locator(".ladder-bar.chosen").text_content().startswith("8,192")
    assert page.locator(".point").count() == len(MEASURED)
    assert page.get_by_role("slider", name="Budget").get_attribute(
        "aria-valuetext"
    ) == ("35.0 M parameters")
    assert faults == []


def test_it_is_steered_by_the_keyboard(opened):
    page, faults = opened(BudgetExplorer(LADDER))
    page.get_by_role("slider", name="Budget").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.held.chosen")["vocabulary"] == 32_768
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("window.held.channels") == 448
    assert page.locator(".charts svg").count() == 1  # nothing measured was given
    assert faults == []


def test_a_vocabulary_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="vocabulary 8192: expected one of"):
        BudgetExplorer({512: 2.1})
