// A trained model in plain JavaScript: the tokenizer, one token's way through layers F
// and W with a cache, and the choice of the next token. The numbers are those of
// model.safetensors, matrices in int8 with a scale a row; sums are made in doubles.

const WIDE = 2 ** 24; // more than there are ids
const EPSILON = 2 ** -23; // what PyTorch adds to a mean square in single precision

// The tensors of a safetensors file by name, copied so that every offset will do.
function readTensors(view) {
  const size = Number(view.getBigUint64(0, true));
  const at = view.byteOffset;
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, at + 8, size));
  const kinds = { F32: Float32Array, I8: Int8Array };
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: ends }] of Object.entries(JSON.parse(text))) {
    if (name === "__metadata__") continue;
    const [start, end] = ends.map((offset) => at + 8 + size + offset);
    tensors[name] = { shape, data: new kinds[dtype](view.buffer.slice(start, end)) };
  }
  return tensors;
}

// (K,) -> (N,): the product with an int8 matrix, whose rows have scales.
function multiply({ rows, columns, numbers, scales }, x) {
  const product = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let total = 0;
    const start = row * columns;
    for (let k = 0; k < columns; k++) total += numbers[start + k] * x[k];
    product[row] = total * scales[row];
  }
  return product;
}

// Part of x, from start, scaled to root mean square one and by the gain, in place.
function normalise(x, gain, start = 0) {
  let squares = 0;
  for (let i = 0; i < gain.length; i++) squares += x[start + i] ** 2;
  const scale = 1 / Math.sqrt(squares / gain.length + EPSILON);
  for (let i = 0; i < gain.length; i++) x[start + i] *= scale * gain[i];
  return x;
}

function softmax(scores) {
  const highest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const shares = Float64Array.from(scores, (score) => Math.exp(score - highest));
  const total = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / total);
}

// A model and what it has read. `read` gives the logits after one more token; `forget`
// goes back to the first tokens.
class Reader {
  constructor(view, config) {
    const tensors = readTensors(view);
    const vector = (name) => tensors[name].data;
    const matrix = (name) => ({
      rows: tensors[name].shape[0], columns: tensors[name].shape[1],
      numbers: vector(name), scales: vector(`${name}.scales`),
    });
    this.config = config;
    this.embedding = matrix("embedding.weight");
    this.residual = vector("residual");
    this.gain = vector("norm.gain");
    const room = config.context * config.key_value_heads * config.head_channels;
    this.layers = [...config.pattern].map((letter, place) => {
      const name = (part) => `blocks.${place}.${part}`;
      return {
        window: letter === "W" ? config.window : Infinity,
        mixerGain: vector(name("mixer_norm.gain")),
        projectIn: matrix(name("mixer.project_in.weight")),
        projectOut: matrix(name("mixer.project_out.weight")),
        queryGain: vector(name("mixer.query_gain")),
        keyGain: vector(name("mixer.key_gain")),
        feedForwardGain: vector(name("feed_forward_norm.gain")),
        widen: matrix(name("feed_forward.widen.weight")),
        narrow: matrix(name("feed_forward.narrow.weight")),
        keys: new Float32Array(room), values: new Float32Array(room),
      };
    });
    this.ids = [];
  }

  forget(count) {
    this.ids.length = Math.min(count, this.ids.length);
  }

  rotate(x, start) {
    const half = this.config.head_channels / 2;
    for (let i = 0; i < half; i++) {
      const angle = this.ids.length * 10000 ** (-i / half);
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      const [left, right] = [x[start + i], x[start + half + i]];
      x[start + i] = left * cosine - right * sine;
      x[start + half + i] = left * sine + right * cosine;
    }
  }

  // (C,) -> (C,): what a token reads in one layer; its key and value are kept.
  mix(layer, x) {
    const { heads: H, key_value_heads: G, head_channels: D } = this.config;
    const all = multiply(layer.projectIn, normalise(x, layer.mixerGain));
    for (let head = 0; head < H + G; head++) {
      normalise(all, head < H ? layer.queryGain : layer.keyGain, head * D);
      this.rotate(all, head * D);
    }
    const place = this.ids.length;
    layer.keys.set(all.subarray(H * D, (H + G) * D), place * G * D);
    layer.values.set(all.subarray((H + G) * D), place * G * D);
    const first = Math.max(0, place - layer.window + 1);
    const found = new Float64Array(H * D);
    for (let head = 0; head < H; head++) {
      const shared = Math.floor((head * G) / H) * D;
      const scores = new Float64Array(place - first + 1).map((_, n) => {
        let score = 0;
        const key = (first + n) * G * D + shared;
        for (let i = 0; i < D; i++) score += all[head * D + i] * layer.keys[key + i];
        return score / Math.sqrt(D);
      });
      softmax(scores).forEach((share, n) => {
        const value = (first + n) * G * D + shared;
        for (let i = 0; i < D; i++) found[head * D + i] += share * layer.values[value + i];
      });
    }
    return multiply(layer.projectOut, found);
  }

