// The reference cases on the CUDA backend, on host arrays that travel to the device, and as
// log-probabilities: the bounds are those of the CPU.
import { describe, expect, test } from 'vitest';
import { cuda, tokenLogps } from '../../ts/index.js';
import { Misses } from '../support/bounds.js';
import { call, onDevice, onHost } from '../support/calls.js';
import { build, makeBatch, sameResult } from '../support/cases.js';
import { Copy } from '../support/device.js';
import { Coverage, inputs } from '../support/every-case.js';
import { expectDevice } from '../support/expect-device.js';
import { at, present, sameBits } from '../support/numbers.js';
import { everyCase } from '../support/vector-suite.js';
import { checkLogps, inHalf, ways, type Way } from '../support/vector-ways.js';

expectDevice();

describe.runIf(cuda.available)('host arrays', () => {
  // A third of them: what is computed there is that of the suite of the device, how it gets there
  // does not depend on the method.
  everyCase(
    { name: 'cuda', prepare: onHost('cuda') },
    (turn) => [ways[turn % ways.length] as Way],
    3,
  );

  test.each(inputs)('%s: the bits that the device gives for its own data', (_, input) => {
    const misses = new Misses();
    for (const c of new Coverage().cases(input, 'same').filter((_case, i) => i % 9 === 1))
      for (const batch of [makeBatch(c), inHalf(c)].filter((each) => each !== undefined)) {
        const [there, here] = [onHost('cuda'), onDevice()].map(
          (prepare) => call(build(c), prepare(batch)).result,
        );
        sameResult(misses, c.id, present(here), present(there));
        const gradients = [here, there].map((result) => present(present(result).gradLogits));
        misses.require(sameBits(...(gradients as [Float32Array, Float32Array])), c.id);
      }
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available)('log-probabilities', () => {
  test.each(inputs)('%s', (_, input) => {
    const misses = new Misses();
    using copy = new Copy(input.logits, 'float32', { shift: 1 });
    const tokens = checkLogps(misses, input, 'cuda', copy);
    const staged = checkLogps(misses, input, 'cuda');
    const { B, T, V, logits, labels } = input;
    const onCpu = tokenLogps({ logits, shape: [2 * B, T, V], labels });
    for (const key of ['logps', 'logsumexp', 'entropy'] as const) {
      misses.require(sameBits(staged[key], tokens[key]), `staged: ${key}`);
      // Each is within half of this of the true value.
      misses.each(key, tokens[key], onCpu[key], (x) => 2 * (1e-6 + 1e-6 * Math.abs(x)));
      tokens[key].forEach((value, row) => {
        if (at(labels, row) === -100)
          misses.require(Object.is(value, 0), `${key}[${row}], which is ignored: ${value}`);
      });
    }
    expect(misses.list).toEqual([]);
  });
});
