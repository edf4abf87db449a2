// Shows the widgets of a page that has no kernel. Only anywidgets can live here:
// their front end travels with the page, and a small model stands in for the kernel.
// A classic script, because a page opened from the disk may not load modules.
(() => {
const TYPE = "application/vnd.jupyter.widget-";
const SORRY = "This control needs a running kernel: open the chapter in JupyterLab.";
const found = (kind) =>
  [...document.querySelectorAll(`script[type="${TYPE}${kind}+json"]`)].map((script) => ({
    script,
    ...JSON.parse(script.textContent),
  }));

function standIn({ state, buffers = [] }) {
  for (const { path, data } of buffers) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    // What was sent once and is no longer part of the state still has its bytes here.
    const parent = path.slice(0, -1).reduce((inside, key) => inside?.[key], state);
    if (parent) parent[path.at(-1)] = new DataView(bytes.buffer);
  }
  const listeners = new Map();
  const of = (name) => listeners.get(name) ?? listeners.set(name, new Set()).get(name);
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const tell of [...of(`change:${name}`), ...of("change")]) tell();
    },
    on: (names, tell) => names.split(" ").forEach((name) => of(name).add(tell)),
    off(names, tell) {
      for (const name of names?.split(" ") ?? listeners.keys())
        tell ? of(name).delete(tell) : of(name).clear();
    },
    save_changes() {},
    send() {},
    isStatic: true,
  };
}

async function show(place, record, model) {
  const source = new Blob([record.state._esm], { type: "text/javascript" });
  const { default: made } = await import(URL.createObjectURL(source));
  const widget = typeof made === "function" ? await made() : made;
  if (record.state._css) {
    const style = document.createElement("style");
    style.textContent = record.state._css;
    document.head.append(style);
  }
  await widget.initialize?.({ model });
  await widget.render({ model, el: place });
}

async function showAll() {
  const records = Object.assign({}, ...found("state").map(({ state }) => state));
  const models = {};
  for (const { script, model_id } of found("view")) {
    const record = records[model_id];
    const place = document.createElement("div");
    place.className = "static-widget";
    script.after(place);
    if (record?.model_module === "anywidget") {
      await show(place, record, (models[model_id] ??= standIn(record)));
    } else {
      place.textContent = SORRY;
      place.classList.add("needs-kernel");
    }
  }
}

document.addEventListener("DOMContentLoaded", showAll);
})();
