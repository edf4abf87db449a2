// The schedule explorer: the arithmetic of training/schedule.py, computed here, so that it
// is the same with a kernel and without.

const SVG = "http://www.w3.org/2000/svg";
const NAMES = { cosine: "cosine", wsd: "stay, then fall" };
const LENGTHS = [50, 100, 200, 500, 1000, 2000, 5340, 10000];
const POINTS = 400; // drawn of each curve

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

const FALLS = {
  cosine: ({ steps }, step, rise) => (1 + Math.cos((Math.PI * (step - rise)) / (steps - rise))) / 2,
  wsd: ({ steps, cooldown }, step) =>
    Math.min((steps - step) / Math.max(round(steps * cooldown), 1), 1),
};

function learningRate(name, recipe, step) {
  const rise = round(recipe.steps * recipe.warmup);
  if (step <= rise) return (recipe.peak_rate * step) / rise;
  const height = FALLS[name](recipe, step, rise);
  return recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * height;
}

function compute(recipe) {
  const last = Math.max(1, round(recipe.steps * recipe.stop));
  const found = {};
  for (const name of Object.keys(NAMES)) {
    const rates = Array.from({ length: recipe.steps }, (_, k) => learningRate(name, recipe, k + 1));
    const taken = rates.slice(0, last);
    const mean = taken.reduce((total, rate) => total + rate, 0) / last;
    found[name] = { rates, mean, at_stop: rates[last - 1] };
  }
  return { ...found, last, rise: round(recipe.steps * recipe.warmup) };
}

const whole = (value) => Math.round(value).toLocaleString("en");
const percent = (share) => `${Number((100 * share).toFixed(1))}%`;
const small = (rate) => rate.toExponential(1);

function chart(recipe, found) {
  const [width, height, left, right, top, bottom] = [640, 280, 66, 14, 30, 40];
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const x = (step) => left + (step / recipe.steps) * (width - left - right);
  const y = (rate) => height - bottom - (rate / recipe.peak_rate) * (height - top - bottom);
  for (let k = 0; k <= 3; k++) {
    const rate = (k / 3) * recipe.peak_rate;
    svg.append(
      draw("line", { class: "axis", x1: left, x2: width - right, y1: y(rate), y2: y(rate) }),
      draw("text", { x: left - 6, y: y(rate) + 4, "text-anchor": "end" }, k ? small(rate) : "0"),
    );
  }
  for (let k = 0; k <= 4; k++)
    svg.append(draw("text", {
      x: x((k / 4) * recipe.steps), y: height - bottom + 18,
      "text-anchor": k === 4 ? "end" : "middle",
    }, whole((k / 4) * recipe.steps)));
  svg.append(
    draw("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "step"),
    draw("text", { x: 2, y: 14 }, "learning rate"),
  );
  const every = Math.max(1, Math.floor(recipe.steps / POINTS));
  Object.keys(NAMES).forEach((name, place) => {
    const { rates } = found[name];
    const at = rates.map((_, k) => k + 1)
      .filter((step) => step % every === 0 || step === 1 || step === found.rise
        || step === found.last || step === recipe.steps);
    const line = (chosen) => chosen.map((step) => `${x(step)},${y(rates[step - 1])}`).join(" ");
    const [taken, left_out] = [
      at.filter((step) => step <= found.last), at.filter((step) => step >= found.last),
    ];
    svg.append(
      draw("polyline", { class: `curve ${name}`, points: line(taken) }),
      draw("polyline", { class: `curve ${name} untaken`, points: line(left_out) }),
      draw("line", { class: `curve ${name}`, x1: 200 + 110 * place, x2: 228 + 110 * place,
        y1: 10, y2: 10 }),
      draw("text", { x: 234 + 110 * place, y: 14 }, NAMES[name]),
    );
  });
  if (found.last < recipe.steps)
    svg.append(draw("line", {
      class: "stop-line", x1: x(found.last), x2: x(found.last), y1: top, y2: height - bottom,
    }));
  return svg;
}

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const lengths = [...new Set([...LENGTHS, model.get("steps")])].sort((a, b) => a - b);
    const slider = (name, min, max, step) => {
      const value = make("b");
      const input = make("input", { type: "range", min, max, step });
      return { input, value, label: make("label", {}, `${name} `, value, input) };
    };
    const controls = {
      steps: slider("Steps", 0, lengths.length - 1, 1),
      warmup: slider("Warm-up", 0, 0.5, 0.01),
      cooldown: slider("Fall at the end", 0.02, 0.5, 0.02),
      stop: slider("Stopped after", 0.05, 1, 0.05),
    };
    const read = { steps: (place) => lengths[place] };
    const place = { steps: (steps) => lengths.indexOf(steps) };
    const words = {
      steps: whole,
      warmup: (share) => `${percent(share)}, ${whole(round(share * model.get("steps")))} steps`,
      cooldown: (share) => `${percent(share)} of the steps`,
      stop: (share) => (share === 1 ? "all steps" : `${percent(share)} of the steps`),
    };
    const said = make("output", { "aria-live": "polite" });
    const place_of_chart = make("div");
    const root = make("section", { class: "schedule-explorer", "aria-label": "Schedule explorer" },
      make("div", { class: "controls" }, ...Object.values(controls).map(({ label }) => label)),
      said, place_of_chart);
    el.append(root);

    const names = ["steps", "peak_rate", "final_rate", "warmup", "cooldown", "stop"];
    function show() {
      const recipe = Object.fromEntries(names.map((name) => [name, model.get(name)]));
      for (const [name, { input, value }] of Object.entries(controls)) {
        input.value = place[name]?.(recipe[name]) ?? recipe[name];
        value.textContent = words[name](recipe[name]);
        input.setAttribute("aria-valuetext", value.textContent);
      }
      const found = compute(recipe);
      const of = (name) => `${NAMES[name]}: mean ${percent(found[name].mean / recipe.peak_rate)} `
        + `of the peak, ${percent(found[name].at_stop / recipe.peak_rate)} at the last step`;
      const early = found.cosine.at_stop > 1.5 * recipe.final_rate
        && found.last < recipe.steps;
      said.textContent = `${whole(found.last)} steps taken. ${of("cosine")}; ${of("wsd")}. `
        + (early ? "Neither has come down: what was learnt last is still rough. Only the one that "
          + "stays can fall from here as if this had been the plan." : "");
      const drawn = chart(recipe, found);
      drawn.setAttribute("aria-label", said.textContent);
      place_of_chart.replaceChildren(drawn);
      model.set("chosen", found);
      model.save_changes();
    }
    for (const [name, { input }] of Object.entries(controls))
      input.addEventListener("input", () =>
        model.set(name, read[name]?.(input.value) ?? Number(input.value)));
    for (const name of names) model.on(`change:${name}`, show);
    show();
    return () => {
      for (const name of names) model.off(`change:${name}`, show);
    };
  },
};
