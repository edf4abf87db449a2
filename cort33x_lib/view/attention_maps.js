// The attention viewer: maps are unpacked and masks are made here, so that it is the same
// with a kernel and without.

const INK = [213, 94, 0]; // seen on white and on black alike
const SINK = 3; // columns that a sink takes in a drawing, a gap included
const DECAY = 0.9; // a token, in the drawing of a state
const MASKS = {
  F: "full attention",
  L: "latent attention",
  W: "a window",
  S: "a window and a sink",
  D: "a state that fades",
};

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const windowed = (letter) => letter === "W" || letter === "S";
const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)}%`;
const visible = (token) => token.replaceAll("\n", "\u21b5");
const quoted = (token) => `\u201c${visible(token)}\u201d`;

// Whether token t may read token s in a layer of this letter.
const mayRead = (letter, window, t, s) => s <= t && (!windowed(letter) || s > t - window);

// A view is what can be looked at: its letter, its window, and the weight at (t, s).
function mapViews(model) {
  const [tokens, heads] = [model.get("tokens").length, model.get("heads")];
  const one = (tokens * (tokens + 1)) / 2; // weights of one head
  return Object.entries(model.get("maps")).flatMap(([layer, packed]) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const letter = model.get("pattern")[layer];
    return Array.from({ length: heads }, (_, head) => ({
      kind: "map", letter, layer: Number(layer), head, window: model.get("window"),
      name: `Layer ${Number(layer) + 1} (${letter}), head ${head + 1}`,
      weight: (t, s) => bytes[head * one + (t * (t + 1)) / 2 + s] / 255,
    }));
  });
}

function maskViews(window) {
  return Object.entries(MASKS).map(([letter, name]) => ({
    kind: "mask", letter, window, name: `${letter}: ${name}`,
    weight: (t, s) => (letter === "D" ? DECAY ** (t - s) : 0.6),
  }));
}

// One pixel a pair of tokens; CSS makes the pixels large.
function paint(canvas, view, tokens) {
  const lead = view.kind === "mask" && view.letter === "S" ? SINK : 0;
  const width = tokens + lead;
  const pixels = new ImageData(width, tokens);
  const put = (t, x, colour, alpha) => pixels.data.set([...colour, alpha], 4 * (t * width + x));
  for (let t = 0; t < tokens; t++) {
    for (let x = 0; x < lead - 1; x++) put(t, x, INK, 150);
    for (let s = 0; s < tokens; s++)
      if (mayRead(view.letter, view.window, t, s))
        put(t, lead + s, INK, 255 * Math.sqrt(view.weight(t, s)));
      else put(t, lead + s, [128, 128, 128], 45);
  }
  canvas.width = width;
  canvas.height = tokens;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// The tokens that token t reads, most weight first.
function row(view, t) {
  const read = [];
  for (let s = 0; s <= t; s++)
    if (mayRead(view.letter, view.window, t, s)) read.push([s, view.weight(t, s)]);
  return view.kind === "mask" ? read : read.sort(([, a], [, b]) => b - a);
}

function describeMap(read, tokens, reader) {
  const most = read.filter(([, weight]) => weight >= 0.02).slice(0, 4)
    .map(([s, weight]) => `${quoted(tokens[s])} ${percent(weight)}`);
  let [held, count] = [0, 0];
  const sum = read.reduce((total, [, weight]) => total + weight, 0);
  while (held < 0.9 * sum) held += read[count++][1];
  return `${reader} reads ${most.join(", ") || "many tokens, none for 2%"}. `
    + `${count} of ${read.length} tokens hold nine tenths of what it reads.`;
}

function describeMask(view, read, tokens, reader) {
  let pairs = 0;
  for (let t = 0; t < tokens; t++) pairs += row(view, t).length;
  const share = `${pairs} of ${(tokens * (tokens + 1)) / 2} pairs`;
  const kept = Math.min(view.window, tokens);
  return {
    F: `${reader} may read ${read.length} tokens. ${share} are computed, and the keys and `
      + "values of all tokens are kept for those to come.",
    L: `${reader} may read ${read.length} tokens, as in F. ${share} are computed; what is kept `
      + "of a token is one short vector for all heads.",
    W: `${reader} may read ${read.length} tokens, itself included. ${share} are computed, and `
      + `the keys and values of ${kept} tokens are kept.`,
    S: `${reader} may read ${read.length} tokens, and a sink, the column at the left, which `
      + `takes weight and gives nothing. ${share} are computed, ${kept} tokens are kept.`,
    D: `${reader} reads a state of fixed size, into which all ${read.length} tokens were `
      + `written. Older ones fade: here by a tenth a token, in a model as it has learnt.`,
  }[view.letter];
}

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const tokens = model.get("tokens");
    const T = tokens.length;
    const maps = mapViews(model);
    let masks = maskViews(Math.min(16, T));
    let place = 0; // of the view on show, among the maps and then the masks
    let reader = T - 1;
    const views = () => [...maps, ...masks];

    const canvas = make("canvas", { role: "img" });
    const marker = make("div", { class: "marker" });
    const slider = (name, value) => {
      const words = make("b");
      const input = make("input", { type: "range", min: 1, max: T, value });
      return { words, input, label: make("label", {}, `${name} `, words, input) };
    };
    const reading = slider("Reader", T);
    const width = slider("Window", masks[0].window);
    const title = make("h4");
    const said = make("output", { "aria-live": "polite" });
    const text = make("p", { class: "text" });
    const spans = tokens.map((token) => make("span", {}, visible(token)));
    text.append(...spans);
    const buttons = views().map((view) => {
      const small = make("canvas", { "aria-hidden": "true" });
      paint(small, view, T);
      const button = make("button", { type: "button", "aria-label": view.name }, small);
      if (view.kind === "mask") button.append(view.letter);
      return button;
    });
    const group = (name, columns, chosen) => make("div", {
      role: "group", "aria-label": name, class: "thumbnails", style: `--columns: ${columns}`,
    }, ...chosen);
    el.append(make("section", {
      class: "attention-viewer", "aria-label": "Attention viewer",
    },
    make("div", { class: "chooser" },
      make("p", {}, "Trained model: a row for a layer, a column for a head"),
      group("Maps of the model", model.get("heads"), buttons.slice(0, maps.length)),
      make("p", {}, "Masks, by the letter of a layer"),
      group("Masks", Object.keys(MASKS).length, buttons.slice(maps.length))),
    make("div", { class: "large" },
      title, make("div", { class: "frame" }, canvas, marker), reading.label, width.label),
    make("div", { class: "words" }, said, text)));

    function show() {
      const view = views()[place];
      const read = row(view, reader);
      const name = `Token ${reader + 1}, ${quoted(tokens[reader])},`;
      paint(canvas, view, T);
      buttons.forEach((button, at) => button.setAttribute("aria-pressed", at === place));
      title.textContent = view.name;
      canvas.setAttribute("aria-label", `${view.name}: ${T} readers below each other, what they `
        + "read from left to right");
      marker.style.top = `${(100 * reader) / T}%`;
      marker.style.height = `${100 / T}%`;
      reading.input.value = reader + 1;
      reading.words.textContent = `token ${reader + 1} of ${T}`;
      reading.input.setAttribute("aria-valuetext", `${reader + 1}, ${visible(tokens[reader])}`);
      width.label.hidden = view.kind === "map" || !windowed(view.letter);
      width.words.textContent = `${view.window} tokens`;
      said.textContent = view.kind === "map"
        ? describeMap(read, tokens, name)
        : describeMask(view, read, T, name);
      const weights = new Map(read);
      spans.forEach((span, s) => {
        const strength = Math.sqrt(weights.get(s) ?? 0);
        span.style.background = `rgb(${INK.join(" ")} / ${(0.75 * strength).toFixed(3)})`;
        span.className = s === reader ? "reader" : weights.has(s) ? "" : "unread";
      });
      const { kind, letter, layer, head } = view;
      model.set("chosen", { kind, letter, layer, head, window: view.window, reader, read });
      model.save_changes();
    }

    const choose = (t) => {
      reader = Math.max(0, Math.min(T - 1, t));
      show();
    };
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      choose(Math.floor(((event.clientY - box.top) / box.height) * T));
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    reading.input.addEventListener("input", () => choose(reading.input.value - 1));
    spans.forEach((span, s) => span.addEventListener("click", () => choose(s)));
    width.input.addEventListener("input", () => {
      masks = maskViews(Number(width.input.value));
      masks.forEach((view, at) => paint(buttons[maps.length + at].firstChild, view, T));
      show();
    });
    buttons.forEach((button, at) => button.addEventListener("click", () => {
      place = at;
      show();
    }));
    show();
  },
};
