// examples/plain-trainer.mjs, run beside the package compiled from ts/ as it is now.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { at } from '../support/numbers.js';
import { compilePackage } from '../support/compiled.js';

const compiled = compilePackage();
afterAll(() => {
  compiled.remove();
});

test('the hand-written trainer learns to prefer', () => {
  const example = fileURLToPath(new URL('../../examples/plain-trainer.mjs', import.meta.url));
  const copy = path.join(path.dirname(fileURLToPath(compiled.url)), 'plain-trainer.mjs');
  fs.copyFileSync(example, copy);
  const runs = path.join(path.dirname(copy), 'runs');
  const lines = execFileSync(process.execPath, [copy, runs], { encoding: 'utf8' })
    .trim()
    .split('\n');
  const rows = lines.map((line) => line.split(' ').map(Number));
  expect(rows.map(([step]) => step)).toEqual([0, 10, 20, 30, 40, 50]);
  const losses = rows.map((row) => at(row, 1));
  expect(losses[0]).toBe(Number(Math.LN2.toFixed(4)));
  for (let i = 1; i < losses.length; i++) expect(losses[i]).toBeLessThan(at(losses, i - 1));
  expect(losses.at(-1)).toBeLessThan(0.3);
  expect(rows.map((row) => row[2]).at(-1)).toBe(1);
  // What it logs; tests/trainers/logging.test.ts reads such files.
  const [events = ''] = fs.readdirSync(runs);
  const written = fs.readFileSync(path.join(runs, events)).toString('latin1');
  expect(written.split('rewards/margins')).toHaveLength(51 + 1);
});
