"""The viewer in a real browser, without a kernel: what it shows, keys, hostile text."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cort33x_lib.text.cleaning import Example, Ledger
from cort33x_lib.view.before_after import BeforeAfter, excerpts

ROOT = Path(__file__).parents[1]
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
HIDDEN = "a\u202eb\x00c\x9dd\u200be"


def ledger(*examples):
    return Ledger("step", (9, 9), (9, 9), (), tuple(examples), 0.0)


def changed(rule, before, after, origin="a story", note=""):
    return Example("step", rule, origin, before, after, note)


LEDGERS = [
    ledger(
        changed("encoding", "said â€œyesâ€\x9d to Tom", "said “yes” to Tom"),
        changed("encoding", "one two three", "one 2 two three"),
    ),
    ledger(changed("near duplicate", "A cat sat.", None, note="J = 0.91 with a dog")),
    ledger(
        changed(HOSTILE, f"x {HOSTILE} y", f"x {HOSTILE} z", HOSTILE),
        changed(HOSTILE, HOSTILE, None, HOSTILE, HOSTILE),
        changed("hidden", f"{HIDDEN} old", f"{HIDDEN} new"),
    ),
]


def page_with(viewer):
    """A page as the site makes them: the widget's state and the host, no kernel."""
    state = viewer.get_state()
    for name in ("layout", "tabbable", "tooltip"):
        state.pop(name, None)
    record = {"model_module": "anywidget", "state": state}
    host = (ROOT / "book" / "_static" / "static-widgets.js").read_text("utf-8")
    kind = '<script type="application/vnd.jupyter.widget-'

    def script(name, content):
        text = json.dumps(content).replace("<", "\\u003c")
        return f'{kind}{name}+json">{text}</script>'

    return (
        '<!doctype html><html data-theme="light"><meta charset="utf-8"><body>'
        f"{script('state', {'state': {'one': record}})}"
        f"{script('view', {'model_id': 'one'})}<script>{host}</script>"
    )


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a viewer of some ledgers; any fault of its page fails the test."""
    contexts, faults = [], []

    def open_one(ledgers, width=900):
        context = browser.new_context(viewport={"width": width, "height": 700})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append("a dialog was opened"))
        path = tmp_path / "page.html"
        path.write_text(page_with(BeforeAfter(ledgers)), "utf-8")
        page.goto(path.as_uri())
        page.locator(".before-after").wait_for()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


def status(page):
    return page.locator("[data-role=status]")


def button(page, name):
    return page.get_by_role("button", name=name)


def test_the_examples_are_gone_through_by_buttons(opened):
    page = opened(LEDGERS)
    expect(status(page)).to_contain_text("1 of 6: encoding, changed, 1 word out, 1")
    expect(status(page)).to_have_attribute("aria-live", "polite")
    expect(button(page, "Previous")).to_be_disabled()
    button(page, "Next").click()
    expect(status(page)).to_contain_text("2 of 6: encoding, changed, 0 words out,")
    for _ in range(4):
        button(page, "Next").click()
    expect(button(page, "Next")).to_be_disabled()
    button(page, "Previous").click()
    expect(status(page)).to_contain_text("5 of 6")


def test_changes_are_marked_as_deleted_and_inserted(opened):
    page = opened(LEDGERS)
    assert page.locator("del").all_inner_texts() == ["â€œyesâ€\\u009d"]
    assert page.locator("ins").all_inner_texts() == ["“yes”"]
    sides = page.locator(".side .text")
    assert sides.all_inner_texts() == [
        "said â€œyesâ€\\u009d to Tom",
        "said “yes” to Tom",
    ]
    style = "node => getComputedStyle(node).textDecorationLine"
    assert page.locator("del").evaluate(style) == "line-through"
    assert page.locator("ins").evaluate(style) == "underline"
    button(page, "Next").click()
    assert page.locator("del").count() == 0
    assert page.locator("ins").all_inner_texts() == ["2 "]


def test_a_removed_document_is_shown_with_its_rule(opened):
    page = opened(LEDGERS)
    page.get_by_label("Rule").select_option("near duplicate")
    expect(status(page)).to_contain_text(
        "1 of 1: near duplicate, removed. From a story"
    )
    expect(page.locator(".text")).to_have_text("A cat sat.")
    expect(page.locator(".removed")).to_have_text(
        "Removed by the rule “near duplicate”: J = 0.91 with a dog."
    )
    expect(button(page, "Next")).to_be_disabled()


def test_rules_are_counted_and_filter(opened):
    page = opened(LEDGERS)
    options = page.locator("option").all_inner_texts()
    assert options[:3] == ["all rules (6)", "encoding (2)", "near duplicate (1)"]
    page.get_by_label("Rule").select_option("encoding")
    button(page, "Next").click()
    expect(status(page)).to_contain_text("2 of 2: encoding")
    page.get_by_label("Rule").select_option("")
    expect(status(page)).to_contain_text("1 of 6")


def test_the_keyboard_is_enough(opened):
    page = opened(LEDGERS)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Rule")).to_be_focused()
    page.keyboard.press("Tab")  # Previous is disabled
    expect(button(page, "Next")).to_be_focused()
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("2 of 6")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("4 of 6")
    page.keyboard.press("ArrowLeft")
    expect(status(page)).to_contain_text("3 of 6")


def test_hostile_text_stays_text(opened):
    page = opened(LEDGERS)
    page.get_by_label("Rule").select_option(HOSTILE)
    expect(page.locator(".text").first).to_have_text(f"x {HOSTILE} y")
    expect(status(page)).to_contain_text(f"From {HOSTILE}.")
    button(page, "Next").click()
    expect(page.locator(".removed")).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.locator(".before-after script").count() == 0


def test_what_cannot_be_seen_is_shown_as_its_number(opened):
    page = opened(LEDGERS)
    page.get_by_label("Rule").select_option("hidden")
    seen = "a\\u202eb\\u0000c\\u009dd\\u200be"
    expect(page.locator(".text").first).to_have_text(f"{seen} old")


def test_no_example_is_no_fault(opened):
    page = opened([ledger()])
    expect(status(page)).to_contain_text("No example")
    expect(button(page, "Next")).to_be_disabled()


def test_a_phone_shows_the_sides_one_below_the_other(opened):
    page = opened(LEDGERS, width=390)
    one, other = (side.bounding_box() for side in page.locator(".side").all())
    assert other["y"] >= one["y"] + one["height"]
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0


def test_excerpts_are_short_and_meet_around_the_change():
    head, tail = "a" * 5000, "b" * 5000
    before, after = excerpts(f"{head} old {tail}", f"{head} new {tail}")
    assert before == f"…{'a' * 199} old {'b' * 199}…"
    assert after == f"…{'a' * 199} new {'b' * 199}…"
    before, after = excerpts(f"# {'c' * 5000}\n{tail}", tail)
    assert len(before) <= 1500 and after == f"{'b' * 200}…"
    before, after = excerpts(head, None)
    assert before == "a" * 1498 + "…" and after is None
    assert excerpts("same", "same and more") == ("same", "same and more")
    assert excerpts("aaa", "aa") == ("aaa", "aa") and excerpts("", "x") == ("", "x")


def test_what_is_sent_to_the_browser_is_small():
    long = "word " * 100_000
    examples = [changed("r", f"{n} {long}", f"{long}{n}", note=long) for n in range(10)]
    sent = json.dumps(BeforeAfter([ledger(*examples)]).examples)
    assert len(sent) < 10 * 3500
