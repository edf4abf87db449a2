"""The dashboard: what it reads from records, and how it works in a real browser."""

import asyncio
import json
import os
import re
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ipywidgets.widgets.widget import _remove_buffers
from playwright.sync_api import expect

from cort33x_lib.view.curves import Curves, RecordReader, pack, panels
from cort33x_lib.view.dashboard import RunsDashboard
from run import ROOT

STEPS = 1000
LAYERS = ["embedding", "blocks.0.mixer", "blocks.0.feed_forward"]


def line(step, level=0.0):
    measured = {
        "step": step,
        "loss": 5.0 / step**0.5 + level,
        "learning_rate": 1e-3,
        "tokens": 64 * step,
        "clipped": step % 2 == 0,
        "gradient_norm": 2.0,
        "gradient_norms": {name: 0.1 * k + 0.1 for k, name in enumerate(LAYERS)},
        "entropies": {"0.F": 3.0},
        "broken": None,
    }
    if step % 100 == 0:
        measured |= {"held_out": 5.5 / step**0.5 + level, "sample": f"story {step}"}
    return measured


def make_run(folder, lines):
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"started": "2026-01-01T00:00:00+00:00"}')
    write(folder, lines)
    return folder


def write(folder, lines, mode="a"):
    with open(folder / "metrics.jsonl", mode, encoding="utf-8") as file:
        file.write("".join(json.dumps(measured) + "\n" for measured in lines))


@pytest.fixture
def folders(tmp_path):
    return [
        make_run(tmp_path / f"arm-{k}", [line(n, k / 10) for n in range(1, STEPS + 1)])
        for k in range(3)
    ]


def column(curves, name):
    return curves.thinned(name, points=10**6).tolist()


# Reading


def test_every_number_of_a_record_is_a_curve_and_a_panel_has_its_kind(folders):
    shown = RunsDashboard.of(folders, floor=0.5, baseline=4.0)
    assert shown.runs == ["arm-0", "arm-1", "arm-2"]
    assert {panel["name"]: panel["curves"] for panel in shown.panels} == {
        "loss": ["loss", "held_out"],
        "learning_rate": ["learning_rate"],
        "gradients": ["gradient_norm", *(f"gradient_norms/{n}" for n in LAYERS)],
        "entropies": ["entropies/0.F"],
        "clipped": ["clipped"],
    }
    assert shown.samples["arm-1"][0] == (100, "story 100")


def test_a_panel_that_nobody_planned_has_its_own_place():
    (found,) = panels(["new_kind/a", "new_kind/b"])
    assert found["title"] == "New kind"
    assert found["curves"] == ["new_kind/a", "new_kind/b"]


def test_a_record_is_read_as_it_grows_and_a_half_line_waits(tmp_path):
    folder = make_run(tmp_path / "run", [line(1)])
    reader = RecordReader(folder)
    assert not reader.refresh()
    text = json.dumps({"step": 2, "loss": 1.5}) + "\n"
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(text[:12])
        file.flush()
        assert not reader.refresh()
        file.write(text[12:])
    assert reader.refresh()
    write(folder, [{"step": 2, "held_out": 1.25}, {"step": 1, "held_out": 2.5}])
    assert reader.refresh()
    assert column(reader.curves, "loss") == [[1, 2], [5.0, 1.5]]
    assert column(reader.curves, "held_out") == [[1, 2], [2.5, 1.25]]


def test_a_run_that_was_resumed_is_read_again(tmp_path):
    folder = make_run(tmp_path / "run", [line(n) for n in range(1, 6)])
    reader = RecordReader(folder)
    kept = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:3]
    (folder / "new").write_text("".join(kept))
    os.replace(folder / "new", folder / "metrics.jsonl")
    write(folder, [{"step": 4, "loss": 9.0}, {"step": 5, "loss": 9.5}, line(6)])
    assert reader.refresh()
    steps, losses = column(reader.curves, "loss")
    assert steps == [1, 2, 3, 4, 5, 6] and losses[3:5] == [9.0, 9.5]
    assert column(reader.curves, "learning_rate")[0] == [1, 2, 3, 6]


