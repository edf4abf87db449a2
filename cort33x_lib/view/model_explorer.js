// The model explorer: adds up what the letters of a pattern cost. The costs of each letter
// come from model/cost.py; only sums and the fit to the budget are computed here.

const SVG = "http://www.w3.org/2000/svg";
const MULTIPLE = 16; // feed-forward widths are multiples of it
const BUDGETS = [10e6, 20e6, 35e6, 50e6, 70e6, 100e6];
const VOCABULARIES = [1024, 2048, 4096, 8192, 16384, 32768];
const PATTERNS = ["WWWF", "WF", "F", "W", "DWDF", "DDDF", "L", "S"];
const PARTS = [["embedding", "embedding"], ["mixers", "mixers"], ["feed-forward", "feed-forward"]];

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

// Halves go to the even number, as in Python.
function round(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const whole = (value) => Math.round(value).toLocaleString("en");
const rough = (value) => value.toLocaleString("en", { maximumSignificantDigits: 2 });
const millions = (value) => `${(value / 1e6).toFixed(1)} M`;
const bytes = (value) =>
  value < 1e6 ? `${(value / 1e3).toFixed(0)} kB`
    : `${(value / 1e6).toFixed(value < 99.5e6 ? 1 : 0)} MB`;

// Everything about one pattern, or what is wrong with it.
function compute({ letters, lengths, windows, channels, context, rate, update, ...chosen }) {
  const { budget, pattern, window, vocabulary, step } = chosen;
  const layers = pattern.length;
  const unknown = [...pattern].find((letter) => !(letter in letters));
  if (!layers) return { fault: "The pattern is empty: write one letter a layer." };
  if (unknown)
    return { fault: `No mixer is called ${unknown}. Take ${Object.keys(letters).join(", ")}.` };
  const mixers = [...pattern].map((letter) => letters[letter]);
  const others = vocabulary * channels + sum(mixers.map((mixer) => mixer.parameters))
    + (2 * layers + 1) * channels + 2 * layers;
  const perColumn = 2 * channels * layers;
  const width = round((budget - others) / perColumn / MULTIPLE) * MULTIPLE;
  if (width < MULTIPLE)
    return { fault: `The other parts need ${millions(others)}: nothing is left for `
      + "feed-forward layers. Take fewer tokens or layers." };
  const parts = {
    embedding: vocabulary * channels,
    mixers: sum(mixers.map((mixer) => mixer.parameters)),
    "feed-forward": perColumn * width,
    norms: (2 * layers + 1) * channels,
    residual: 2 * layers,
  };
  const at = windows.indexOf(window);
  const flops = lengths.map((_, n) => sum(mixers.map((mixer) => mixer.flops[at][n]))
    + 2 * parts["feed-forward"] + 2 * parts.embedding);
  const total = sum(Object.values(parts));
  const passes = (3 * step * flops[lengths.indexOf(context)]) / rate; // seconds of a step
  return {
    feed_forward: width,
    parts,
    total,
    flops,
    state: lengths.map((_, n) => sum(mixers.map((mixer) => mixer.state[at][n]))),
    update: update * total,
    tokens_per_second: step / (passes + update * total),
  };
}

// One bar, its parts with their shares, and what the colours stand for.
function bar(found) {
  const line = make("div", { class: "bar", role: "img" });
  const legend = make("p", { class: "legend" });
  for (const [name, colour] of PARTS) {
    const share = (100 * found.parts[name]) / found.total;
    const style = `background: var(--${colour})`;
    line.append(make("span", { style: `${style}; width: ${share}%` },
      share > 7 ? `${share.toFixed(0)}%` : ""));
    legend.append(make("i", { style }), ` ${name} ${millions(found.parts[name])} `);
  }
  line.setAttribute("aria-label",
    PARTS.map(([name]) => `${name} ${whole(found.parts[name])} parameters`).join(", "));
  return [legend, line];
}

// Both axes grow by doubling: this model strong, the uniform one beside it.
function lines(title, lengths, context, own, uniform, words) {
  const [width, height, left, right, top, bottom] = [350, 250, 62, 24, 26, 36];
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const all = [...own, ...uniform].filter((value) => value > 0);
  const [low, high] = [Math.log2(Math.min(...all)), Math.log2(Math.max(...all))];
  const span = Math.max(high - low, 1);
  const last = lengths.length - 1;
  const x = (n) => left + (Math.log2(lengths[n] / lengths[0])
    / Math.log2(lengths[last] / lengths[0])) * (width - left - right);
  const y = (value) => height - bottom - ((Math.log2(value) - low) / span) * (height - top - bottom);
  svg.append(draw("text", { x: 0, y: 13, class: "strong" }, title));
  for (let k = 0; k <= 4; k++) {
    const value = 2 ** (low + (k / 4) * span);
    svg.append(
      draw("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, words(value)),
    );
  }
  lengths.forEach((length, n) => {
    if (n % 2 === 0)
      svg.append(draw("text", { x: x(n), y: height - bottom + 16, "text-anchor": "middle" },
        whole(length)));
  });
  svg.append(draw("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "tokens"));
  const place = lengths.indexOf(context);
  svg.append(draw("line",
    { class: "context", x1: x(place), x2: x(place), y1: top, y2: height - bottom }));
  for (const [values, kind] of [[uniform, "uniform"], [own, "own"]])
    svg.append(draw("polyline", {
      class: kind, points: values.map((value, n) => `${x(n)},${y(value)}`).join(" "),
    }));
  svg.setAttribute("aria-label", `${title}: ${lengths.map((length, n) =>
    `${whole(length)} tokens ${words(own[n])}, all F ${words(uniform[n])}`).join("; ")}`);
  return svg;
}

const NAMES = ["budget", "pattern", "window", "vocabulary", "step"];
const FIXED = ["letters", "lengths", "windows", "channels", "context", "rate", "update"];
const GIVEN = [...NAMES, ...FIXED];

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const given = () => Object.fromEntries(GIVEN.map((name) => [name, model.get(name)]));
    const start = given();
    const places = {
      budget: [...new Set([...BUDGETS, start.budget])].sort((a, b) => a - b),
      window: start.windows,
      vocabulary: [...new Set([...VOCABULARIES, start.vocabulary])].sort((a, b) => a - b),
      step: model.get("steps"),
    };
    const words = {
      budget: (value) => `${millions(value)} parameters`,
      window: (value) => `${whole(value)} tokens`,
      vocabulary: (value) => `${whole(value)} tokens`,
      step: (value) => `${whole(value)} tokens`,
    };
    const text = make("input", {
      type: "text", spellcheck: "false", autocomplete: "off", maxlength: "48",
    });
    const controls = make("div", { class: "controls" }, make("label", {}, "Pattern ", text));
    const sliders = {};
    for (const [name, values] of Object.entries(places)) {
      const said = make("b");
      const input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
      const label = `${name[0].toUpperCase()}${name.slice(1)} `;
      controls.append(make("label", {}, label, said, input));
      sliders[name] = { input, said };
      input.addEventListener("input", () => model.set(name, values[input.value]));
    }
    const buttons = make("div", { class: "presets", role: "group", "aria-label": "Patterns" });
    for (const group of PATTERNS) {
      if ([...group].some((letter) => !(letter in start.letters))) continue;
      const pattern = group.repeat(Math.ceil(12 / group.length));
      const button = make("button", { type: "button" }, pattern);
      button.addEventListener("click", () => model.set("pattern", pattern));
      buttons.append(button);
    }
    const said = make("output", { "aria-live": "polite" });
    const charts = make("div", { class: "charts" });
    const root = make("section", {
      class: "model-explorer", "aria-label": "Model explorer",
    }, controls, buttons, said, charts);
    el.append(root);
    text.addEventListener("input", () => model.set("pattern", text.value.trim().toUpperCase()));

    function show() {
      const now = given();
      if (text.value.trim().toUpperCase() !== now.pattern) text.value = now.pattern;
      for (const [name, { input, said: value }] of Object.entries(sliders)) {
        input.value = places[name].indexOf(now[name]);
        value.textContent = words[name](now[name]);
        input.setAttribute("aria-valuetext", value.textContent);
      }
      const found = compute(now);
      text.setAttribute("aria-invalid", String("fault" in found));
      if ("fault" in found) {
        said.textContent = found.fault;
        charts.replaceChildren();
      } else {
        const uniform = compute({ ...now, pattern: "F".repeat(now.pattern.length) });
        const place = now.lengths.indexOf(now.context);
        said.textContent = `${whole(found.total)} parameters, feed-forward layers of `
          + `${whole(found.feed_forward)}. At ${whole(now.context)} tokens: `
          + `${millions(3 * found.flops[place])}FLOPs a trained token, `
          + `${bytes(found.state[place])} of state in float32. Forecast: about `
          + `${whole(found.tokens_per_second)} trained tokens per second here. It holds forward `
          + `and backward pass at ${(now.rate / 1e9).toFixed(0)} GFLOP/s, and an update of `
          + `${rough(1000 * found.update)} ms every ${whole(now.step)} tokens.`;
        charts.replaceChildren(...bar(found));
        // Where letters cost more than F, all F may still fit; where not, it is left out.
        const other = "fault" in uniform ? found : uniform;
        charts.append(make("div", { class: "pair" },
          lines("MFLOPs a token, forward", now.lengths, now.context, found.flops, other.flops,
            (value) => (value / 1e6).toFixed(0)),
          lines("State of one sequence", now.lengths, now.context, found.state, other.state, bytes)));
        charts.append(make("p", { class: "legend" },
          make("span", { class: "own-key" }), ` ${now.pattern} `,
          make("span", { class: "uniform-key" }), " all F, same budget ",
          make("span", { class: "context-key" }), " its context"));
      }
      model.set("chosen", found);
      model.save_changes();
    }

    for (const name of NAMES) model.on(`change:${name}`, show);
    show();
    return () => {
      for (const name of NAMES) model.off(`change:${name}`, show);
    };
  },
};
