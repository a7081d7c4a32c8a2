#!/usr/bin/env node
// Packs the reference cases into tests/fixtures/vectors, which tests/support/vectors.ts unpacks:
//
//   node scripts/pack-vectors.mjs [../shared/vectors]
//
// Nothing of the cases of logits is rounded. Left out: what other implementations deviate by, and,
// of the cases of logits, rows that no term scores, whose logits the objectives must not read (the
// tests find NaN there) and whose gradient is checked here to be 0.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { byPlanes, writePacked } from './planes.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = path.resolve(process.argv[2] ?? path.join(root, '../shared/vectors'));
const target = path.join(root, 'tests/fixtures/vectors');

const manifest = JSON.parse(fs.readFileSync(path.join(source, 'manifest.json'), 'utf8'));
const elementBytes = { f32: 4, i32: 4, f64: 8 };

function bytes({ file, offset, dtype, shape }) {
  const length = shape.reduce((a, b) => a * b, 1) * elementBytes[dtype];
  return fs.readFileSync(path.join(source, file)).subarray(offset, offset + length);
}
function int32s(array) {
  const data = bytes(array);
  return Array.from({ length: data.length / 4 }, (_, i) => data.readInt32LE(i * 4));
}

/** The scored rows of an array of rows, one after the other. */
function scoredRows(data, rowBytes, scored, rest) {
  const rows = [];
  for (let row = 0; row * rowBytes < data.length; row++) {
    const slice = data.subarray(row * rowBytes, (row + 1) * rowBytes);
    if (scored.has(row)) rows.push(slice);
    else rest(slice, row);
  }
  return Buffer.concat(rows);
}

const write = (name, data) => writePacked(path.join(target, name), data);

const inputs = {};
const scoredOf = {};
const logits = [];
for (const [name, input] of Object.entries(manifest.inputs)) {
  if (input.kind !== 'logits') continue;
  const { B, T, V, dtype_exact, ref_logps, n_tokens, logps_sum, digest } = input;
  const labels = int32s(input.labels);
  const nllLabels = input.nll_labels && int32s(input.nll_labels);
  const scored = new Set(
    labels.flatMap((label, row) =>
      label !== -100 || (nllLabels?.[row] ?? -100) !== -100 ? [row] : [],
    ),
  );
  scoredOf[name] = scored;
  logits.push(scoredRows(bytes(input.logits), V * 4, scored, () => undefined));
  inputs[name] = {
    B,
    T,
    V,
    dtypeExact: dtype_exact,
    reference: ref_logps,
    counts: n_tokens,
    logps: logps_sum,
    labels,
    nllLabels,
    digest,
  };
}

const gradients = [];
const cases = [];
for (const { id, input, call, expected, robustness_only, grads } of manifest.cases) {
  if (!(input in inputs)) continue;
  if (grads.dlogits) {
    gradients.push(
      scoredRows(bytes(grads.dlogits), inputs[input].V * 8, scoredOf[input], (rest, row) => {
        if (rest.some((byte, i) => byte !== 0 && !(i % 8 === 7 && byte === 0x80)))
          throw new Error(`${id}: row ${row} is not 0`);
      }),
    );
  }
  cases.push({
    id,
    input,
    call,
    expected: {
      loss: expected.loss,
      losses: expected.pair_losses,
      rewards: expected.reward_chosen && [...expected.reward_chosen, ...expected.reward_rejected],
      dseq: expected.dseq,
      dnll: expected.dnll,
      digest: grads.dlogits_digest,
    },
    robustnessOnly: robustness_only,
  });
}

// The cases of the fused output layer: arrays one after the other, those of the inputs, then the
// gradients of the cases. The gradients are rounded to float32, a hundredth of the bound they are
// there for.
const layerArrays = [];
function float32s(array) {
  if (!array) return undefined;
  const data = bytes(array);
  const length = data.length / elementBytes[array.dtype];
  const values = Float32Array.from({ length }, (_, i) =>
    array.dtype === 'f64' ? data.readDoubleLE(8 * i) : data.readFloatLE(4 * i),
  );
  layerArrays.push(Buffer.from(values.buffer));
  return length;
}
const layerInputs = {};
for (const [name, input] of Object.entries(manifest.inputs)) {
  if (input.kind !== 'fused') continue;
  const { B, T, V, H, ref_logps, n_tokens, logps_sum, labels, hidden, weight, bias } = input;
  const lengths = { hidden: float32s(hidden), weight: float32s(weight), bias: float32s(bias) };
  layerInputs[name] = {
    B,
    T,
    V,
    H,
    reference: ref_logps,
    counts: n_tokens,
    logps: logps_sum,
    labels: int32s(labels),
    lengths,
  };
}
const layerCases = manifest.cases
  .filter(({ input }) => input in layerInputs)
  .map(({ id, input, call, expected, grads }) => {
    const lengths = {
      hidden: float32s(grads.dhidden),
      weight: float32s(grads.dweight),
      bias: float32s(grads.dbias),
    };
    return { id, input, call, loss: expected.loss, losses: expected.pair_losses, lengths };
  });
if (cases.length + layerCases.length !== manifest.cases.length)
  throw new Error('there are cases of a third kind');

fs.rmSync(target, { recursive: true, force: true });
fs.mkdirSync(target, { recursive: true });
write('cases.json.br', Buffer.from(JSON.stringify({ inputs, cases })));
write('logits.f32.br', byPlanes(Buffer.concat(logits), 4));
write(
  'layer-cases.json.br',
  Buffer.from(JSON.stringify({ inputs: layerInputs, cases: layerCases })),
);
write('layer.f32.br', byPlanes(Buffer.concat(layerArrays), 4));
// In parts, each in planes of its own.
const all = Buffer.concat(gradients);
const part = Math.ceil(all.length / 3 / 8) * 8;
for (let i = 0; i * part < all.length; i++)
  write(`gradients.${i}.f64.br`, byPlanes(all.subarray(i * part, (i + 1) * part), 8));
