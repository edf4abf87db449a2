// The dashboard's curves: unpacked, smoothed, looked up. See view/curves.py for what is
// packed, and dashboard.js for who uses it; the three files are one module.

const COLOURS = 8; // --line-0 to --line-7 of the style sheet
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
const SPANS = [1, 2, 5, 10, 20, 50, 100, 200]; // points that smoothing takes the mean of

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

// Characters that show nothing, or turn the others around, as their numbers.
function visible(text) {
  return String(text).replace(HIDDEN, (letter) =>
    `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// Four digits, or as few as there are; millions and more with a letter.
function format(value, least = 4) {
  if (value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const digits = (v) => least ? v.toPrecision(least) : String(Number(v.toPrecision(4)));
  if (size < 1e-3) return least ? value.toExponential(2) : value.toExponential();
  const [unit, letter] = [[1e12, " T"], [1e9, " G"], [1e6, " M"]].find(([n]) => size >= n) ?? [1, ""];
  if (letter) return digits(value / unit) + letter;
  return size >= 1000 ? Math.round(value).toLocaleString("en") : digits(value);
}

const wholeStep = (step) => Math.round(step).toLocaleString("en");

// The curves of a panel by names that tell them apart: their last parts if these do.
function shortNames(curves) {
  const last = curves.map((curve) => curve.slice(curve.lastIndexOf("/") + 1));
  const names = new Set(last).size === curves.length ? last : curves;
  return new Map(curves.map((curve, k) => [curve, visible(names[k].replaceAll("_", " "))]));
}

// What pack() of curves.py made: one object a curve, its columns views of one buffer.
function unpack(packed) {
  if (!packed?.lines?.length) return [];
  const { buffer, byteOffset, byteLength } = packed.values;
  const values = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  let start = 0;
  return packed.lines.map(([run, curve, rows, groups]) => {
    const row = (number) => {
      const from = start + Math.min(number, rows === 2 ? 1 : 3) * groups;
      return values.subarray(from, from + groups);
    };
    const line = { run, curve, steps: row(0), mean: row(1), low: row(2), high: row(3) };
    if (rows === 2) line.low = line.high = line.mean;
    start += rows * groups;
    return line;
  });
}

// Exponential mean over about `span` points, corrected for its start; over no more than
// a tenth of them.
function smooth(values, wanted) {
  const span = Math.max(1, Math.min(wanted, Math.floor(values.length / 10)));
  if (span === 1) return values;
  const keep = 1 - 2 / (span + 1);
  const smoothed = new Float32Array(values.length);
  let [mean, weight] = [0, 0];
  for (let k = 0; k < values.length; k++) {
    mean = keep * mean + (1 - keep) * values[k];
    weight = keep * weight + 1 - keep;
    smoothed[k] = mean / weight;
  }
  return smoothed;
}

// How many points lie at or before a step.
function countTo(steps, step) {
  let [low, high] = [0, steps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= step) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The value at a step: of the group it lies in, or the last one before it. A group is
// called by its last step; nothing is known before the first or after the run's end.
function valueAt({ steps, smoothed }, step, sparse) {
  if (!steps.length || (!sparse && step > steps.at(-1))) return undefined;
  const before = countTo(steps, step);
  if (sparse || steps[before - 1] === step) return smoothed[before - 1];
  return smoothed[before];
}

// Every curve of a panel, with what depends on smoothing; what grows goes first.
function linesOf(model, panel, span) {
  const growing = unpack(model.get("growing")[panel]);
  const grown = new Set(growing.map(({ run }) => run));
  const lines = [
    ...growing,
    ...unpack(model.get("data")[panel]).filter(({ run }) => !grown.has(run)),
  ];
  const longest = {};
  for (const { run, steps } of lines)
    longest[run] = Math.max(longest[run] ?? 0, steps.length);
  for (const line of lines) {
    line.sparse = line.steps.length * 3 < longest[line.run];
    line.smoothed = line.sparse ? line.mean : smooth(line.mean, span);
  }
  return lines;
}

// How a line is drawn. One run: a colour for each curve. Several: a colour for each
// run, and a dash for each curve; with one curve only, dashes tell runs apart as well.
function styleOf(run, curve, alone, curves) {
  const round = (number) => DASHES[Math.floor(number / COLOURS) % DASHES.length];
  if (alone) return { colour: curve % COLOURS, dash: round(curve) };
  const dash = curves > 1 ? DASHES[curve % DASHES.length] : round(run);
  return { colour: run % COLOURS, dash };
}
