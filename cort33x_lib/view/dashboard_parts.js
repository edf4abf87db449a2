// The dashboard's parts: what a page is made of, and the replay of recorded runs.

const SVG = "http://www.w3.org/2000/svg";
const REPLAY_SECONDS = 15;
const WORDS = {
  idle: "Press Run to train.",
  running: "Training.",
  paused: "Paused. Press Resume to go on.",
  stopped: "Stopped. Press Run to go on.",
  finished: "Finished.",
  failed: "Failed.",
};
const REPLAY_WORDS = {
  running: "Replaying what is recorded.",
  paused: "Replay paused.",
  stopped: "Replay stopped. Press Run to replay what is recorded.",
  finished: "Recorded. Press Run to replay it.",
};

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const button = (label) => make("button", { type: "button" }, label);
const group = (label, kind) => make("div", { role: "group", "aria-label": label, class: kind });
const press = (node, on) => node.setAttribute("aria-pressed", String(on));

function slider(label, attributes) {
  const value = make("b");
  const input = make("input", { type: "range", ...attributes });
  return { input, value, label: make("label", {}, make("span", {}, `${label} `, value), input) };
}

// The buttons above a legend that show or hide all that it lists.
function everyButton(kind, label, act) {
  const node = make("button", { type: "button", "aria-label": `${label} ${kind}` }, label);
  node.addEventListener("click", act);
  return node;
}

// A button of a legend: a piece of its line, its name, its value at the step.
function legendItem(name, shown) {
  const swatch = document.createElementNS(SVG, "svg");
  swatch.setAttribute("viewBox", "0 0 26 10");
  swatch.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "line");
  for (const [key, value] of Object.entries({ x1: 1, x2: 25, y1: 5, y2: 5 }))
    line.setAttribute(key, value);
  swatch.append(line);
  const item = { name, line, value: make("b"), node: button("") };
  item.node.append(swatch, make("bdi", {}, shown), item.value);
  item.paint = ({ colour, dash }, plain) => {
    line.style.stroke = plain ? "var(--ink)" : `var(--line-${colour})`;
    line.style.strokeDasharray = dash.join(" ");
  };
  return item;
}

// Time runs from 0 to total() in REPLAY_SECONDS; `at` is Infinity when it does not run.
function makeReplay(total, redraw) {
  const replay = { state: "finished", at: Infinity, timer: 0 };
  const end = (how) => {
    clearInterval(replay.timer);
    replay.state = how;
    if (how === "finished") replay.at = Infinity;
  };
  const go = () => {
    replay.state = "running";
    replay.timer = setInterval(() => {
      replay.at += total() / (REPLAY_SECONDS * 10);
      if (replay.at >= total()) end("finished");
      redraw();
    }, 100);
  };
  replay.orders = {
    run() { replay.at = 0; go(); },
    pause: () => end("paused"),
    resume: go,
    stop: () => end("stopped"),
  };
  return replay;
}