  // The logits for the token after this one. Throws RangeError beyond the context.
  read(id) {
    const { rows, columns: C, numbers, scales } = this.embedding;
    if (!(id >= 0 && id < rows)) throw new RangeError(`id ${id}: expected below ${rows}`);
    if (this.ids.length >= this.config.context) throw new RangeError("the context is full");
    const first = Float64Array.from(numbers.subarray(id * C, (id + 1) * C), (n) => n * scales[id]);
    let x = first.slice();
    this.layers.forEach((layer, place) => {
      const [before, start] = this.residual.subarray(2 * place, 2 * place + 2);
      x = x.map((value, i) => before * value + start * first[i]);
      const mixed = this.mix(layer, x.slice());
      x = x.map((value, i) => value + mixed[i]);
      const wide = multiply(layer.widen, normalise(x.slice(), layer.feedForwardGain));
      const thought = multiply(layer.narrow, wide.map((value) => Math.max(value, 0) ** 2));
      x = x.map((value, i) => value + thought[i]);
    });
    this.ids.push(id);
    return multiply(this.embedding, normalise(x, this.gain));
  }
}

// What the next token is drawn from, as `Sampling.probabilities` in lab/generation.py.
function narrow(logits, seen, { temperature, top_k, top_p, min_p, repetition_penalty }) {
  let scores = Float64Array.from(logits);
  for (const id of new Set(seen)) scores[id] *= repetition_penalty ** -Math.sign(scores[id]);
  const best = scores.reduce((at, score, id) => (score > scores[at] ? id : at), 0);
  if (temperature === 0) return scores.map((_, id) => Number(id === best));
  const highest = scores[best];
  scores = scores.map((score) => (score - highest) / temperature);
  if (top_k && top_k < scores.length) {
    const least = scores.slice().sort().at(-top_k);
    scores = scores.map((score) => (score < least ? -Infinity : score));
  }
  let kept = softmax(scores);
  if (top_p && top_p < 1) {
    const order = [...kept.keys()].sort((a, b) => kept[b] - kept[a]);
    let before = 0;
    for (const id of order) {
      const share = kept[id];
      if (before >= top_p) kept[id] = 0;
      before += share;
    }
  }
  const least = (min_p ?? 0) * kept[best];
  kept = kept.map((share) => (share < least ? 0 : share));
  const total = kept.reduce((a, b) => a + b, 0);
  return kept.map((share) => share / total);
}

// Random numbers from 0 to 1 that follow from a seed: mulberry32, by Tommy Ettinger.
function lots(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function draw(shares, lot) {
  let left = lot;
  const kept = [...shares.keys()].filter((id) => shares[id] > 0);
  for (const id of kept) if ((left -= shares[id]) < 0) return id;
  return kept.at(-1);
}

// The tokenizer: text to ids by the merges, and the bytes of each id.
class Pieces {
  constructor(merges, expression) {
    this.bytes = Array.from({ length: 256 }, (_, value) => [value]);
    this.made = new Map();
    this.pattern = new RegExp(expression, "gu");
    for (const [left, right] of merges) {
      this.made.set(left * WIDE + right, this.bytes.length);
      this.bytes.push([...this.bytes[left], ...this.bytes[right]]);
    }
  }

  encode(text) {
    const whole = text.replace(/\p{Cs}/gu, "\ufffd");
    return (whole.match(this.pattern) ?? []).flatMap((piece) => {
      const ids = [...new TextEncoder().encode(piece)];
      for (;;) {
        let [best, at] = [Infinity, -1];
        for (let i = 0; i + 1 < ids.length; i++) {
          const id = this.made.get(ids[i] * WIDE + ids[i + 1]);
          if (id < best) [best, at] = [id, i];
        }
        if (at < 0) return ids;
        ids.splice(at, 2, best);
      }
    });
  }

  // The text of ids, without the bytes of a character that is not yet whole.
  decode(ids) {
    const bytes = Uint8Array.from(ids.flatMap((id) => this.bytes[id] ?? []));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes, { stream: true });
  }
}
