// Before and after: documents that filters changed or removed, the changes marked.
// Everything happens here, so that it works on a page without a kernel too.

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Characters that cannot be seen, or that turn a line round, as their numbers.
function visible(text) {
  return text.replace(CONTROLS, (letter) =>
    `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// The longest common subsequence of two rows of words: pairs [kind, words].
function difference(before, after) {
  const width = after.length + 1;
  const common = new Uint16Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i--)
    for (let j = after.length - 1; j >= 0; j--)
      common[i * width + j] = before[i] === after[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const parts = [];
  const add = (kind, word) => {
    if (parts.at(-1)?.[0] === kind) parts.at(-1)[1].push(word);
    else parts.push([kind, [word]]);
  };
  let [i, j] = [0, 0];
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      add("same", before[i++]);
      j++;
    } else if (j === after.length || (i < before.length
      && common[(i + 1) * width + j] >= common[i * width + j + 1])) add("gone", before[i++]);
    else add("new", after[j++]);
  }
  return parts;
}

const words = (text) => text.match(/\s+|[^\s]+/g) ?? [];
const count = (parts, kind) => parts.filter((part) => part[0] === kind)
  .flatMap((part) => part[1]).filter((word) => word.trim()).length;
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

function side(title, parts, hidden) {
  const text = make("div", { class: "text", tabindex: "0", role: "group", "aria-label": title });
  const tags = { same: "span", gone: "del", new: "ins" };
  for (const [kind, said] of parts)
    if (kind !== hidden) text.append(make(tags[kind], {}, visible(said.join(""))));
  return make("div", { class: "side" }, make("h4", {}, title), text);
}

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    let chosen = "";
    let at = 0;
    const select = make("select");
    const button = (label) => make("button", { type: "button" }, label);
    const [previous, next] = [button("Previous"), button("Next")];
    const status = make("p", { "data-role": "status", role: "status", "aria-live": "polite" });
    const body = make("div", { class: "sides" });
    const root = make("section", {
      class: "before-after", "aria-label": "Before and after cleaning",
    },
      make("div", { class: "controls" }, make("label", {}, "Rule ", select), previous, next),
      status, body);
    el.append(root);

    const all = () => model.get("examples");
    const shown = () => all().filter((example) => !chosen || example.rule === chosen);

    function fill() {
      const rules = new Map();
      for (const { rule } of all()) rules.set(rule, (rules.get(rule) ?? 0) + 1);
      const option = (value, label) => make("option", { value }, label);
      select.replaceChildren(option("", `all rules (${all().length})`),
        ...[...rules].map(([rule, many]) => option(rule, `${visible(rule)} (${many})`)));
      if (!rules.has(chosen)) chosen = "";
      select.value = chosen;
      at = Math.min(at, Math.max(shown().length - 1, 0));
      show();
    }

    function show() {
      const examples = shown();
      const example = examples[at];
      previous.disabled = at <= 0;
      next.disabled = at >= examples.length - 1;
      if (!example) {
        status.textContent = "No example: no filter changed or removed a document.";
        body.replaceChildren();
        return;
      }
      const { rule, origin, note, before, after } = example;
      let [did, parts, right] = ["removed", [["same", [before]]], null];
      if (after === null) {
        const reason = `Removed by the rule “${visible(rule)}”${note ? `: ${visible(note)}` : ""}.`;
        right = make("div", { class: "side" }, make("h4", {}, "After"),
          make("p", { class: "removed" }, reason));
      } else {
        parts = difference(words(before), words(after));
        did = `changed, ${plural(count(parts, "gone"), "word")} out, ` +
          `${plural(count(parts, "new"), "word")} in`;
        right = side("After", parts, "gone");
      }
      status.textContent = `${at + 1} of ${examples.length}: ${visible(rule)}, ${did}. ` +
        `From ${visible(origin)}.`;
      body.replaceChildren(side("Before", parts, "new"), right);
    }

    function go(step) {
      const target = at + step;
      if (target < 0 || target >= shown().length) return;
      at = target;
      show();
    }
    previous.addEventListener("click", () => go(-1));
    next.addEventListener("click", () => go(1));
    select.addEventListener("change", () => { chosen = select.value; at = 0; show(); });
    root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target === select || event.ctrlKey || event.altKey || event.metaKey)
        return;
      event.preventDefault();
      go(step);
    });
    model.on("change:examples", fill);
    fill();
    return () => model.off("change:examples", fill);
  },
};
