// The dashboard: draws what the traits say, sends what the buttons order. Where no run
// is in training, and on the site, the same buttons replay what is recorded.

const MANY = 12; // runs from which on there is a field to find one

export default {
  render({ model, el }) {
    // JupyterLab takes the keys of a focused element that does not say this itself.
    el.addEventListener("focusin", ({ target }) => {
      target.dataset.lmSuppressShortcuts = "true";
    });
    const replaying = model.isStatic === true || model.get("state") === "recorded";
    const total = () => Number(steps.input.max);
    const replay = makeReplay(total, () => redraw());
    const hidden = { runs: new Set(), curves: new Set() };
    let [span, logValue, logStep] = [model.isStatic ? 3 : 2, false, false];
    let [cursor, hover, strong] = [null, null, null]; // no cursor: the end is read
    let [scales, lines, styled] = [null, [], []];
    const kept = new Map(); // panel: its lines, until something changes

    const [run, pause, stop] = ["Run", "Pause", "Stop"].map(button);
    const status = make("span", { "data-role": "status", role: "status" });
    const progress = make("progress", { value: 0, max: 1, "aria-label": "Steps done" });
    const readings = make("dl");
    const tabs = group("Panel", "panels");
    const smoothing = slider("Smoothing", { min: 0, max: SPANS.length - 1, value: span });
    const [byValue, byStep] = ["Log values", "Log steps"].map(button);
    const canvas = make("canvas", { role: "img" });
    const mark = make("div", { class: "cursor" });
    const steps = slider("Step", { min: 0, max: 0, value: 0 });
    const summary = make("p", { class: "summary", "data-role": "summary" });
    const find = make("input", { type: "search", "aria-label": "Find a run", placeholder: "find a run" });
    const heads = { runs: make("span"), curves: make("span") };
    const lists = { runs: group("Runs", "items"), curves: group("Curves", "items") };
    const items = { runs: [], curves: [] };
    const every = (kind) => [["All", "delete"], ["None", "add"]].map(([label, act]) =>
      everyButton(kind, label, () => {
        for (const { name, node } of items[kind]) if (!node.hidden) hidden[kind][act](name);
        redraw();
      }));
    const choose = make("div", { class: "head" }, heads.runs, find, ...every("runs"));
    const curveLegend = make("div", { class: "legend" },
      make("div", { class: "head" }, heads.curves, ...every("curves")), lists.curves);
    const caption = make("div");
    const sample = make("p", { tabindex: "0" });
    const samples = make("div", { class: "sample" }, caption, sample);
    el.append(make("section", { class: "training-dashboard", "aria-label": "Training dashboard" },
      make("div", { class: "controls" }, run, pause, stop, status), progress, readings, tabs,
      make("div", { class: "controls" }, smoothing.label, byValue, byStep),
      make("div", { class: "plot" }, canvas, mark), steps.label,
      make("div", { class: "legend" }, choose, lists.runs), curveLegend, summary, samples));

    const linesFor = (panel) => {
      if (!kept.has(panel)) kept.set(panel, linesOf(model, panel, SPANS[span]));
      return kept.get(panel);
    };
    const meta = () => model.get("panels").find(({ name }) => name === model.get("panel"))
      ?? { name: "", title: "Nothing measured yet", unit: "", curves: [] };
    const valueOf = (line) => { // at the step that is pointed at, or at the end
      const at = hover ?? cursor;
      const last = countTo(line.steps, replay.at) - 1;
      return at === null ? line.smoothed[last] : valueAt(line, at, line.sparse);
    };

    function legend(kind, names, short = new Map()) {
      if (items[kind].map(({ name }) => name).join("\n") === names.join("\n")) return;
      items[kind] = names.map((name) => {
        const item = legendItem(name, short.get(name) ?? visible(name));
        item.node.addEventListener("click", () => {
          if (!hidden[kind].delete(name)) hidden[kind].add(name);
          redraw();
        });
        const point = (on) => () => {
          if (kind !== "runs") return;
          strong = on ? name : null;
          redraw();
        };
        for (const [event, on] of [["pointerenter", true], ["focus", true],
          ["pointerleave", false], ["blur", false]]) item.node.addEventListener(event, point(on));
        return item;
      });
      lists[kind].replaceChildren(...items[kind].map(({ node }) => node));
    }

    // What is on show, each line with its style.
    function arrange() {
      const { name, curves } = meta();
      lines = linesFor(name);
      const runs = model.get("runs");
      legend("runs", runs);
      legend("curves", curves, shortNames(curves));
      const shown = lines.filter((line) =>
        !hidden.runs.has(line.run) && !hidden.curves.has(line.curve));
      const alone = runs.filter((one) => !hidden.runs.has(one)).length === 1;
      const sparse = new Set(lines.filter((line) => line.sparse).map(({ curve }) => curve));
      const main = curves.filter((curve) => !sparse.has(curve));
      const place = (curve) => alone ? curves.indexOf(curve) : Math.max(0, main.indexOf(curve));
      const style = (one, curve) => {
        const found = styleOf(runs.indexOf(one), place(curve), alone, main.length);
        return sparse.has(curve) ? { ...found, dash: [3, 3] } : found;
      };
      styled = shown.map((line) => ({
        ...line, ...style(line.run, line.curve), strong: line.run === strong && !alone,
      }));
      for (const item of items.runs) item.paint(style(item.name, alone ? curves[0] : main[0]));
      for (const item of items.curves) item.paint(style(runs[0], item.name), !alone);
      curveLegend.hidden = curves.length < 2;
      choose.classList.toggle("many", runs.length > MANY);
      for (const kind of ["runs", "curves"])
        for (const item of items[kind]) press(item.node, !hidden[kind].has(item.name));
    }

    function levels() {
      if (meta().name !== "loss") return [];
      return [["baseline", "unigram baseline"], ["floor", "floor"]]
        .map(([ink, label]) => ({ ink, label, value: model.get(ink) }))
        .filter(({ value }) => value !== null && value !== undefined);
    }

    // Values beside names, the summary, the sample: all that follows the pointer.
    function readOut() {
      const { title, unit, curves } = meta();
      const at = hover ?? cursor;
      const ends = styled.map((line) => line.steps[countTo(line.steps, replay.at) - 1] ?? 0);
      const step = at ?? Math.max(0, ...ends);
      const where = at === null ? "at the end" : `at step ${wholeStep(at)}`;
      const curve = curves.find((name) => !hidden.curves.has(name));
      const read = shortNames(curves).get(curve) ?? "no curve";
      const one = strong ?? model.get("runs").find((name) => !hidden.runs.has(name));
      const values = (list, key, other, wanted) => {
        const found = new Map(styled.filter((line) => line[other] === wanted)
          .map((line) => [line[key], valueOf(line)]));
        for (const item of list) {
          const text = found.has(item.name) ? format(found.get(item.name)) : "";
          if (item.value.textContent !== text) item.value.textContent = text;
        }
        return [...found].filter(([, value]) => Number.isFinite(value));
      };
      const found = values(items.runs, "run", "curve", curve);
      values(items.curves, "curve", "run", one);
      heads.runs.textContent = `Runs: ${read} ${where}`;
      heads.curves.replaceChildren("Curves: ", make("bdi", {}, visible(one ?? "no run")), ` ${where}`);
      found.sort((a, b) => a[1] - b[1]);
      const say = ([name, value]) => `${format(value)} (${visible(name)})`;
      const runs = model.get("runs").length;
      summary.textContent = !found.length ? "No curve is shown here."
        : `${found.length} of ${runs} run${runs > 1 ? "s" : ""} shown. ${visible(title)}`
          + `${unit ? `, ${unit}` : ""}, ${read}, ${where}: `
          + (found.length > 1 ? `from ${say(found[0])} to ${say(found.at(-1))}.` : `${say(found[0])}.`)
          + levels().map(({ label, value }) => ` The ${label} is ${format(value)}.`).join("");
      canvas.setAttribute("aria-label", summary.textContent);
      steps.value.textContent = at === null ? "the end" : wholeStep(at);
      steps.input.setAttribute("aria-valuetext",
        `${where}: ${found.slice(0, 5).map(say).join(", ") || "nothing"}`);
      mark.hidden = at === null || !scales;
      if (!mark.hidden) mark.style.left = `${scales.x(at)}px`;
      showSample(Math.min(step, replay.at));
    }

    function showSample(step) {
      const written = model.get("samples");
      const one = model.get("runs").find((name) => !hidden.runs.has(name) && written[name]);
      const seen = (written[one] ?? []).filter(([at]) => at <= step);
      samples.hidden = !Object.keys(written).length;
      caption.replaceChildren(...(seen.length
        ? [`Written after step ${wholeStep(seen.at(-1)[0])} by `, make("bdi", {}, visible(one))] : ["No sample yet"]));
      sample.textContent = seen.length ? visible(seen.at(-1)[1]) : "";
    }

    function showReadings(step, last) {
      const latest = model.get("latest");
      const own = model.get("runs")[0];
      const value = (panel, name) => replay.at === Infinity ? latest[name]
        : valueAt(linesFor(panel).find((line) => line.run === own && line.curve === name)
          ?? { steps: [] }, step, name === "held_out");
      const [floor, baseline] = [model.get("floor"), model.get("baseline")];
      const held = value("loss", "held_out");
      const rows = [["step", `${wholeStep(step)} of ${wholeStep(last)}`],
        ["training loss, nats/token", format(value("loss", "loss"))],
        ["held-out loss, nats/token", held === undefined ? "not yet" : format(held)],
        ["learning rate", format(value("learning_rate", "learning_rate"))],
        ["tokens per second", format(Math.round(value("speed", "tokens_per_second") ?? NaN))]];
      if (floor !== null && baseline !== null)
        rows.splice(3, 0, ["way to the floor", held === undefined ? "not yet"
          : `${((100 * (baseline - held)) / (baseline - floor)).toFixed(1)} %`]);
      readings.hidden = latest.step === undefined;
      readings.replaceChildren(...rows.map(([name, text]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, text))));
    }

    function show() {
      arrange();
      const now = replaying ? replay.state : model.get("state");
      const text = `${(replaying ? REPLAY_WORDS : WORDS)[now]} ${visible(model.get("message"))}`;
      if (status.textContent !== text) status.textContent = text;
      const reached = Math.max(0, ...lines.map(({ steps: all }) => all.at(-1) ?? 0));
      const last = Math.max(model.get("total"), reached, 1);
      const step = Math.round(Math.min(replay.at, model.get("latest").step ?? reached));
      Object.assign(status.dataset, { state: now, step });
      run.disabled = now === "running" || (now === "finished" && !replaying);
      run.hidden = now === "paused";
      pause.textContent = now === "paused" ? "Resume" : "Pause";
      pause.disabled = now !== "running" && now !== "paused";
      stop.disabled = pause.disabled;
      Object.assign(progress, { max: last, value: step });
      showReadings(step, last);
      const names = model.get("panels").map(({ name }) => name);
      if ([...tabs.children].map((tab) => tab.dataset.name).join("\n") !== names.join("\n"))
        tabs.replaceChildren(...model.get("panels").map(({ name, title }) => {
          const tab = button(visible(title));
          tab.dataset.name = name;
          tab.addEventListener("click", () => {
            model.set("panel", name);
            model.send({ panel: name });
          });
          return tab;
        }));
      for (const tab of tabs.children) {
        press(tab, tab.dataset.name === model.get("panel"));
        tab.disabled = model.isStatic === true && !model.get("data")[tab.dataset.name];
      }
      smoothing.value.textContent = SPANS[span] === 1 ? "none" : `over ${SPANS[span]} points`;
      smoothing.input.setAttribute("aria-valuetext", smoothing.value.textContent);
      press(byValue, logValue);
      press(byStep, logStep);
      const { title, unit } = meta();
      const first = Math.min(...lines.map(({ steps: all }) => all[0] ?? 1), last);
      scales = drawChart(canvas, {
        title: visible(title), unit, lines: styled, levels: levels(), logValue, logStep,
        first, last, upTo: replay.at,
      });
      Object.assign(steps.input, { min: first, max: last, step: Math.max(1, Math.round(last / 400)) });
      if (cursor === null) steps.input.value = last;
      readOut();
    }

    let asked = 0;
    const redraw = () => { asked ||= requestAnimationFrame(() => { asked = 0; show(); }); };
    const forget = () => { kept.clear(); redraw(); };
    function order(name) {
      if (name === "run") cursor = null;
      if (replaying) replay.orders[name]();
      else model.send({ order: name });
      redraw();
    }
    run.addEventListener("click", () => order("run"));
    stop.addEventListener("click", () => order("stop"));
    pause.addEventListener("click", () =>
      order(pause.textContent === "Resume" ? "resume" : "pause"));
    smoothing.input.addEventListener("input", () => { span = Number(smoothing.input.value); forget(); });
    byValue.addEventListener("click", () => { logValue = !logValue; redraw(); });
    byStep.addEventListener("click", () => { logStep = !logStep; redraw(); });
    steps.input.addEventListener("input", () => {
      cursor = steps.input.value === steps.input.max ? null : Number(steps.input.value);
      readOut();
    });
    const pointed = ({ offsetX }) => Math.round(Math.min(total(),
      Math.max(Number(steps.input.min), scales.x.inverse(offsetX))));
    canvas.addEventListener("pointermove", (event) => { hover = pointed(event); readOut(); });
    canvas.addEventListener("pointerleave", () => { hover = null; readOut(); });
    canvas.addEventListener("click", (event) => {
      cursor = steps.input.value = pointed(event);
      readOut();
    });
    find.addEventListener("input", () => {
      for (const { name, node } of items.runs)
        node.hidden = !name.toLowerCase().includes(find.value.toLowerCase());
    });
    const curves = ["panel", "panels", "data", "growing", "runs"];
    const others = ["state", "message", "latest", "samples"];
    for (const name of curves) model.on(`change:${name}`, forget);
    for (const name of others) model.on(`change:${name}`, redraw);
    const sized = new ResizeObserver(redraw);
    sized.observe(canvas);
    const themed = new MutationObserver(redraw);
    for (const node of [document.documentElement, document.body])
      themed.observe(node, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
    show();
    return () => {
      clearInterval(replay.timer);
      sized.disconnect();
      themed.disconnect();
      for (const name of curves) model.off(`change:${name}`, forget);
      for (const name of others) model.off(`change:${name}`, redraw);
    };
  },
};
