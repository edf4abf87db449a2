"""The schedule explorer in a real browser: its rates are those of schedule.py."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cort33x_lib.training.recipe import RECIPES
from cort33x_lib.training.schedule import learning_rate
from cort33x_lib.view.schedule_explorer import ScheduleExplorer

ROOT = Path(__file__).parents[1]
RECIPE = RECIPES["cort33x"]
LENGTHS = [50, 100, 200, 500, 1000, 2000, 5340, 10000]


def page_with(explorer):
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

    def script(name, content):
        return f'{kind}{name}+json">{json.dumps(content)}</script>'

    return (
        '<!doctype html><html data-theme="light"><meta charset="utf-8"><body>'
        f"{script('state', {'state': {'one': record}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """The explorer of the reference recipe: its page and the list of its faults."""
    context = browser.new_context(viewport={"width": 900, "height": 700})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    path = tmp_path / "page.html"
    path.write_text(page_with(ScheduleExplorer(RECIPE)), "utf-8")
    page.goto(path.as_uri())
    page.locator(".schedule-explorer svg").wait_for()
    yield page, faults
    context.close()


def move(page, setting):
    """Move sliders to values; gives what was computed and is said."""
    return page.evaluate(
        """(setting) => {
            const labels = [...document.querySelectorAll(".schedule-explorer label")];
            for (const [name, value] of Object.entries(setting)) {
                const label = labels.find((one) => one.textContent.startsWith(name));
                const slider = label.querySelector("input");
                slider.value = value;
                slider.dispatchEvent(new Event("input"));
            }
            const output = document.querySelector(".schedule-explorer output");
            return {...window.held.chosen, said: output.textContent};
        }""",
        setting,
    )


def test_its_rates_are_those_of_the_library(opened):
    page, faults = opened
    chance = random.Random(0)
    for _ in range(40):
        place = chance.randrange(len(LENGTHS) - 1)
        warmup, cooldown = chance.randrange(51) / 100, chance.randrange(1, 26) / 50
        stop = chance.randrange(1, 21) / 20
        found = move(
            page,
            {
                "Steps": place,
                "Warm-up": warmup,
                "Fall at": cooldown,
                "Stopped": stop,
            },
        )
        steps = LENGTHS[place]
        last = round(steps * stop)
        assert found["last"] == last
        for name in ("cosine", "wsd"):
            recipe = replace(
                RECIPE, schedule=name, steps=steps, warmup=warmup, cooldown=cooldown
            )
            rates = [learning_rate(recipe, step) for step in range(1, steps + 1)]
            assert found[name]["rates"] == pytest.approx(rates, rel=1e-9)
            assert found[name]["mean"] == pytest.approx(sum(rates[:last]) / last)
            assert found[name]["at_stop"] == pytest.approx(rates[last - 1])
    assert faults == []


def test_it_starts_with_its_recipe_and_says_what_a_stop_costs(opened):
    page, faults = opened
    found = page.evaluate("window.held.chosen")
    assert (found["last"], found["rise"]) == (5340, 107)
    assert found["cosine"]["at_stop"] == pytest.approx(RECIPE.final_rate)
    assert "Neither" not in page.locator("output").text_content()
    assert "Neither has come down" in move(page, {"Stopped": 0.5})["said"]
    assert page.locator(".stop-line").count() == 1
    assert faults == []


def test_it_is_steered_by_the_keyboard(opened):
    page, faults = opened
    page.get_by_role("slider", name="Steps 5").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.held.steps") == 10_000
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.held.warmup") == pytest.approx(0.03)
    assert faults == []
