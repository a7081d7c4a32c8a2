#!/usr/bin/env node
// Packs the cases of the wider family into tests/fixtures/family, which tests/support/family.ts
// unpacks:
//
//   node scripts/pack-family.mjs [../shared/vectors-family/cases.json]
//
// Nothing is rounded. Rows with an ignored label are left out of the logits and of their gradient,
// which is checked here to be 0 there.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { byPlanes, writePacked } from './planes.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = path.resolve(
  process.argv[2] ?? path.join(root, '../shared/vectors-family/cases.json'),
);
const target = path.join(root, 'tests/fixtures/family');

const logits = [];
const gradients = [];
const cases = JSON.parse(fs.readFileSync(source, 'utf8')).cases.map((given) => {
  const { logits: z, ...batch } = given.batch;
  const { gradLogits: g, ...expected } = given.expected;
  if ((z === undefined) !== (g === undefined)) throw new Error(`${given.id}: no gradient`);
  if (z) {
    const vocab = batch.shape.at(-1);
    batch.labels.forEach((label, row) => {
      const [from, to] = [row * vocab, (row + 1) * vocab];
      if (label !== -100) {
        logits.push(...z.slice(from, to));
        gradients.push(...g.slice(from, to));
      } else if (g.slice(from, to).some((x) => x !== 0)) {
        throw new Error(`${given.id}: row ${row} is not 0`);
      }
    });
  }
  return { ...given, batch, expected };
});

fs.rmSync(target, { recursive: true, force: true });
fs.mkdirSync(target, { recursive: true });
const write = (name, data) => writePacked(path.join(target, name), data);
write('cases.json.br', Buffer.from(JSON.stringify(cases)));
write('logits.f32.br', byPlanes(Buffer.from(Float32Array.from(logits).buffer), 4));
write('gradients.f64.br', byPlanes(Buffer.from(Float64Array.from(gradients).buffer), 8));
