// The sampling explorer. `forward.js` stands before this file: Reader, Pieces, narrow,
// lots and draw come from there.

const SHOWN = 12; // of the likeliest tokens
const LONGEST = 2000; // characters of a prompt
const KEEP = [1, 2, 3, 5, 10, 20, 50, 100, 0]; // top-k; 0 keeps all

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const percent = (share) =>
  share === 0 ? "0" : share < 0.0005 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;

// A token as a reader can see it: spaces as dots, bytes that are no text as numbers.
function visible(bytes) {
  if (!bytes) return "end of text";
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(Uint8Array.from(bytes));
    if (/[\p{Cc}\p{Cf}\p{M}\p{Cn}\p{Co}\p{Zl}\p{Zp}]/u.test(text)) throw text;
    return text.replaceAll(" ", "\u00b7");
  } catch {
    return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
  }
}

const SLIDERS = {
  temperature: ["Temperature", 0, 2, 0.05, (x) => x, (x) => (x ? x.toFixed(2) : "0, the likeliest")],
  top_k: ["Top-k", 0, KEEP.length - 1, 1, (n) => KEEP[n], (k) => (k ? `the ${k} likeliest` : "all")],
  top_p: ["Top-p", 0.05, 1, 0.05, (x) => x, (x) => (x < 1 ? x.toFixed(2) : "all")],
  min_p: ["Min-p", 0, 0.5, 0.01, (x) => x, (x) => (x ? `${x.toFixed(2)} of the likeliest` : "all")],
  repetition_penalty: ["Repetition penalty", 1, 2, 0.05, (x) => x, (x) => (x > 1 ? x.toFixed(2) : "none")],
};

