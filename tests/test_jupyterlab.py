"""A reader opens a chapter in JupyterLab, runs it, and uses the dashboard."""

import re

import pytest
from playwright.sync_api import expect

SLIDER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
from cort33x_lib.view.budget import BudgetExplorer

BudgetExplorer({4096: 3.5, 8192: 3.8, 16384: 4.1})
```
"""
RUNS = (
    SLIDER[: SLIDER.index("from cort33x_lib")]
    + """\
import asyncio
import json
from pathlib import Path

from cort33x_lib.view.dashboard import RunsDashboard


def write(name, steps):
    folder = Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    with open(folder / "metrics.jsonl", "a") as file:
        for step in steps:
            norms = {f"layer {k}": 1 / step for k in range(300)}
            line = {"step": step, "loss": 5 / step, "gradient_norms": norms}
            file.write(json.dumps(line | {"extra": norms}) + chr(10))
    return folder


folders = [write(name, range(1, 401)) for name in ("first", "second")]
shown = RunsDashboard.of(folders, floor=0.01).watch(seconds=0.2)
shown
```

```{code-cell} ipython3
while not Path("go on").exists():
    await asyncio.sleep(0.1)
write("second", range(401, 601))
await asyncio.sleep(1)
```

```{code-cell} ipython3
import time

from cort33x_lib.view.widgets import TrainingDashboard


def steps():
    for step in range(1, 10_001):
        time.sleep(0.01)
        yield {"step": step, "loss": 3 / step, "sample": f"text {step}"}


live = TrainingDashboard(steps, 10_000, floor=0.01, baseline=3.0, beside=folders)
live
```

```{code-cell} ipython3
print("ended:", await live.finished())
```
"""
)
EXPLORERS = (
    SLIDER[: SLIDER.index("from cort33x_lib")]
    + """\
import json
from pathlib import Path

from IPython.display import display

from cort33x_lib.model.config import CONFIGS
from cort33x_lib.view import attention_maps, model_explorer, sampling

