"""Dashboards in a page that Jupyter Book has built: a finished run, hostile texts."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from run import ROOT

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</SCRIPT><img src=x onerror=alert(3)>",
    "</script ><img src=x onerror=alert(4)>",
    "</script\n><svg onload=alert(5)>",
    "<!--<script>",
    "<!--",
    "--><img src=x onerror=alert(6)>",
    "]]><script>alert(7)</script>",
    "<img src=x onerror=alert(8)>",
    "<img/src=x/onerror=alert(9)>",
    "<IMG SRC=javascript:alert(10)>",
    "<svg onload=alert(11)>",
    "<svg><script>alert(12)</script></svg>",
    "<svg><animate onbegin=alert(13) attributeName=x dur=1s>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(14)>",
    "<iframe src=javascript:alert(15)>",
    "<iframe srcdoc='<script>alert(16)</script>'>",
    "<object data=javascript:alert(17)>",
    "<embed src=javascript:alert(18)>",
    "<a href=javascript:alert(19)>press</a>",
    "<base href=javascript:alert(20)//>",
    "<form action=javascript:alert(21)><button>press</button></form>",
    "<details open ontoggle=alert(22)>",
    "<body onload=alert(23)>",
    "<video><source onerror=alert(24)></video>",
    "<input autofocus onfocus=alert(25)>",
    "<style>@import 'x.css';*{display:none}</style>",
    "<link rel=stylesheet href=x.css>",
    "<meta http-equiv=refresh content='0;url=x.html'>",
    "<template><script>alert(26)</script></template>",
    "<textarea></textarea><script>alert(27)</script>",
    "<title></title><script>alert(28)</script>",
    '" onmouseover="alert(29)',
    "' onfocus='alert(30)' autofocus='",
    "` onload=`alert(31)`",
    "javascript:alert(32)",
    "$$\\href{javascript:alert(33)}{x}$$",
    "&lt;img src=x onerror=alert(34)&gt;",
    "\\u003cimg src=x onerror=alert(35)\\u003e",
    "${alert(36)}{{alert(37)}}",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "url(javascript:alert(38));}*{display:none",
    "__proto__",
]
CHAPTER = """\
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

# A page

```{code-cell} ipython3
import json
from pathlib import Path

from cort33x_lib.view.curves import Curves
from cort33x_lib.view.dashboard import RunsDashboard

payloads = json.loads(Path(PLACE).read_text("utf-8"))
curves = {}
for payload in payloads:
    curves[payload] = Curves()
    inside = {name: 1.0 for name in payloads}
    steps = [
        {"step": n, "loss": 2.0, payload: 1.0, "group": inside, "sample": payload}
        for n in (1, 2)
    ]
    curves[payload].extend(steps)
shown = RunsDashboard(curves, floor=1.0, baseline=3.0)
shown.message = " ".join(payloads)
shown
```

A run that ends before the page is made.

```{code-cell} ipython3
from cort33x_lib.view.widgets import TrainingDashboard


def steps():
    for step in range(1, 401):
        growing = {"late": {"a": 1.0, "b": 2.0}} if step > 100 else {}
        yield {"step": step, "reward": step / 2, "sample": f"text {step}"} | growing


live = TrainingDashboard(steps, 400)
live
```

Its end:

```{code-cell} ipython3
assert await live.finished() == "finished"
```
"""
LIVE_ELEMENTS = (
    "script, img, iframe, object, embed, video, source, form, base, link, meta, style,"
    "template, textarea, title, math, details, a, animate, [onload], [onerror],"
    "[onfocus], [onmouseover], [ontoggle], [onbegin], [srcdoc]"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The chapter's page, built with the book's own settings and extension."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "payloads.json").write_text(json.dumps(PAYLOADS), "utf-8")
    book = folder / "book"
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, book / name)
    shutil.copy(ROOT / "run.py", folder)
    shutil.copy(ROOT / "troubles.py", folder)
    for name in ("cort33x_lib", "data"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (book / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (book / "references.bib").write_text("")
    place = repr(str(folder / "payloads.json"))
    (book / "page.md").write_text(CHAPTER.replace("PLACE", place), "utf-8")
    shutil.copy(ROOT / "_config.yml", folder)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "book"]
    command += ["--path-output", ".", "--config", "_config.yml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    page = folder / "_build" / "html" / "page.html"
    assert page.exists(), ended.stdout[-2000:] + ended.stderr[-2000:]
    return page


def test_no_hostile_text_becomes_an_element_or_runs(built, browser):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            faults.append(request.url)
            if re.search(r"/x(.css|.html)?$", request.url)
            else None
        ),
    )
    page.goto(built.as_uri())
    dashboard = page.locator(".training-dashboard").first
    dashboard.wait_for()
    items = dashboard.get_by_role("group", name="Runs").get_by_role("button")
    assert items.count() == len(PAYLOADS)
    panels = dashboard.get_by_role("group", name="Panel").get_by_role("button")
    for number in range(panels.count()):
        panels.nth(number).click()
        page.wait_for_timeout(30)
        assert dashboard.locator(LIVE_ELEMENTS).count() == 0
    for number in range(items.count()):
        items.nth(number).hover()
        items.nth(number).click()
        assert dashboard.locator(LIVE_ELEMENTS).count() == 0
    text = dashboard.inner_text()
    for payload in PAYLOADS[:3]:
        assert payload in text
    assert "\u202e" not in text and "\\u202e" in text
    assert faults == []
    context.close()
    print(f"{len(PAYLOADS)} payloads, as run, number, group, sample and message")


def test_a_run_that_ended_while_the_page_was_made_is_whole_there(built, browser):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(built.as_uri())
    dashboard = page.locator(".training-dashboard").nth(1)
    said = dashboard.locator("[data-role=summary]")
    expect(said).to_contain_text("Reward, reward, at the end: 19")
    dashboard.get_by_role("button", name="Late", exact=True).click()
    expect(said).to_contain_text("a, at the end: 1.000 (this run)")
    expect(dashboard.locator(".sample p")).to_have_text("text 400")
    status = dashboard.locator("[data-role=status]")
    expect(status).to_have_attribute("data-step", "400")
    expect(status).to_contain_text("Recorded. Press Run to replay it.")
    assert faults == []
    context.close()
