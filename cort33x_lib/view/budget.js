// The budget explorer: the arithmetic of model/cost.py, computed here, so that it is the
// same with a kernel and without.

const SVG = "http://www.w3.org/2000/svg";
const MULTIPLE = 16; // feed-forward widths are multiples of it
const BUDGETS = [10e6, 20e6, 35e6, 50e6, 70e6, 100e6];
const PARTS = [
  ["embedding", "embedding"],
  ["mixers", "attention"],
  ["feed-forward", "feed-forward"],
];

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

function parameters(shape, feedForward) {
  const { vocabulary, channels, layers, headChannels } = shape;
  const heads = shape.heads + shape.keyValueHeads;
  return {
    embedding: vocabulary * channels,
    mixers: layers * (2 * channels * heads * headChannels + 2 * headChannels),
    "feed-forward": layers * 2 * channels * feedForward,
    norms: (2 * layers + 1) * channels,
    residual: 2 * layers,
  };
}

const sum = (parts) => Object.values(parts).reduce((total, part) => total + part, 0);

// The feed-forward width that comes nearest to the budget, 0 where nothing is left.
function fitted(shape, budget) {
  const perColumn = 2 * shape.channels * shape.layers;
  const others = sum(parameters(shape, 1));
  return Math.max(0, round((budget - others + perColumn) / perColumn / MULTIPLE) * MULTIPLE);
}

// FLOPs per token of one forward pass over a whole context, all layers full attention.
function forwardFlops(shape, parts, context) {
  return 2 * (parts.mixers - 2 * shape.layers * shape.headChannels)
    + 4 * shape.heads * shape.headChannels * shape.layers * (context - (context - 1) / 2)
    + 2 * parts["feed-forward"]
    + 2 * parts.embedding;
}

function compute(shape, budget, context, bytesPerToken) {
  const feedForward = fitted(shape, budget);
  const parts = parameters(shape, feedForward);
  return {
    vocabulary: shape.vocabulary,
    fits: feedForward > 0,
    feed_forward: feedForward,
    parts,
    total: sum(parts),
    bytes_held: context * bytesPerToken,
    flops_per_byte: (3 * forwardFlops(shape, parts, context)) / bytesPerToken,
  };
}

const whole = (value) => Math.round(value).toLocaleString("en");
const millions = (value) => `${(value / 1e6).toFixed(1)} M`;
const percent = (part, all) => `${((100 * part) / all).toFixed(0)}%`;

