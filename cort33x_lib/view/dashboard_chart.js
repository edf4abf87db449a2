// The dashboard's chart: axes, lines and levels on a canvas. A hundred lines take a
// canvas a tenth of the time that SVG takes, when they are one pixel wide.

const FEW = 12; // lines that are drawn thick, and with what was measured behind them
const HEIGHT = 280;

function linearTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / size - 1e-9); k * size <= high + size * 1e-9; k++)
    found.push(k * size);
  return found.map((v) => Number(v.toPrecision(12)));
}

function logTicks(low, high, wanted) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const leading = last - first <= 2 ? [1, 2, 5] : [1];
  const each = Math.max(1, Math.ceil((last - first) / wanted));
  const found = [];
  for (let power = first; power <= last; power += each)
    for (const n of leading) found.push(n * 10 ** power);
  const seen = found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  return seen.length > 2 ? seen : linearTicks(low, high, wanted);
}

// A scale from [low, high] to [from, to]; its inverse leads back.
function scale(low, high, from, to, log) {
  const turn = log ? Math.log10 : (v) => v;
  const [start, size] = [turn(low), turn(high) - turn(low) || 1];
  const at = (v) => from + ((turn(v) - start) / size) * (to - from);
  at.inverse = (p) => {
    const v = start + ((p - from) / (to - from)) * size;
    return log ? 10 ** v : v;
  };
  at.ticks = (wanted) => (log ? logTicks : linearTicks)(low, high, wanted);
  return at;
}

// The ends of the value axis: all points, and the levels.
function valueRange(lines, levels, few, upTo, log) {
  let [low, high] = [Infinity, -Infinity];
  const see = (v) => {
    if (log && !(v > 0)) return;
    if (v < low) low = v;
    if (v > high) high = v;
  };
  for (const line of lines) {
    const until = countTo(line.steps, upTo);
    const columns = few ? [line.low, line.high] : [line.smoothed];
    for (const values of columns) for (let k = 0; k < until; k++) see(values[k]);
  }
  for (const { value } of levels) see(value);
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (log) return low === high ? [low / 2, high * 2] : [low * 0.95, high * 1.05];
  if (low > 0 && low < 0.6 * high) low = 0;
  const margin = (high - low || Math.abs(high) || 1) * 0.04;
  return [low && low - margin, high + margin];
}

// view: lines (see linesOf, with colour and dash), levels, axes, the step it ends at.
// Gives the scales, from which a pointer's place is read.
function drawChart(canvas, view) {
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const width = canvas.clientWidth || 600;
  const dense = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(HEIGHT * dense);
  }
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, HEIGHT);
  pen.font = "12px system-ui, sans-serif";
  const few = view.lines.length <= FEW;
  const [low, high] = valueRange(view.lines, view.levels, few, view.upTo, view.logValue);
  const [top, bottom] = [28, HEIGHT - 36];
  let y = scale(low, high, bottom, top, view.logValue);
  const marks = y.ticks(5);
  const texts = marks.map((v) => format(v, 0));
  const left = 12 + Math.max(20, ...texts.map((text) => pen.measureText(text).width));
  const right = width - 26;
  const first = view.logStep ? Math.max(view.first, 1) : 0;
  const x = scale(first, Math.max(view.last, first + 1), left, right, view.logStep);

  const across = (height, thick = 1) => { // on whole pixels, so that it is sharp
    pen.lineWidth = thick;
    pen.beginPath();
    pen.moveTo(left, Math.round(height) + thick / 2);
    pen.lineTo(right, Math.round(height) + thick / 2);
    pen.stroke();
  };
  pen.textAlign = "left";
  pen.fillStyle = colour("faint");
  pen.fillText(view.unit ? `${view.title} (${view.unit})` : view.title, 4, 14);
  pen.strokeStyle = colour("rule");
  pen.textAlign = "right";
  marks.forEach((v, k) => {
    pen.fillText(texts[k], left - 6, y(v) + 4);
    across(y(v));
  });
  pen.fillText("step", right, HEIGHT - 4);
  pen.textAlign = "center";
  for (const v of x.ticks(width < 500 ? 4 : 7))
    pen.fillText(format(v, 0), x(v), bottom + 17);

  pen.save();
  pen.beginPath();
  pen.rect(left, top - 6, right - left, bottom - top + 8);
  pen.clip();
  pen.lineJoin = few ? "round" : "miter";
  const trace = (line, values) => {
    const until = countTo(line.steps, view.upTo);
    pen.beginPath();
    for (let k = 0; k < until; k++) {
      const height = y(values[k]);
      if (Number.isFinite(height)) pen.lineTo(x(line.steps[k]), height);
    }
    return until;
  };
  if (few)
    for (const line of view.lines) {
      if (line.sparse) continue;
      pen.globalAlpha = 0.18;
      pen.fillStyle = pen.strokeStyle = colour(`line-${line.colour}`);
      pen.setLineDash([]);
      pen.lineWidth = 1;
      if (line.low !== line.mean) {
        for (let k = trace(line, line.high) - 1; k >= 0; k--) {
          const height = y(line.low[k]);
          if (Number.isFinite(height)) pen.lineTo(x(line.steps[k]), height);
        }
        pen.fill();
      } else if (line.smoothed !== line.mean) {
        pen.globalAlpha = 0.35;
        trace(line, line.mean);
        pen.stroke();
      }
    }
  pen.globalAlpha = 1;
  const inOrder = [...view.lines].sort((a, b) => a.strong - b.strong);
  for (const line of inOrder) {
    if (line.sparse && !few && !line.strong) continue;
    pen.strokeStyle = pen.fillStyle = colour(`line-${line.colour}`);
    pen.lineWidth = line.strong ? 3 : few ? 2 : 1 / dense; // one pixel is drawn fastest
    pen.setLineDash(line.dash);
    const until = trace(line, line.smoothed);
    pen.stroke();
    if (!line.sparse) continue;
    for (let k = 0; k < until; k++) {
      pen.beginPath();
      pen.arc(x(line.steps[k]), y(line.mean[k]), 3.5, 0, 2 * Math.PI);
      pen.fill();
    }
  }
  pen.restore();
  pen.textAlign = "right";
  for (const { value, label, ink } of view.levels) {
    if (view.logValue && !(value > 0)) continue;
    pen.strokeStyle = pen.fillStyle = colour(ink);
    pen.setLineDash([6, 4]);
    across(y(value), 2);
    pen.fillText(label, right - 2, y(value) + (y(value) > bottom - 20 ? -5 : 14));
  }
  pen.setLineDash([]);
  return { x, y, left, right };
}
