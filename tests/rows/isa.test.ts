// Every instruction set that this processor has: DIRALIGN_ISA asks for one, and the bounds hold for
// each.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { deserialize, serialize } from 'node:v8';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { LossResult, RunOptions, TokenLogps } from '../../ts/index.js';
import { referenceTokenLogps, type ReferenceConfig } from '../../ts/verification/reference.js';
import { dtypes, randomBatch } from '../support/batches.js';
import { logpBound, Misses } from '../support/bounds.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { present } from '../support/numbers.js';
import { prepare } from '../../ts/verification/verification.js';
import { checkWithin } from '../support/stages.js';

const config: ReferenceConfig = { method: 'orpo', beta: 0.5 };
const runs: RunOptions[] = [
  {},
  { inPlace: true },
  { gradient: 'factored' },
  { gradient: 'factored', inPlace: true },
];
const batches = dtypes.flatMap((dtype) =>
  [1, 2, 7, 33, 511, 513, 1300].map((vocab) =>
    randomBatch({ seed: vocab, sequences: 4, tokens: 3, vocab, dtype, scale: 4 }),
  ),
);

let compiled: Compiled;
let folder: string;
beforeAll(() => {
  compiled = compilePackage();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-isa-'));
});
afterAll(() => {
  compiled.remove();
  fs.rmSync(folder, { recursive: true });
});

test.each(['baseline', 'avx2', 'avx512'])('%s', (isa) => {
  const [from, to] = [path.join(folder, 'batches'), path.join(folder, isa)];
  fs.writeFileSync(from, serialize(batches.map((batch) => ({ config, batch, runs }))));
  const script = fileURLToPath(new URL('../fixtures/isa.mjs', import.meta.url));
  execFileSync(process.execPath, [script, compiled.url, from, to], {
    env: { ...process.env, DIRALIGN_ISA: isa },
  });
  const found = deserialize(fs.readFileSync(to)) as {
    isa: string;
    results: { tokens: TokenLogps; results: LossResult[] }[];
  };
  // A set that the processor lacks is replaced by its best; the baseline is always there.
  if (isa === 'baseline') expect(found.isa).toBe(isa);
  const misses = new Misses();
  batches.forEach((batch, i) => {
    const { tokens, results } = present(found.results[i]);
    const expected = referenceTokenLogps(batch);
    for (const key of ['logps', 'logsumexp', 'entropy'] as const)
      misses.each(key, tokens[key], expected[key], (x) => logpBound(x, 1));
    const rows = prepare(batch);
    results.forEach((result, run) => {
      checkWithin(
        misses,
        `${found.isa} ${JSON.stringify(runs[run])} V ${String(batch.shape.at(-1))}`,
        config,
        batch,
        result,
        rows,
      );
    });
  });
  expect(misses.list).toEqual([]);
});
