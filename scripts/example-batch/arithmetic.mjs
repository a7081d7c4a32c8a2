// Arithmetic and random numbers that are the same bits everywhere.

// e^x = 2^k e^r with |r| <= ln 2 / 2, where 14 terms of the series are exact to the last digits.
const scale = new Float64Array(1);
const scaleBits = new BigUint64Array(scale.buffer);
export function exp(x) {
  if (x < -700) return 0;
  const k = Math.round(x / Math.LN2);
  const r = x - k * Math.LN2;
  let series = 1;
  for (let n = 14; n > 0; n--) series = 1 + (r / n) * series;
  scaleBits[0] = BigInt(k + 1023) << 52n;
  return scale[0] * series;
}

// Newton's method on e^y = x, with the step that converges cubically.
export function log(x) {
  let y = 0;
  for (let step = 0; step < 40; step++) {
    const e = exp(y);
    const change = (2 * (x - e)) / (x + e);
    y += change;
    if (Math.abs(change) < 1e-16 * Math.abs(y) || change === 0) break;
  }
  return y;
}

// mulberry32: uniform in [0, 1).
let state = 20250214;
export function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

export const pick = (list) => list[Math.floor(list.length * random())];