@pytest.mark.parametrize(
    "bad", ["{", '"loss"', '{"loss": 1}', '{"step": "1"}', '{"step": 1.5}', "[1]"]
)
def test_a_broken_line_is_named(tmp_path, bad):
    folder = make_run(tmp_path / "run", [line(1)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(bad + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl, line 2.*whole number"):
        RecordReader(folder)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        RunsDashboard.of([tmp_path / "nobody"])


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    places = [make_run(tmp_path / k / "run", [line(1)]) for k in "ab"]
    assert RunsDashboard.of(places).runs == [str(place) for place in places]


@pytest.mark.parametrize("length", [0, 1, 400, 401, 10_000])
def test_thinned_curves_keep_their_mean_their_ends_and_their_spikes(length):
    curves = Curves()
    values = np.random.default_rng(0).normal(size=length)
    if length:
        values[length // 3] = 50.0
    curves.extend([{"step": n + 1, "x": v} for n, v in enumerate(values.tolist())])
    steps, means, *ends = curves.thinned("x")
    assert len(steps) <= 400
    if length:
        assert steps[-1] == length
        assert ends[1].max() == 50.0 if ends else means.max() == 50.0
    if length % 400 == 0 and length:
        assert means.mean() == pytest.approx(values.mean(), abs=1e-5)


def test_numbers_that_float32_cannot_hold_are_left_out():
    curves = Curves()
    curves.extend([{"step": 1, "x": 1e39, "y": 2.0}, {"step": 2, "x": 1.0}])
    assert column(curves, "x") == [[2], [1.0]]


def test_only_the_panel_on_show_is_sent_when_all_are_large(tmp_path):
    one = make_run(tmp_path / "run", [line(n) for n in range(1, STEPS + 1)])
    curves = {f"run {k}": RecordReader(one).curves for k in range(80)}
    shown = RunsDashboard(curves)
    assert "loss" in shown.data and "gradients" not in shown.data
    shown.panel = "gradients"
    assert list(shown.data) == ["gradients"]
    assert len(shown.data["gradients"]["lines"]) == 80 * 4


def test_a_watched_record_is_shown_as_it_grows(tmp_path):
    folders = [make_run(tmp_path / name, [line(1)]) for name in ("still", "moving")]

    async def watch():
        shown = RunsDashboard.of(folders).watch(seconds=0.02)
        write(folders[1], [{**line(2), "new": 1.0}])
        while not shown.growing.get("loss"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        grown = [entry[:2] for entry in shown.growing["loss"]["lines"]]
        assert grown == [["moving", "loss"]]
        assert shown.panels[-1]["name"] == "new"
        write(folders[1], ["no record"])
        while not shown.message:
            await asyncio.sleep(0.01)
        assert "line 3" in shown.message
        shown.close()

    # In a thread of its own: in this one the browser tests' loop may be running.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, asyncio.wait_for(watch(), timeout=20)).result()


# In a browser, without a kernel


def page_of(dashboard, theme="light"):
    """A page as the site makes them: the widget's state and the host, no kernel."""
    state, paths, buffers = _remove_buffers(dashboard.get_state())
    for name in ("layout", "tabbable", "tooltip"):
        state.pop(name, None)
    kept = [
        {"path": path, "encoding": "base64", "data": b64encode(buffer).decode()}
        for path, buffer in zip(paths, buffers, strict=True)
    ]
    record = {"model_module": "anywidget", "state": state, "buffers": kept}
    host = (ROOT / "book" / "_static" / "static-widgets.js").read_text("utf-8")

    def script(name, content):
        kind = f"application/vnd.jupyter.widget-{name}+json"
        text = json.dumps(content).replace("<", "\\u003c")
        return f'<script type="{kind}">{text}</script>'

    return (
        f'<!doctype html><html data-theme="{theme}"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><body>'
        f"{script('state', {'state': {'one': record}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a dashboard; any fault of its page, or request, fails the test."""
    contexts, faults = [], []

    def open_one(dashboard, width=900, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append("a dialog was opened"))
        path = tmp_path / "page.html"
        path.write_text(page_of(dashboard, theme), "utf-8")
        page.goto(path.as_uri())
        page.on("request", lambda request: faults.append(request.url))
        page.locator(".training-dashboard").wait_for()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def run_button(page, name):
    return page.get_by_role("group", name="Runs").get_by_role("button", name=name)


def summary(page):
    return page.locator("[data-role=summary]")


def pixels(page):
    """How many pixels of the chart have each colour that is no shade of grey."""
    return page.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => {
          const canvas = document.querySelector(".training-dashboard canvas");
          const { data } = canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height);
          const found = {};
          for (let k = 0; k < data.length; k += 4)
            if (data[k + 3] === 255) {
              const colour = `${data[k]},${data[k + 1]},${data[k + 2]}`;
              found[colour] = (found[colour] ?? 0) + 1;
            }
          done(found);
        }))"""
    )


BLUE, ORANGE, TEAL = "0,114,178", "194,78,0", "0,128,95"
LIGHT_BLUE, FLOOR = "108,182,232", "0,112,79"


def test_each_run_is_drawn_in_its_colour_and_the_legend_takes_it_away(opened, folders):
    page = opened(RunsDashboard.of(folders, floor=0.05, baseline=4.0))
    expect(summary(page)).to_contain_text("3 of 3 runs shown. Loss, nats per token")
    expect(summary(page)).to_contain_text("The floor is 0.0500")
    before = pixels(page)
    assert min(before[c] for c in (BLUE, ORANGE, TEAL, FLOOR)) > 50
    second = run_button(page, "arm-1")
    expect(second).to_have_attribute("aria-pressed", "true")
    second.click()
    expect(second).to_have_attribute("aria-pressed", "false")
    expect(summary(page)).to_contain_text("2 of 3 runs shown")
    page.mouse.move(0, 0)
    assert pixels(page).get(ORANGE, 0) == 0
    button(page, "None runs").click()
    expect(summary(page)).to_have_text("No curve is shown here.")
    button(page, "All runs").click()
    expect(summary(page)).to_contain_text("3 of 3 runs")


def test_panels_and_axes_are_chosen_by_real_buttons(opened, folders):
    page = opened(RunsDashboard.of(folders))
    linear = pixels(page)
    log = button(page, "Log values")
    expect(log).to_have_attribute("aria-pressed", "false")
    log.click()
    expect(log).to_have_attribute("aria-pressed", "true")
    assert pixels(page) != linear
    button(page, "Log steps").click()
    button(page, "Gradients").click()
    expect(button(page, "Gradients")).to_have_attribute("aria-pressed", "true")
    expect(summary(page)).to_contain_text("gradient norm, at the end: from 2.000")
    names = page.get_by_role("group", name="Curves").get_by_role("button")
    expect(names).to_have_count(4)
    expect(names.nth(2)).to_contain_text("blocks.0.mixer")
    expect(names.nth(2)).to_contain_text("0.2000")
    names.nth(0).click()
    expect(summary(page)).to_contain_text("embedding, at the end: from 0.1000")


def test_arrow_keys_smooth_and_read(opened, folders):
    page = opened(RunsDashboard.of(folders))
    smoothing = page.get_by_role("slider", name="Smoothing")
    smoothing.focus()
    expect(smoothing).to_have_attribute("aria-valuetext", "over 10 points")
    page.keyboard.press("ArrowRight")
    expect(smoothing).to_have_attribute("aria-valuetext", "over 20 points")
    smoothed = pixels(page)
    page.keyboard.press("Home")
    expect(smoothing).to_have_attribute("aria-valuetext", "none")
    assert pixels(page) != smoothed
    step = page.get_by_role("slider", name="Step")
    step.focus()
    page.keyboard.press("Home")
    expect(step).to_have_attribute("aria-valuetext", re.compile(r"at step 3: .+arm-0"))
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    place = int(step.evaluate("node => node.value"))
    words = re.compile(f"^at step {place}: .+arm-2")
    expect(step).to_have_attribute("aria-valuetext", words)


def test_pointing_at_the_chart_reads_the_values_there(opened, tmp_path):
    lines = [{"step": n, "loss": float(n)} for n in range(1, 201)]
    page = opened(RunsDashboard.of([make_run(tmp_path / "line", lines)]))
    smoothing = page.get_by_role("slider", name="Smoothing")
    smoothing.focus()
    page.keyboard.press("Home")
    chart = page.locator("canvas")
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] / 2, "y": 100})
    words = summary(page).inner_text()
    step = int(words.split("at step ")[1].split(":")[0])
    assert 90 < step < 120
    assert f": {step}.0 (line)" in words.replace(f"{step:.2f}", f"{step}.0")
    expect(page.locator(".cursor")).to_be_visible()
    page.mouse.move(0, 0)
    expect(summary(page)).to_contain_text("at the end: 200.0 (line)")
    expect(page.locator(".cursor")).to_be_hidden()


def test_the_recorded_runs_are_replayed(opened, folders):
    page = opened(RunsDashboard.of(folders))
    status = page.locator("[data-role=status]")
    expect(status).to_have_attribute("data-state", "finished")
    expect(page.locator(".sample p")).to_have_text("story 1000")
    whole = pixels(page)[BLUE]
    button(page, "Run").click()
    expect(status).to_have_attribute("data-state", "running")
    page.wait_for_timeout(1500)
    button(page, "Pause").click()
    expect(status).to_have_attribute("data-state", "paused")
    reached = int(status.get_attribute("data-step"))
    assert 0 < reached < STEPS
    assert pixels(page).get(BLUE, 0) < whole
    button(page, "Resume").click()
    button(page, "Stop").click()
    expect(status).to_have_attribute("data-state", "stopped")
    expect(button(page, "Pause")).to_be_disabled()


def test_a_hundred_runs_have_a_field_to_find_one(opened, tmp_path):
    one = RecordReader(make_run(tmp_path / "run", [line(n) for n in range(1, 50)]))
    page = opened(RunsDashboard({f"arm {k}": one.curves for k in range(100)}))
    expect(summary(page)).to_contain_text("100 of 100 runs shown")
    button(page, "None runs").click()
    page.get_by_role("searchbox", name="Find a run").fill("ARM 42")
    expect(run_button(page, "arm")).to_have_count(1)
    button(page, "All runs").click()
    expect(summary(page)).to_contain_text("1 of 100 runs shown")


def test_dark_pages_and_phones_are_served(opened, folders):
    page = opened(RunsDashboard.of(folders), width=390, theme="dark")
    assert pixels(page)[LIGHT_BLUE] > 50
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(page.locator(".training-dashboard")).to_have_css("color", "rgb(31, 35, 40)")
    page.wait_for_timeout(200)
    assert pixels(page)[BLUE] > 50


def test_the_keyboard_alone_reaches_everything(opened, folders):
    page = opened(RunsDashboard.of(folders))
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') "
                "?? document.activeElement.textContent"
            )
        )
    text = " ".join(reached)
    for name in ("Run", "Loss", "Clipped", "Log values", "arm-2", "All", "held out"):
        assert name in text
    assert page.locator("[role=status]").count() == 1
    assert page.locator("canvas").get_attribute("aria-label").startswith("3 of 3 runs")
    assert pack({}, []) == {"lines": [], "values": b""}
