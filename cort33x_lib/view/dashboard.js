// The training dashboard: draws what the traits say, sends what the buttons order.
// Without a kernel (on the site) the same buttons replay the recorded run.

const SVG = "http://www.w3.org/2000/svg";
const REPLAY_SECONDS = 15;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Exponential mean over about 20 points, corrected for its start.
function smooth(values) {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    mean = 0.9 * mean + 0.1 * value;
    weight = 0.9 * weight + 0.1;
    return mean / weight;
  });
}

function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let v = Math.ceil(low / size) * size; v <= high + 1e-9; v += size) found.push(v);
  return found;
}

function chart(title, unit, xEnd, low, high, format, width) {
  const height = 230;
  const [left, right, top, bottom] = [52, 10, 24, 34];
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const x = (v) => left + (v / xEnd) * (width - left - right);
  const y = (v) => height - bottom - ((v - low) / (high - low)) * (height - top - bottom);
  svg.append(draw("text", { x: 4, y: 14 }, `${title} (${unit})`));
  for (const v of ticks(low, high)) {
    svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
    svg.append(draw("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, format(v)));
  }
  for (const v of ticks(0, xEnd))
    svg.append(draw("text", { x: x(v), y: height - bottom + 15, "text-anchor": "middle" }, v));
  svg.append(draw("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "step"));
  const line = (xs, ys, colour, kind = "") =>
    svg.append(
      draw("polyline", {
        class: `curve ${kind}`,
        style: `stroke: var(--${colour})`,
        points: xs.map((v, i) => `${x(v).toFixed(1)},${y(ys[i]).toFixed(1)}`).join(" "),
      }),
    );
  const level = (v, colour, label, above) => {
    svg.append(
      draw("line", {
        class: "level", style: `stroke: var(--${colour})`,
        x1: left, x2: width - right, y1: y(v), y2: y(v),
      }),
      draw("text", {
        x: width - right - 2, y: y(v) + (above ? -5 : 14),
        "text-anchor": "end", style: `fill: var(--${colour})`,
      }, label),
    );
  };
  const dot = (v, w, colour) =>
    svg.append(draw("circle", { cx: x(v), cy: y(w), r: 4, style: `fill: var(--${colour})` }));
  return { svg, line, level, dot };
}

// What to show: all that the traits hold, or, in a replay, the part up to a step.
function snapshot(model, upTo) {
  const curve = model.get("curve");
  const steps = curve.step ?? [];
  const shown = upTo === null ? steps.length : steps.filter((s) => s <= upTo).length;
  const cut = (name) => (curve[name] ?? []).slice(0, shown);
  const pairs = (name) => model.get(name).filter(([s]) => upTo === null || s <= upTo);
  const at = {};
  for (const name of Object.keys(curve)) at[name] = curve[name][shown - 1];
  return {
    steps: cut("step"), loss: cut("loss"), rate: cut("learning_rate"),
    now: upTo === null ? model.get("latest") : at,
    heldOut: pairs("held_out"), samples: pairs("samples"),
  };
}

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const recorded = model.isStatic === true; // set by the site's host
    const replay = { state: "finished", at: null, timer: 0 };
    const state = () => (recorded ? replay.state : model.get("state"));
    const total = model.get("total");
    const root = make("section", {
      class: "training-dashboard", "aria-label": "Training dashboard",
    });
    const button = (label) => make("button", { type: "button" }, label);
    const [run, pause, stop] = ["Run", "Pause", "Stop"].map(button);
    const status = make("span", { "data-role": "status", role: "status" });
    const progress = make("progress", { max: total, value: 0, "aria-label": "Steps done" });
    const readings = make("dl");
    const charts = make("div", { class: "charts" });
    const slider = make("input", { type: "range", min: 0, max: 0, value: 0 });
    const caption = make("span");
    const sample = make("p", { tabindex: "0" });
    root.append(
      make("div", { class: "controls" }, run, pause, stop, status),
      progress, readings, charts,
      make("div", { class: "sample" }, make("label", {}, caption, slider), sample),
    );
    el.append(root);
    let following = true; // the slider stays at the newest sample until it is moved

    const words = {
      idle: "Press Run to train.",
      running: "Training.",
      paused: "Paused. Press Resume to go on.",
      stopped: "Stopped. Press Run to go on.",
      finished: "Finished.",
      failed: "Failed.",
    };
    const recordedWords = {
      running: "Replaying the recorded run.",
      paused: "Replay paused.",
      stopped: "Replay stopped. Press Run to replay the recorded run.",
      finished: "The recorded run. Press Run to replay it.",
    };

    function reading(name, value) {
      readings.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    }

    function showSample(samples) {
      slider.max = Math.max(samples.length - 1, 0);
      slider.disabled = samples.length < 2;
      if (following) slider.value = slider.max;
      const chosen = samples[Number(slider.value)];
      caption.textContent = chosen ? `What the model writes at step ${chosen[0]}` : "No sample yet";
      slider.setAttribute("aria-valuetext", caption.textContent);
      sample.textContent = chosen ? chosen[1] : "";
    }

    function show() {
      const seen = snapshot(model, replay.at);
      const last = seen.steps.length - 1;
      const step = Math.round(seen.now.step ?? 0);
      const now = state();
      const text = (recorded ? recordedWords : words)[now] + " " + model.get("message");
      if (status.textContent !== text) status.textContent = text;
      status.dataset.state = now;
      status.dataset.step = step;
      run.disabled = now === "running" || (now === "finished" && !recorded);
      run.hidden = now === "paused";
      pause.textContent = now === "paused" ? "Resume" : "Pause";
      pause.disabled = now !== "running" && now !== "paused";
      stop.disabled = pause.disabled;
      progress.value = step;

      const [floor, baseline] = [model.get("floor"), model.get("baseline")];
      const smoothed = smooth(seen.loss);
      readings.replaceChildren();
      reading("step", `${step} of ${total}`);
      if (last >= 0) {
        const held = seen.heldOut.at(-1)?.[1];
        reading("training loss, nats/token", smoothed[last].toFixed(3));
        reading("held-out loss, nats/token", held?.toFixed(3) ?? "not yet");
        reading("way to the floor", held === undefined ? "not yet"
          : `${((100 * (baseline - held)) / (baseline - floor)).toFixed(1)} %`);
        reading("learning rate", seen.now.learning_rate.toExponential(2));
        reading("tokens per second", Math.round(seen.now.tokens_per_second).toLocaleString("en"));
        reading("seconds of training", seen.now.seconds.toFixed(0));
      }

      const narrow = charts.clientWidth > 0 && charts.clientWidth < 560;
      const highest = Math.max(baseline, ...seen.loss) * 1.04;
      const loss = chart("loss", "nats per token", total, 0, highest,
        (v) => v.toFixed(1), 440);
      loss.level(baseline, "baseline", "unigram baseline", false);
      loss.level(floor, "floor", "floor", false);
      loss.line(seen.steps, seen.loss, "train", "raw");
      loss.line(seen.steps, smoothed, "train");
      for (const [s, v] of seen.heldOut) loss.dot(s, v, "held-out");
      loss.svg.append(
        draw("text", { x: 130, y: 14, style: "fill: var(--train)" }, "― training"),
        draw("text", { x: 210, y: 14, style: "fill: var(--held-out)" }, "● held out"),
      );
      loss.svg.setAttribute("aria-label", last < 0 ? "Loss curve, still empty."
        : `Loss at step ${step}: training ${smoothed[last].toFixed(2)}, ` +
          `floor ${floor.toFixed(2)}, unigram baseline ${baseline.toFixed(2)} nats per token.`);
      const peak = Math.max(1e-9, ...(model.get("curve").learning_rate ?? [])) * 1000;
      const rate = chart("learning rate", "thousandths", total, 0, peak * 1.1,
        (v) => Number(v.toPrecision(2)), narrow ? 440 : 290);
      rate.line(seen.steps, seen.rate.map((v) => 1000 * v), "train");
      rate.svg.setAttribute("aria-label", "Learning rate: a short rise, then half a cosine.");
      charts.replaceChildren(loss.svg, rate.svg);
      showSample(seen.samples);
    }

    let asked = 0;
    const redraw = () => { asked ||= requestAnimationFrame(() => { asked = 0; show(); }); };

    function tick() {
      replay.at += total / (REPLAY_SECONDS * 10);
      if (replay.at >= total) end("finished");
      redraw();
    }
    function end(how) {
      clearInterval(replay.timer);
      replay.state = how;
      if (how === "finished") replay.at = null;
    }
    const replayOrders = {
      run() { replay.at = 0; replay.state = "running"; following = true;
        replay.timer = setInterval(tick, 100); },
      pause() { clearInterval(replay.timer); replay.state = "paused"; },
      resume() { replay.state = "running"; replay.timer = setInterval(tick, 100); },
      stop() { end("stopped"); },
    };
    function order(name) {
      if (recorded) replayOrders[name]();
      else model.send({ order: name });
      redraw();
    }
    run.addEventListener("click", () => order("run"));
    pause.addEventListener("click", () => order(state() === "paused" ? "resume" : "pause"));
    stop.addEventListener("click", () => order("stop"));
    slider.addEventListener("input", () => {
      following = slider.value === slider.max;
      showSample(snapshot(model, replay.at).samples);
    });
    const names = ["state", "message", "curve", "latest", "held_out", "samples"];
    for (const name of names) model.on(`change:${name}`, redraw);
    show();
    return () => {
      clearInterval(replay.timer);
      for (const name of names) model.off(`change:${name}`, redraw);
    };
  },
};
