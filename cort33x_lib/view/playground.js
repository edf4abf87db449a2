// The tokenizer's playground: everything is computed here, from the merges and the
// pattern, so it is the same with a kernel and without.

const LONGEST = 4000; // characters of text that are shown as tokens
const WIDE = 2 ** 24; // more than there are ids

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// The bytes of every token, and the id that a pair of ids makes.
function readMerges(merges) {
  const bytes = Array.from({ length: 256 }, (_, value) => [value]);
  const made = new Map();
  for (const [left, right] of merges) {
    made.set(left * WIDE + right, bytes.length);
    bytes.push([...bytes[left], ...bytes[right]]);
  }
  return { bytes, made };
}

// The ids of one piece by the merges whose ids are below `end`: always the pair learnt
// first, leftmost first. `seen` collects the ids that were made on the way.
function mergePiece(piece, made, end, seen) {
  const ids = [...new TextEncoder().encode(piece)];
  for (;;) {
    let best = end;
    let at = -1;
    for (let i = 0; i + 1 < ids.length; i++) {
      const id = made.get(ids[i] * WIDE + ids[i + 1]);
      if (id < best) [best, at] = [id, i];
    }
    if (at < 0) return ids;
    ids.splice(at, 2, best);
    seen.add(best);
  }
}

const hex = (values) =>
  values.map((value) => value.toString(16).toUpperCase().padStart(2, "0")).join(" ");

