"""The built site in a real browser, opened from the disk as a reader opens it."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlparse

import pytest

from run import ROOT

CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.md"))
VIEWS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1300, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1300, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


class Reader(HTMLParser):
    """What a page links to, its anchors, and pictures that nothing describes."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.bare_pictures = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img" and not found.get("alt", "").strip():
            self.bare_pictures.append(found.get("src"))


@pytest.fixture
def open_page(site, browser):
    """Opens a page and gives it with everything it complained about or asked for."""
    contexts = []

    def open_one(name, view="light"):
        contexts.append(browser.new_context(**VIEWS[view]))
        page, faults = contexts[-1].new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: faults.append(said.text) if said.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if urlparse(request.url).scheme in ("file", "data", "blob")
                else faults.append(request.url)
            ),
        )
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_load_state("networkidle")
        return page, faults

    yield open_one
    for context in contexts:
        context.close()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", [*CHAPTERS, "search"])
def test_a_page_is_whole_and_asks_no_other_host(open_page, name, view):
    page, faults = open_page(name, view)
    assert faults == []
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{wide} pixels of {name} are off the page"
    theme = page.evaluate("document.documentElement.dataset.theme")
    assert theme == VIEWS[view]["color_scheme"]
    assert page.locator("h1:visible").count() == 1


@pytest.mark.parametrize("name", CHAPTERS)
def test_formulas_are_drawn(open_page, name):
    page, _ = open_page(name)
    written = page.locator(".bd-article .math").count()
    if written:
        page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-container").count() == written
    assert page.locator("mjx-merror").count() == 0
    assert "\\(" not in page.locator(".bd-article").inner_text()


def test_some_page_has_formulas(open_page):
    page, _ = open_page("notation")
    assert page.locator("mjx-container").count() > 5


def test_dark_figures_are_dark_and_keep_their_hue(open_page):
    page, _ = open_page("01_train_a_model_in_three_minutes", "dark")
    pictures = page.locator(".bd-article img")
    for number in range(pictures.count()):
        style = "picture => getComputedStyle(picture).filter"
        assert "hue-rotate(180deg)" in pictures.nth(number).evaluate(style)


@pytest.mark.parametrize("name", CHAPTERS)
def test_links_lead_somewhere_and_pictures_are_described(site, name):
    page = site / f"{name}.html"
    read = Reader(page.read_text(encoding="utf-8"))
    assert read.bare_pictures == []
    for link in read.links:
        parts = urlparse(link)
        if parts.scheme or link == "#":
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.exists(), f"{name} links to {link}"
        if parts.fragment and target.suffix == ".html":
            anchors = Reader(target.read_text(encoding="utf-8")).anchors
            assert unquote(parts.fragment) in anchors, f"{name} links to {link}"


def test_the_dashboard_shows_the_recorded_run_without_a_kernel(open_page):
    page, faults = open_page("01_train_a_model_in_three_minutes")
    dashboard = page.locator(".static-widget .training-dashboard, .static-widget").first
    status = page.locator(".static-widget [data-role=status]").first
    status.wait_for()
    assert int(status.get_attribute("data-step")) > 0
    assert dashboard.bounding_box()["height"] > 50
    assert faults == []


def test_a_control_that_needs_a_kernel_says_so(open_page):
    for name in CHAPTERS:
        page, _ = open_page(name)
        for place in page.locator(".static-widget.needs-kernel").all():
            assert re.search("open the chapter in JupyterLab", place.inner_text())


LIVE = ("01", "04", "05", "08", "13", "14", "16", "17", "20")


@pytest.mark.parametrize("number", LIVE)
def test_a_slider_moves_its_widget_without_a_kernel(open_page, number):
    (name,) = (name for name in CHAPTERS if name.startswith(number))
    page, faults = open_page(name)
    widget = page.locator(".static-widget:not(.needs-kernel)").first
    slider = widget.locator("input[type=range]:enabled").first
    slider.wait_for()
    before = widget.inner_text(), slider.input_value()
    for key in ("ArrowRight", "ArrowLeft", "End", "Home"):
        slider.press(key)
        page.wait_for_timeout(100)
        if slider.input_value() != before[1] and widget.inner_text() != before[0]:
            break
    else:
        raise AssertionError(f"nothing in the widget of {name} follows its slider")
    assert faults == []
