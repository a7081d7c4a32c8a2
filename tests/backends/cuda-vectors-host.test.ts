// The reference cases on the CUDA backend, on host arrays that travel to the device, in 16 bits,
// and as log-probabilities: the bounds are those of the CPU.
import { afterAll, describe, expect, test } from 'vitest';
import { cuda, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { LogitsBatch, LossResult, RunOptions } from '../../ts/index.js';
import { halfBound, logpBound, Misses } from '../support/bounds.js';
import {
  build,
  checkGradient,
  checkNumbers,
  elements,
  makeBatch,
  oneSetOfLabels,
  pack,
  restride,
  sameResult,
  unfactored,
} from '../support/cases.js';
import { Copy, expectDevice, type Elements } from '../support/device.js';
import { compute, unpacked, type HostBatch } from '../support/device-cases.js';
import { Coverage, inputs, inputsWith, isRobustnessOnly, total } from '../support/every-case.js';
import { at, decodeHalf, encodeHalf, present, sameBits } from '../support/numbers.js';

const ran = new Coverage();

expectDevice();

const halves = inputs.filter(([, input]) => input.dtypeExact !== 'f32');

describe.runIf(cuda.available)('float16 and bfloat16', () => {
  test.each(halves)('%s', (_, input) => {
    const dtype = input.dtypeExact === 'f16' ? 'float16' : 'bfloat16';
    const misses = new Misses();
    for (const [i, c] of ran.cases(input, 'half').entries()) {
      const batch: HostBatch = {
        ...makeBatch(c),
        logits: encodeHalf(makeBatch(c).logits, dtype),
        dtype,
      };
      const dense = compute(c, batch, 'fresh');
      checkNumbers(misses, c, dense.result, 'cuda');
      checkGradient(misses, c, decodeHalf(dense.gradient, dtype), dtype);
      const where = i % 2 === 0 ? 'in place' : 'out';
      const other = compute(c, batch, where, 'dense', where === 'out' ? 1 : (i / 2) % 8);
      sameResult(misses, `${c.id} ${where}`, other.result, dense.result);
      misses.require(sameBits(other.gradient, dense.gradient), `${c.id} ${where}: gradient`);
      const factored = compute(c, batch, i % 4 < 2 ? 'in place' : 'fresh', 'factored');
      const residual = decodeHalf(factored.gradient, dtype);
      misses.each(`${c.id} factored`, residual, input.residual.subarray(0, elements(c)), (x) =>
        halfBound(x, dtype),
      );
      sameResult(misses, `${c.id} factored`, factored.result, dense.result);
      const staged = build(c)(batch, { backend: 'cuda' });
      sameResult(misses, `${c.id} staged`, staged, dense.result);
      misses.require(
        sameBits(present(staged.gradLogits), dense.gradient),
        `${c.id} staged: gradient`,
      );
    }
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available)('host arrays', () => {
  // Each case in one of these ways, in turn.
  const ways = [
    'fresh',
    'on the device, too',
    'in place',
    'out',
    'strided',
    'packed',
    'asynchronous',
    'factored',
    'none',
  ] as const;
  let turn = 0;

  test.each(inputs)('%s', async (_, input) => {
    const misses = new Misses();
    const { V } = input;
    for (const c of ran.cases(input, 'host arrays')) {
      const objective = build(c);
      const batch = makeBatch(c) as LogitsBatch<Float32Array<ArrayBuffer>>;
      const options: RunOptions<Float32Array> = { backend: 'cuda' };
      const check = (
        result: LossResult<Float32Array>,
        gradient: Float32Array | Float64Array | undefined,
      ): void => {
        checkNumbers(misses, c, result, 'cuda');
        checkGradient(misses, c, present(gradient));
      };
      const round = Math.floor(turn / ways.length);
      const way = ways[turn % ways.length] as (typeof ways)[number];
      turn++;
      if (way === 'fresh') {
        const before = batch.logits.slice();
        const result = objective(batch, options);
        misses.require(sameBits(batch.logits, before), `${c.id}: logits were written`);
        check(result, result.gradLogits);
      } else if (way === 'on the device, too') {
        const result = objective(batch, options);
        check(result, result.gradLogits);
        const onDevice = compute(c, makeBatch(c) as HostBatch, 'fresh');
        sameResult(misses, `${c.id} on the device`, onDevice.result, result);
        misses.require(
          sameBits(onDevice.gradient, present(result.gradLogits)),
          `${c.id} on the device: gradient`,
        );
      } else if (way === 'in place') {
        const result = objective(batch, { ...options, inPlace: true });
        misses.require(result.gradLogits === batch.logits, `${c.id}: not in place`);
        check(result, batch.logits);
      } else if (way === 'out') {
        const out = new Float32Array(elements(c)).fill(NaN);
        check(objective(batch, { ...options, out }), out);
      } else if (way === 'strided') {
        const rowStride = V + 5;
        const wide = restride(batch.logits, V, V, rowStride, NaN);
        const result = objective({ ...batch, logits: wide, rowStride }, options);
        const gradient = restride(present(result.gradLogits), V, rowStride, V, 0);
        check(result, gradient);
        const padded = restride(gradient, V, V, rowStride, 0);
        misses.require(sameBits(present(result.gradLogits), padded), `${c.id} strided: padding`);
      } else if (way === 'packed') {
        const { batch: packed, rows } = pack(c);
        const result = objective(packed, options);
        check(result, unpacked(present(result.gradLogits) as Elements, rows, elements(c), V));
      } else if (way === 'asynchronous') {
        const result = await objective.async(batch, options);
        check(result, result.gradLogits);
      } else if (way === 'none') {
        checkNumbers(misses, c, objective(batch, { ...options, gradient: 'none' }), 'cuda');
      } else if (oneSetOfLabels(c)) {
        const result = objective(batch, {
          ...options,
          gradient: 'factored',
          inPlace: round % 2 === 0,
        });
        check(result, unfactored(result, present(result.gradLogits), V));
      } else {
        expect(() => objective(batch, { ...options, gradient: 'factored' })).toThrow('sftLabels');
      }
    }
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available)('log-probabilities', () => {
  test.each(inputs)('%s', (_, input) => {
    const batch: HostBatch = {
      logits: input.logits,
      shape: [2 * input.B, input.T, input.V],
      labels: input.labels,
    };
    const misses = new Misses();
    using copy = new Copy(batch.logits, 'float32', { shift: 1 });
    const onDevice = { ...batch, logits: copy.tensor };
    const { logps, counts } = sequenceLogps(onDevice);
    misses.each('logps', logps, input.logps, (x, b) => logpBound(x, at(input.counts, b)));
    expect(counts).toEqual(input.counts);
    const tokens = tokenLogps(onDevice);
    const sums = Array.from(logps, (_, b) =>
      tokens.logps.subarray(b * input.T, (b + 1) * input.T).reduce((x, y) => x + y, 0),
    );
    misses.each('sums of tokenLogps', sums, logps, (x) => 1e-14 * Math.abs(x));
    const onCpu = tokenLogps(batch);
    for (const key of ['logps', 'logsumexp', 'entropy'] as const) {
      // Each is within half of this of the true value.
      const bound = (x: number): number => 2 * (1e-6 + 1e-6 * Math.abs(x));
      misses.each(key, tokens[key], onCpu[key], bound);
      tokens[key].forEach((value, row) => {
        if (at(input.labels, row) === -100)
          misses.require(Object.is(value, 0), `${key}[${row}], which is ignored: ${value}`);
      });
    }
    const staged = {
      sequences: sequenceLogps(batch, { backend: 'cuda' }),
      tokens: tokenLogps(batch, { backend: 'cuda' }),
    };
    misses.require(sameBits(staged.sequences.logps, logps), 'staged: logps');
    expect(staged.sequences.counts).toEqual(input.counts);
    for (const key of ['logps', 'logsumexp', 'entropy'] as const) {
      misses.require(sameBits(staged.tokens[key], tokens[key]), `staged: ${key}`);
    }
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available)(
  'robustness_only: certainty (p = 1) and sequences without a token',
  () => {
    test.each(inputsWith(isRobustnessOnly))('%s: finite loss and gradient', (_, input) => {
      for (const c of ran.cases(input, 'robust', isRobustnessOnly)) {
        const staged = build(c)(makeBatch(c), { backend: 'cuda', inPlace: true });
        expect(
          [staged.loss, ...staged.losses, ...present(staged.gradLogits)].every(Number.isFinite),
          `${c.id} staged`,
        ).toBe(true);
      }
    });
  },
);

afterAll(() => {
  ran.log();
});

test.runIf(cuda.available)(`all ${total} cases were run`, () => {
  for (const way of ['host arrays'])
    expect([way, ran.size(way) + ran.size('robust')]).toEqual([way, total]);
});
