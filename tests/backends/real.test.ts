// Two real preference pairs through a small trained model, with expected values in float64. The
// data is not part of the project: it is looked for beside the repository.
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, sequenceLogps, type LogitsBatch, type LossResult } from '../../ts/index.js';
import { readBatch } from '../../ts/safetensors.js';
import { gradientBound, halfBound, logpBound, lossBound, Misses } from '../support/bounds.js';
import { at, decodeHalf, present, type HalfDtype } from '../support/numbers.js';
import { rowResidual } from '../support/vectors.js';

const folder = new URL('../../../shared/real/', import.meta.url);
const file = (name: string): string => fileURLToPath(new URL(name, folder));
const there = fs.existsSync(file('batch.safetensors')) && fs.existsSync(file('expected.json'));

interface Expected {
  readonly counts: number[];
  readonly logps: number[];
  readonly cases: {
    readonly call: { readonly method: string };
    readonly loss: number;
    readonly losses: number[];
    readonly gradient: {
      readonly at: [sequence: number, token: number, entry: number][];
      readonly value: number[];
      readonly l1: number;
      readonly max: number;
    };
  }[];
}

describe.skipIf(!there)(`the real batch${there ? '' : ' (not found in ../shared/real)'}`, () => {
  const read = (): Expected =>
    JSON.parse(fs.readFileSync(file('expected.json'), 'utf8')) as Expected;

  test('log-probabilities', () => {
    const { counts, logps } = read();
    const found = sequenceLogps(readBatch(file('batch.safetensors')));
    const misses = new Misses();
    misses.each('logps', found.logps, logps, (x, b) => logpBound(x, at(counts, b)));
    expect(misses.list).toEqual([]);
    expect(Array.from(found.counts)).toEqual(counts);
  });

  test('losses and gradients of every case: as stored, in float32, dense and factored', () => {
    const stored = readBatch(file('batch.safetensors'));
    const dtype = stored.dtype as HalfDtype;
    const raw = stored.logits as Uint16Array;
    const [sequences = 0, tokens = 0, vocab = 0] = stored.shape;
    const shape = [sequences, tokens, vocab] as const;
    const { labels, reference } = stored;
    const logits = Float32Array.from(decodeHalf(raw, dtype));
    const residual = new Float64Array(logits.length);
    labels.forEach((label, row) => {
      if (label !== -100) rowResidual(logits, row * vocab, vocab, label, residual);
    });
    const wide: LogitsBatch = { logits, shape, labels, ...(reference && { reference }) };

    const misses = new Misses();
    const { cases } = read();
    for (const { call, loss, losses, gradient } of cases) {
      const objective = dirAlignLoss(call as never);
      const numbers = (what: string, result: LossResult): void => {
        misses.near(`${what} loss`, result.loss, loss, lossBound(loss));
        misses.each(`${what} losses`, result.losses, losses, lossBound);
      };
      const places = gradient.at.map(([b, t, v]) => (b * tokens + t) * vocab + v);
      for (const mode of ['dense', 'factored'] as const) {
        const what = `${JSON.stringify(call)} ${mode}`;
        const result = objective(wide, { gradient: mode });
        numbers(what, result);
        const { rowScale } = result;
        const elements = present(result.gradLogits);
        const scaled = rowScale
          ? (elements as Float32Array).map((g, i) => g * at(rowScale, Math.floor(i / vocab)))
          : elements;
        const values = scaled as Float32Array;
        places.forEach((i, k) => {
          // |value| = |coefficient| p, but for the entries of ignored rows, which are 0.
          const want = at(gradient.value, k);
          misses.near(
            `${what} [${String(i)}]`,
            values[i],
            want,
            gradientBound(Math.abs(want), gradient.max),
          );
        });
        const l1 = values.reduce((a, b) => a + Math.abs(b), 0);
        const max = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        misses.near(`${what} l1`, l1, gradient.l1, gradientBound(gradient.l1, 0));
        misses.near(`${what} max`, max, gradient.max, gradientBound(gradient.max, 0));
      }

      const what = `${JSON.stringify(call)} ${dtype}`;
      const dense = objective(stored);
      numbers(what, dense);
      const bits = present(dense.gradLogits) as Uint16Array;
      const values = decodeHalf(
        places.map((i) => at(bits, i)),
        dtype,
      );
      misses.each(what, values, gradient.value, (x) => halfBound(x, dtype));
      numbers(`${what} factored`, objective(stored, { gradient: 'factored' }));
    }
    expect(cases.length).toBeGreaterThan(0);

    // The factored gradient is that of the log-probabilities, whatever the objective.
    const factored = present(
      dirAlignLoss('simpo', 2)(stored, { gradient: 'factored' }).gradLogits,
    ) as Uint16Array;
    misses.each(`${dtype} factored`, decodeHalf(factored, dtype), residual, (x) =>
      halfBound(x, dtype),
    );
    expect(misses.list).toEqual([]);
  });
});
