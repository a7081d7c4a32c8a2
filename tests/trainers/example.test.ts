import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { referenceLoss } from '../../ts/verification/reference.js';
import { readBatch } from '../../ts/safetensors.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const example = path.join(root, 'examples/preference-batch.safetensors');

test('the script makes the example batch, bit for bit', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-example-'));
  try {
    const again = path.join(folder, 'again.safetensors');
    execFileSync(process.execPath, [path.join(root, 'scripts/make-example-batch.mjs'), again]);
    expect(fs.readFileSync(again).equals(fs.readFileSync(example))).toBe(true);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test('the example is a batch of a trained model that has begun to prefer', () => {
  const batch = readBatch(example);
  const { loss, logps, counts } = referenceLoss({ method: 'dpo', beta: 0.1 }, batch);
  const nll = -logps.reduce((a, b) => a + b) / counts.reduce((a, b) => a + b);
  expect(nll).toBeLessThan(Math.log(batch.shape.at(-1) ?? 0) / 4);
  expect(loss).toBeLessThan(Math.LN2);
  expect(loss).toBeGreaterThan(Math.LN2 / 2);
});