let widgets = 0; // so that two on one page have labels of their own

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const reader = new Reader(model.get("weights"), model.get("config"));
    const pieces = new Pieces(model.get("merges"), model.get("expression"));
    const context = model.get("config").context;
    const name = `sampling-explorer-${widgets++}`;
    const box = make("textarea", {
      id: `${name}-prompt`, rows: 2, spellcheck: "false", maxlength: LONGEST, dir: "auto",
    });
    const controls = make("div", { class: "controls" });
    const bars = make("ol", { class: "bars", "aria-label": "The likeliest next tokens" });
    const button = (label) => make("button", { type: "button" }, label);
    const [one, write, again] = ["One token", "Write", "Start again"].map(button);
    const seed = make("input", { id: `${name}-seed`, type: "number", min: 0, step: 1, max: 999999 });
    const [given, made] = [make("span", { class: "given" }), make("span", { class: "made" })];
    const text = make("p", { class: "written", "aria-live": "polite", dir: "auto" }, given, made);
    const status = make("p", { class: "status", role: "status" });
    el.append(make("section", {
      class: "sampling-explorer", "aria-label": "Sampling explorer",
    },
      make("label", { for: box.id }, "Prompt"), box, controls,
      make("p", { class: "hint" }, "What may come next: the frame is what the model expects, " +
        "the bar is what is drawn from. Press a token to take it."), bars,
      make("div", { class: "orders" }, one, write, again,
        make("label", { for: seed.id }, "Seed"), seed),
      text, status,
    ));
    const sliders = Object.entries(SLIDERS).map(([trait, [label, min, max, step, of, say]]) => {
      const id = `${name}-${trait}`;
      const input = make("input", { id, type: "range", min, max, step });
      const output = make("output", { for: id });
      controls.append(make("div", {}, make("label", { for: id }, label), input, output));
      input.addEventListener("input", () => set({ [trait]: of(Number(input.value)) }));
      return () => {
        const value = model.get(trait);
        input.value = trait === "top_k" ? KEEP.indexOf(value) : value;
        output.textContent = say(value);
        input.setAttribute("aria-valuetext", say(value));
      };
    });
    const rows = Array.from({ length: SHOWN }, () => {
      const [token, share] = [make("bdi", { class: "token" }), make("span", { class: "share" })];
      const [frame, fill] = [make("span", { class: "frame" }), make("span", { class: "fill" })];
      const press = make("button", { type: "button" }, token,
        make("span", { class: "bar", "aria-hidden": "true" }, frame, fill), share);
      press.addEventListener("click", () => take(Number(press.dataset.id)));
      bars.append(make("li", {}, press));
      return { press, token, share, frame, fill };
    });
    let written = []; // the ids after the prompt
    let logits; // after all that was read
    let ended = "";
    let timer = 0;

    function set(values) {
      for (const [trait, value] of Object.entries(values)) model.set(trait, value);
      model.save_changes();
    }

    const settings = () =>
      Object.fromEntries(Object.keys(SLIDERS).map((trait) => [trait, model.get(trait)]));

    // Reads the prompt and what was written; what was read before is not read again.
    function catchUp() {
      const prompt = pieces.encode(model.get("prompt")).slice(0, context - 1);
      const ids = [model.get("end"), ...prompt, ...written];
      const same = ids.findIndex((id, n) => id !== reader.ids[n]);
      if (same < 0 && ids.length === reader.ids.length) return;
      reader.forget(same < 0 ? ids.length - 1 : same);
      for (const id of ids.slice(reader.ids.length)) logits = reader.read(id);
    }

    const shares = () => narrow(logits, reader.ids, settings());

    function show() {
      for (const refresh of sliders) refresh();
      if (box.value !== model.get("prompt")) box.value = model.get("prompt");
      seed.value = model.get("seed");
      const [expected, kept] = [softmax(logits), shares()];
      const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, SHOWN);
      const widest = Math.max(...order.map((id) => Math.max(expected[id], kept[id])));
      rows.forEach(({ press, token, share, frame, fill }, n) => {
        const id = order[n];
        token.textContent = visible(pieces.bytes[id]);
        share.textContent = percent(kept[id]);
        frame.style.width = `${(100 * expected[id]) / widest}%`;
        fill.style.width = `${(100 * kept[id]) / widest}%`;
        press.dataset.id = id;
        press.className = kept[id] ? "" : "out";
        press.disabled = ended !== "";
        press.setAttribute("aria-label", `${token.textContent}: expected ` +
          `${percent(expected[id])}, drawn with ${percent(kept[id])}`);
      });
      given.textContent = model.get("prompt");
      made.textContent = pieces.decode(written);
      one.disabled = ended !== "";
      write.disabled = ended !== "";
      write.textContent = timer ? "Pause" : "Write";
      text.setAttribute("aria-busy", String(timer !== 0));
      set({ ids: [...reader.ids], top: order.map((id) => [id, logits[id], kept[id]]) });
    }

    function take(id) {
      if (ended) return;
      if (id === model.get("end")) ended = "The text has ended.";
      else if (reader.ids.length >= context) ended = "The context is full.";
      else written.push(id);
      const started = performance.now();
      catchUp();
      const took = performance.now() - started;
      const count = `${written.length} token${written.length === 1 ? "" : "s"}`;
      status.textContent = ended || `${count}, the last in ${took.toFixed(0)} ms`;
      if (ended) pause();
      show();
    }

    // The lot of a place in the text follows from the seed and that place alone.
    function takeOne() {
      const next = lots(model.get("seed"));
      for (let n = 0; n < written.length; n++) next();
      take(draw(shares(), next()));
    }

    function pause() {
      clearTimeout(timer);
      timer = 0;
    }

    function go() {
      timer = setTimeout(go, 0);
      takeOne();
    }

    function restart() {
      pause();
      [written, ended] = [[], ""];
      status.textContent = "";
      catchUp();
      show();
    }

    box.addEventListener("input", () => set({ prompt: box.value }));
    seed.addEventListener("input", () => set({ seed: Math.max(0, Math.trunc(Number(seed.value))) }));
    one.addEventListener("click", takeOne);
    again.addEventListener("click", restart);
    write.addEventListener("click", () => {
      if (!timer) return go();
      pause();
      show();
    });
    const watched = Object.keys(SLIDERS).map((trait) => `change:${trait}`).join(" ");
    model.on(watched, show);
    model.on("change:prompt change:seed", restart);
    restart();
    return () => {
      pause();
      model.off(watched, show);
      model.off("change:prompt change:seed", restart);
    };
  },
};