// One stacked bar a vocabulary, the chosen one strong.
function bars(rows, chosen, context) {
  const [left, right, height, step] = [60, 84, 24, 32];
  const width = 440;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${58 + rows.length * step}`, role: "img" });
  const most = Math.max(...rows.map(({ total }) => total));
  const x = (value) => left + (value / most) * (width - left - right);
  let at = left;
  for (const [key, label] of PARTS) {
    svg.append(
      draw("rect", { x: at, y: 3, width: 11, height: 11, style: `fill: var(--${label})` }),
      draw("text", { x: at + 15, y: 13 }, label),
    );
    at += key === "feed-forward" ? 105 : 92;
  }
  svg.append(
    draw("text", { x: left - 8, y: 36, "text-anchor": "end" }, "tokens"),
    draw("text", { x: width, y: 36, "text-anchor": "end" }, `kB in ${whole(context)}`),
  );
  rows.forEach((row, place) => {
    const y = 46 + place * step;
    const strong = row.vocabulary === chosen;
    const group = draw("g", { class: strong ? "ladder-bar chosen" : "ladder-bar" });
    const kind = strong ? "strong" : "";
    const label = { class: kind, y: y + 16, "text-anchor": "end" };
    group.append(draw("text", { ...label, x: left - 8 }, whole(row.vocabulary)));
    let start = 0;
    for (const [key, colour] of PARTS) {
      const size = row.parts[key];
      group.append(draw("rect", {
        x: x(start), y, width: Math.max(0, x(start + size) - x(start)), height,
        style: `fill: var(--${colour})`,
      }));
      const share = x(start + size) - x(start);
      if (share > 34)
        group.append(draw("text", {
          class: "on-bar", x: x(start) + share / 2, y: y + 16, "text-anchor": "middle",
        }, percent(size, row.total)));
      start += size;
    }
    group.append(draw("text", { ...label, x: width }, (row.bytes_held / 1000).toFixed(1)));
    svg.append(group);
  });
  return svg;
}

// Recorded models by the share of the embedding; a line where the chosen model is.
function points(measured, share) {
  const [width, height, left, right, top, bottom] = [300, 282, 48, 22, 40, 38];
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const low = Math.min(...measured.map((point) => point[3]));
  const high = Math.max(...measured.map((point) => point[4]));
  const margin = 0.15 * (high - low);
  const x = (v) => left + v * (width - left - right);
  const y = (v) => height - bottom
    - ((v - low + margin) / (high - low + 2 * margin)) * (height - top - bottom);
  svg.append(
    draw("text", { x: 2, y: 13 }, "recorded small models:"),
    draw("text", { x: 2, y: 28 }, "bits per byte, lower is better"),
    draw("text", { x: width - right, y: height - 4, "text-anchor": "end" },
      "share of parameters in the embedding"),
  );
  for (let k = 0; k <= 3; k++) {
    const value = low + (k / 3) * (high - low);
    svg.append(
      draw("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)),
    );
  }
  for (const v of [0, 0.25, 0.5, 0.75, 1])
    svg.append(draw("text", { x: x(v), y: height - bottom + 16, "text-anchor": "middle" },
      percent(v, 1)));
  svg.append(draw("line", {
    class: "share-line", x1: x(share), x2: x(share), y1: top, y2: height - bottom,
  }));
  for (const [vocabulary, at, mean, from, to] of measured)
    svg.append(
      draw("line", { class: "whisker", x1: x(at), x2: x(at), y1: y(from), y2: y(to) }),
      draw("circle", { class: "point", cx: x(at), cy: y(mean), r: 4.5 }),
      draw("text", { x: x(at) + 8, y: y(mean) - 8 }, whole(vocabulary)),
    );
  return svg;
}

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const ladder = model.get("ladder");
    const measured = model.get("measured");
    const context = model.get("context");
    const budgets = [...new Set([...BUDGETS, model.get("budget")])].sort((a, b) => a - b);
    const root = make("section", {
      class: "budget-explorer", "aria-label": "Budget explorer",
    });
    const slider = (name, min, max, step = 1) => {
      const value = make("b");
      const input = make("input", { type: "range", min, max, step });
      const label = make("label", {}, `${name} `, value, input);
      return { input, value, label };
    };
    const controls = {
      budget: slider("Budget", 0, budgets.length - 1),
      vocabulary: slider("Vocabulary", 0, ladder.length - 1),
      channels: slider("Width", 128, 1024, 64),
      layers: slider("Layers", 2, 24),
    };
    // The sliders stand at places of lists; these turn them into numbers and back.
    const read = {
      budget: (place) => budgets[place],
      vocabulary: (place) => ladder[place][0],
      channels: Number,
      layers: Number,
    };
    const place = {
      budget: (value) => budgets.indexOf(value),
      vocabulary: (value) => ladder.findIndex(([size]) => size === value),
      channels: Number,
      layers: Number,
    };
    const words = {
      budget: (value) => `${millions(value)} parameters`,
      vocabulary: (value) => `${whole(value)} tokens`,
      channels: (value) => `${value} channels`,
      layers: (value) => `${value}`,
    };
    const said = make("output", { "aria-live": "polite" });
    const charts = make("div", { class: "charts" });
    root.append(
      make("div", { class: "controls" }, ...Object.values(controls).map(({ label }) => label)),
      said, charts,
    );
    el.append(root);

    function show() {
      for (const [name, { input, value }] of Object.entries(controls)) {
        input.value = place[name](model.get(name));
        value.textContent = words[name](model.get(name));
        input.setAttribute("aria-valuetext", value.textContent);
      }
      const [budget, chosen] = [model.get("budget"), model.get("vocabulary")];
      const rows = ladder.map(([vocabulary, bytesPerToken]) => compute({
        vocabulary, channels: model.get("channels"), layers: model.get("layers"),
        heads: model.get("heads"), keyValueHeads: model.get("key_value_heads"),
        headChannels: model.get("head_channels"),
      }, budget, context, bytesPerToken));
      const row = rows.find(({ vocabulary }) => vocabulary === chosen);
      const share = row.parts.embedding / row.total;
      const width = (row.feed_forward / model.get("channels")).toFixed(1);
      said.textContent = row.fits
        ? `The embedding takes ${millions(row.parts.embedding)}, ${percent(share, 1)} of all. `
          + `The feed-forward layers get ${whole(row.feed_forward)} columns, ${width} times the `
          + `width. ${whole(context)} positions hold ${whole(row.bytes_held)} bytes; training `
          + `takes ${(row.flops_per_byte / 1e6).toFixed(0)} million FLOPs a byte.`
        : `No: embedding and attention alone need ${millions(row.total)}, and nothing is left `
          + "for feed-forward layers. Take fewer tokens, channels or layers.";
      const chart = bars(rows, chosen, context);
      chart.setAttribute("aria-label", `Parameters by part for ${rows.length} vocabularies.`);
      charts.replaceChildren(chart);
      if (measured.length) {
        const recorded = points(measured, Math.min(share, 1));
        recorded.setAttribute("aria-label", measured.map(([size, at, mean]) =>
          `${whole(size)} tokens, ${percent(at, 1)}: ${mean.toFixed(3)} bits per byte`).join("; "));
        charts.append(recorded);
      }
      model.set("chosen", row);
      model.save_changes();
    }

    for (const [name, { input }] of Object.entries(controls))
      input.addEventListener("input", () => model.set(name, read[name](input.value)));
    const names = Object.keys(controls);
    for (const name of names) model.on(`change:${name}`, show);
    show();
    return () => {
      for (const name of names) model.off(`change:${name}`, show);
    };
  },
};