// What cannot be seen, or would move what stands beside it, is spelled out.
function visible(letter) {
  if (letter === " ") return "\u00b7";
  if (letter === "\n") return "\u21b5";
  if (letter === "\t") return "\u21e5";
  if (/^[\p{Cc}\p{Cf}\p{Z}\p{Cn}\p{Co}]$/u.test(letter))
    return `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return /^\p{M}$/u.test(letter) ? `\u25cc${letter}` : letter;
}

// A token as text: its letters where its bytes are whole characters, else its bytes.
function shown(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(Uint8Array.from(bytes));
    return { text: [...text].map(visible).join(""), whole: true, ends: text.endsWith("\n") };
  } catch {
    return { text: hex(bytes), whole: false, ends: false };
  }
}

const several = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

let widgets = 0; // so that two on one page have labels of their own

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const { bytes, made } = readMerges(model.get("merges"));
    const pattern = new RegExp(model.get("expression"), "gu");
    const count = model.get("merges").length;
    const name = `tokenizer-playground-${widgets++}`;
    const box = make("textarea", {
      id: `${name}-text`, rows: 3, spellcheck: "false", maxlength: LONGEST, dir: "auto",
    });
    const slider = make("input", { id: `${name}-merges`, type: "range", min: 0, max: count });
    const caption = make("output", { for: `${name}-merges`, "aria-live": "polite" });
    const button = (label) => make("button", { type: "button" }, label);
    const [back, next] = [button("Previous join"), button("Next join")];
    const figures = make("p", { class: "counts", "aria-live": "polite" });
    const tokens = make("div", { class: "tokens", role: "listbox", "aria-label": "Tokens" });
    const detail = make("p", { class: "detail", "aria-live": "polite" });
    const root = make("section", {
      class: "tokenizer-playground", "aria-label": "Tokenizer playground",
    },
      make("label", { for: box.id }, "Text"), box, figures, tokens, detail,
      make("div", { class: "merges" },
        make("label", { for: slider.id }, "Merges in use"), slider, back, next),
      caption,
    );
    el.append(root);
    const hint = "Point at a token, or reach it with Tab and the arrow keys.";
    let joins = []; // the merges that join something in this text
    let at = 0; // the token that the arrow keys have reached

    function spelled(id) {
      const one = shown(bytes[id]);
      return one.whole ? `\u201c${one.text}\u201d` : `bytes ${one.text}`;
    }

    function describe(place) {
      const id = model.get("ids")[place];
      if (id === undefined) return void (detail.textContent = hint);
      const merge = model.get("merges")[id - 256];
      const origin = merge
        ? `made by merge ${id - 255} from ${spelled(merge[0])} and ${spelled(merge[1])}`
        : "there before any merge";
      detail.textContent = `Token ${place + 1}: ${spelled(id)}, id ${id}, ` +
        `${several(bytes[id].length, "byte")} (${hex(bytes[id])}), ${origin}.`;
    }

    function reach(place) {
      const all = tokens.querySelectorAll("[role=option]");
      if (!all.length) return;
      all[at]?.setAttribute("tabindex", "-1");
      all[at]?.setAttribute("aria-selected", "false");
      at = Math.max(0, Math.min(place, all.length - 1));
      all[at].setAttribute("tabindex", "0");
      all[at].setAttribute("aria-selected", "true");
      all[at].focus();
    }

    function drawTokens(pieces, newest) {
      tokens.replaceChildren();
      let place = 0;
      pieces.forEach((ids, number) => {
        for (const [order, id] of ids.entries()) {
          const { text, whole, ends } = shown(bytes[id]);
          const node = make("bdi", {
            role: "option", "aria-selected": "false", tabindex: place ? "-1" : "0",
            "data-place": place, "data-id": id,
            class: `tone-${place % 2}${order ? "" : " first"}${whole ? "" : " part"}` +
              (id === newest ? " joined" : ""),
          });
          node.textContent = text;
          tokens.append(node);
          if (ends) tokens.append(document.createElement("br"));
          place += 1;
        }
      });
      at = 0;
    }

    function draw() {
      const whole = model.get("text");
      const text = whole.slice(0, LONGEST).replace(/\p{Cs}/gu, "\ufffd");
      const used = model.get("used");
      const all = new Set();
      const pieces = (text.match(pattern) ?? []).map((piece) => {
        mergePiece(piece, made, 256 + count, all);
        return mergePiece(piece, made, 256 + used, new Set());
      });
      joins = [...all].sort((a, b) => a - b).map((id) => id - 255);
      const ids = pieces.flat();
      const size = new TextEncoder().encode(text).length;
      const newest = used ? 255 + used : -1;
      drawTokens(pieces, newest);
      figures.textContent = `${several(ids.length, "token")}, ${several(size, "byte")}` +
        (ids.length ? `, ${(size / ids.length).toFixed(2)} bytes per token` : "") +
        (whole.length > LONGEST ? `, of the first ${LONGEST} characters` : "");
      const times = ids.filter((id) => id === newest).length;
      const merge = used ? model.get("merges")[used - 1] : null;
      caption.textContent = `${used.toLocaleString("en")} of ${several(count, "merge")}. ` + (merge
        ? `Merge ${used} joins ${spelled(merge[0])} and ${spelled(merge[1])}: ` +
          (times ? `${several(times, "time")} in this text, underlined.` : "not in this text.")
        : "Every byte is a token.");
      if (box.value !== whole) box.value = whole;
      slider.value = used;
      slider.setAttribute("aria-valuetext", caption.textContent);
      back.disabled = used === 0;
      next.disabled = !joins.some((k) => k > used);
      model.set("ids", ids);
      model.save_changes();
      describe();
    }

    function choose(used) {
      model.set("used", used);
      model.save_changes();
    }

    box.addEventListener("input", () => {
      model.set("text", box.value);
      model.save_changes();
    });
    slider.addEventListener("input", () => choose(Number(slider.value)));
    next.addEventListener("click", () => choose(joins.find((k) => k > model.get("used"))));
    back.addEventListener("click", () =>
      choose(joins.findLast((k) => k < model.get("used")) ?? 0));
    tokens.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const ends = { Home: -Infinity, End: Infinity };
      const step = steps[event.key] ?? ends[event.key];
      if (step === undefined) return;
      event.preventDefault();
      reach(at + step);
    });
    const placeOf = (event) => event.target.closest("[data-place]")?.dataset.place;
    for (const kind of ["focusin", "mouseover", "click"])
      tokens.addEventListener(kind, (event) => {
        const place = placeOf(event);
        if (place === undefined) return;
        if (kind === "click") reach(Number(place));
        describe(Number(place));
      });
    const watched = "change:text change:used";
    model.on(watched, draw);
    draw();
    return () => model.off(watched, draw);
  },
};