runs = Path("../data/runs")
maps = json.loads((runs / "attention-maps.json").read_text())
display(attention_maps.AttentionViewer(maps))
display(model_explorer.ModelExplorer(CONFIGS["cort33x"], 5e10, 2e-9))
display(sampling.SamplingExplorer(runs / "tour-model", "Once upon a time, Mia"))
```
"""
)
CHAPTERS = ["00_start_here.md", "01_train_a_model_in_three_minutes.md"]
MINUTE = 60_000


@pytest.fixture
def open_chapter(lab, browser):
    address, _ = lab
    context = browser.new_context(viewport={"width": 1500, "height": 1000})

    def open_one(name):
        page = context.new_page()
        page.set_default_timeout(MINUTE)
        page.goto(f"{address}/lab/tree/book?token=testing&reset")
        page.locator(".jp-DirListing-item", has_text=name).dblclick()
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        # A command given before the kernel is ready is lost.
        page.locator(".jp-StatusBar-Item", has_text="| Idle").wait_for()
        return page

    yield open_one
    context.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_double_click_opens_a_notebook_and_saving_it_changes_nothing(
    lab, open_chapter, name
):
    chapter = lab[1] / "book" / name
    before, saved_at = chapter.read_bytes(), chapter.stat().st_mtime_ns
    page = open_chapter(name)
    assert page.locator(".jp-Dialog").count() == 0
    page.keyboard.press("Control+s")
    for _ in range(100):
        if chapter.stat().st_mtime_ns != saved_at:
            break
        page.wait_for_timeout(100)
    assert chapter.stat().st_mtime_ns != saved_at, "the chapter was not saved"
    assert chapter.read_bytes() == before


def run_all(page):
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.get_by_text("Run All Cells", exact=True).click()


def test_keys_move_a_slider_and_not_the_notebook(lab, open_chapter):
    (lab[1] / "book" / "99_slider.md").write_text(SLIDER, encoding="utf-8")
    page, faults = open_chapter("99_slider.md"), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page)
    slider = page.locator(".jp-Notebook").get_by_role("slider", name="Vocabulary")
    slider.focus()
    expect(slider).to_have_attribute("aria-valuetext", "8,192 tokens")
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "4,096 tokens")
    expect(slider).to_be_focused()
    assert faults == []


def test_the_explorers_of_chapters_8_13_and_20_obey(lab, open_chapter):
    (lab[1] / "book" / "98_explorers.md").write_text(EXPLORERS, encoding="utf-8")
    page, faults = open_chapter("98_explorers.md"), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page)
    cells = page.locator(".jp-Notebook .jp-Cell")
    count = cells.count()

    viewer = page.locator(".jp-Notebook .attention-viewer")
    viewer.get_by_role("group", name="Masks").get_by_role("button").nth(1).click()
    reader = viewer.get_by_role("slider").first
    reader.focus()
    before = reader.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowLeft")
    expect(reader).not_to_have_attribute("aria-valuetext", before)
    expect(reader).to_be_focused()

    explorer = page.locator(".jp-Notebook .model-explorer")
    pattern = explorer.get_by_role("textbox").first
    said = explorer.locator("output").first.inner_text()
    pattern.click()
    pattern.press("Control+a")
    page.keyboard.type("DDDF")
    expect(pattern).to_have_value("DDDF")
    expect(explorer.locator("output").first).not_to_have_text(said)

    sampler = page.locator(".jp-Notebook .sampling-explorer")
    bars = sampler.get_by_role("list").get_by_role("button")
    likeliest = bars.first.locator(".token").inner_text()
    bars.first.click()
    expect(sampler.locator(".made")).to_have_text(likeliest)
    temperature = sampler.get_by_role("slider", name="Temperature")
    before = temperature.get_attribute("aria-valuetext")
    temperature.focus()
    page.keyboard.press("ArrowLeft")
    expect(temperature).not_to_have_attribute("aria-valuetext", before)
    prompt = sampler.get_by_label("Prompt")
    prompt.fill("")
    prompt.click()
    page.keyboard.type("A dog, a bee")
    expect(sampler.locator(".given")).to_have_text("A dog, a bee")
    sampler.get_by_role("button", name="Write", exact=True).click()
    expect(sampler.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    sampler.get_by_role("button", name="Pause", exact=True).click()
    assert len(sampler.locator(".made").inner_text()) > 0
    assert cells.count() == count, "keys meant for a widget changed the notebook"
    assert faults == []


def test_recorded_runs_are_compared_while_one_grows(lab, open_chapter):
    book = lab[1] / "book"
    (book / "98_runs.md").write_text(RUNS, encoding="utf-8")
    page, faults = open_chapter("98_runs.md"), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    dashboard = page.locator(".jp-Notebook .training-dashboard")
    said = dashboard.locator("[data-role=summary]")
    expect(said).to_contain_text("2 of 2 runs shown. Loss", timeout=2 * MINUTE)

    smoothing = dashboard.get_by_role("slider", name="Smoothing")
    smoothing.focus()
    page.keyboard.press("ArrowRight")
    expect(smoothing).to_have_attribute("aria-valuetext", "over 10 points")
    expect(smoothing).to_be_focused()
    log = dashboard.get_by_role("button", name="Log values")
    log.focus()
    page.keyboard.press("Enter")
    expect(log).to_have_attribute("aria-pressed", "true")
    first = dashboard.get_by_role("group", name="Runs").get_by_role("button").first
    first.click()
    expect(first).to_have_attribute("aria-pressed", "false")
    expect(said).to_contain_text("1 of 2 runs shown")

    # A panel that was too large to be sent before is asked for.
    dashboard.get_by_role("button", name="Extra", exact=True).click()
    expect(said).to_contain_text("layer 0, at the end: 0.00")
    dashboard.get_by_role("button", name="Loss", exact=True).click()
    step = dashboard.get_by_role("slider", name="Step")
    expect(step).to_have_attribute("max", "400", timeout=20_000)
    (book / "go on").touch()
    expect(step).to_have_attribute("max", "600", timeout=20_000)
    expect(said).to_contain_text("1 of 2 runs shown")

    # A run in training, beside the two.
    live = page.locator(".jp-Notebook .training-dashboard").nth(1)
    status = live.locator("[data-role=status]")
    expect(status).to_have_attribute("data-state", "running", timeout=MINUTE)
    expect(live.locator("[data-role=summary]")).to_contain_text("3 of 3 runs shown")
    expect(live.locator(".sample p")).to_contain_text("text")
    live.get_by_role("button", name="Pause", exact=True).click()
    expect(status).to_have_attribute("data-state", "paused")
    live.get_by_role("button", name="Resume", exact=True).click()
    expect(status).to_have_attribute("data-state", "running")
    live.get_by_role("button", name="Stop", exact=True).click()
    expect(status).to_have_attribute("data-state", "stopped")
    expect(page.get_by_text("ended: stopped")).to_be_visible()
    assert faults == []


def test_the_tour_runs_and_its_dashboard_obeys(open_chapter):
    page = open_chapter(CHAPTERS[1])
    run_all(page)
    dashboard = page.locator(".jp-Notebook .training-dashboard").first
    dashboard.wait_for(timeout=3 * MINUTE)
    status = dashboard.locator("[data-role=status]")

    def state(words, seconds):
        expect(status).to_have_attribute(
            "data-state", re.compile(words), timeout=1000 * seconds
        )

    def press(word):
        dashboard.get_by_role("button", name=word, exact=True).click()

    def step():
        return int(status.get_attribute("data-step"))

    # A run that the chapter has made goes first; the reader's own comes after it.
    page.wait_for_timeout(1000)
    state("idle|stopped|finished|running", 60)
    if status.get_attribute("data-state") != "running":
        press("Run")
    state("running", 60)
    expect(status).not_to_have_attribute("data-step", "0", timeout=MINUTE)
    press("Pause")
    state("paused", 10)
    page.wait_for_timeout(500)
    paused_at = step()
    page.wait_for_timeout(1000)
    assert step() == paused_at
    press("Resume")
    state("running", 10)
    expect(status).not_to_have_attribute("data-step", str(paused_at), timeout=20_000)
    press("Stop")
    state("stopped", 10)
    page.locator(".jp-StatusBar-Item", has_text="| Idle").wait_for(timeout=4 * MINUTE)
    unrun = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt", has_text="[*]")
    expect(unrun).to_have_count(0, timeout=4 * MINUTE)
    errors = page.locator(
        '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
    )
    assert errors.count() == 0, errors.first.inner_text()
