"""The dashboard over a hundred long runs: reading, sending, drawing, redrawing.

    python benchmarks/dashboard.py [--runs 100] [--steps 10000] [--rounds 5]

Writes runs of made-up numbers to a temporary folder, reads them, opens the dashboard in
headless Chromium, and records medians and ranges in data/runs/dashboard.json.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_dashboard import page_of  # noqa: E402

import troubles  # noqa: E402
from cort33x_lib import files  # noqa: E402
from cort33x_lib.training.record import describe_machine  # noqa: E402
from cort33x_lib.view.curves import RecordReader, pack, read_folders  # noqa: E402
from cort33x_lib.view.dashboard import RunsDashboard  # noqa: E402

RECORD = ROOT / "data" / "runs" / "dashboard.json"
FIRST = """new MutationObserver(() => {
  const canvas = document.querySelector(".training-dashboard canvas");
  if (!canvas || window.firstDrawing) return;
  canvas.getContext("2d").getImageData(0, 0, 1, 1); // waits for the drawing
  window.firstDrawing = performance.now(); // since the page was asked for
}).observe(document, { childList: true, subtree: true });"""
REDRAW = """async ([what, times]) => {
  const root = document.querySelector(".training-dashboard");
  const frame = () => new Promise(requestAnimationFrame);
  const acts = {
    redraw: () => [...root.querySelectorAll("button")]
      .find((node) => node.textContent === "Log values").click(),
    smooth: (k) => {
      const slider = root.querySelector("input[type=range]");
      slider.value = k % 8;
      slider.dispatchEvent(new Event("input"));
    },
    point: (k) => root.querySelector("canvas").dispatchEvent(
      new PointerEvent("pointermove", { clientX: 200 + 5 * k, clientY: 300 })),
  };
  const found = [];
  for (let k = 0; k < times; k++) {
    await frame();
    const started = performance.now();
    acts[what](k);
    await frame(); // the dashboard draws in the frame after the order
    const canvas = root.querySelector("canvas");
    canvas.getContext("2d").getImageData(0, 0, 1, 1); // waits for the drawing
    found.push(performance.now() - started);
  }
  return found;
}"""


def write_run(folder: Path, steps: int, seed: int) -> None:
    draw = random.Random(seed)
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with open(folder / "metrics.jsonl", "wb") as file:
        for step in range(1, steps + 1):
            falling = 1.2 + 6 * math.exp(-9 * step / steps) + seed / 60
            line = {
                "step": step,
                "loss": falling + draw.gauss(0, 0.08),
                "learning_rate": 1e-3 * (1 - step / steps),
                "gradient_norm": abs(draw.gauss(0.4, 0.1)),
                "clipped": False,
                "tokens": 1024 * step,
                "seconds": round(0.1 * step, 3),
                "tokens_per_second": round(draw.gauss(10_000, 500), 1),
            }
            if step % 100 == 0:
                line["held_out"] = falling
            file.write(orjson.dumps(line) + b"\n")


def timed(action, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return found


def summary(values: list[float]) -> dict:
    return {
        "median": float(f"{statistics.median(values):.4g}"),
        "least": float(f"{min(values):.4g}"),
        "most": float(f"{max(values):.4g}"),
        "n": len(values),
    }


def measure(runs: int, steps: int, rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / f"run-{number:03d}" for number in range(runs)]
        for number, folder in enumerate(folders):
            write_run(folder, steps, number)
        size = sum((f / "metrics.jsonl").stat().st_size for f in folders)
        processor = time.process_time()
        reading = timed(lambda: read_folders(folders), rounds)
        processor = (time.process_time() - processor) / rounds
        whole = RunsDashboard.of(folders, floor=1.2, baseline=6.0)
        curves = whole._curves
        building = timed(lambda: pack(curves, ["loss", "held_out"]), rounds)
        reader = RecordReader(folders[0])
        growing = []
        for step in range(steps + 1, steps + 1 + rounds):
            with open(folders[0] / "metrics.jsonl", "a") as file:
                file.write(f'{{"step": {step}, "loss": 1.5}}\n')
            growing += timed(reader.refresh, 1)
        page_path = Path(place) / "page.html"
        page_path.write_text(page_of(whole), "utf-8")
        drawn, redrawn = [], {}
        with sync_playwright() as playwright:
            quiet = ["--disable-gpu", "--no-sandbox"]
            browser = playwright.chromium.launch(
                executable_path=troubles.find_browser(), args=quiet
            )
            for _ in range(rounds):
                page = browser.new_page(viewport={"width": 1000, "height": 900})
                page.add_init_script(FIRST)
                page.goto(page_path.as_uri())
                page.locator(".training-dashboard").wait_for()
                page.wait_for_function("window.firstDrawing !== undefined")
                drawn.append(page.evaluate("window.firstDrawing") / 1000)
                for what in ("redraw", "smooth", "point"):
                    times = page.evaluate(REDRAW, [what, 10])
                    redrawn.setdefault(what, []).extend(t / 1000 for t in times)
                page.close()
            browser.close()
    loss = whole.data["loss"]
    return {
        "runs": runs,
        "steps": steps,
        "record_bytes": size,
        "curves_on_show": len(loss["lines"]),
        "message_bytes": len(loss["values"]) + len(json.dumps(loss["lines"])),
        "sent_bytes": sum(len(packed["values"]) for packed in whole.data.values()),
        "processor_seconds_of_reading": round(processor, 3),
        "seconds": {
            "read all records": summary(reading),
            "read one more line of a record": summary(growing),
            "build the loss panel's state": summary(building),
            "first drawing, from opening the page": summary(drawn),
            "redraw with other axes": summary(redrawn["redraw"]),
            "redraw with other smoothing": summary(redrawn["smooth"]),
            "read values under the pointer": summary(redrawn["point"]),
        },
        "machine": describe_machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    found = measure(wanted.runs, wanted.steps, wanted.rounds)
    files.write_atomically(RECORD, json.dumps(found, indent=2) + "\n")
    for name, values in found["seconds"].items():
        print(f"{name:44} {values['median']:8.4f} s  n = {values['n']}")
    print(
        f"message {found['message_bytes']:,} bytes for {found['curves_on_show']} curves"
    )


if __name__ == "__main__":
    main()
