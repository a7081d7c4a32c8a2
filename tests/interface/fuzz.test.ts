// The fuzzer itself: that it finds what it looks for, that its twists do something, and a few
// hundred of its calls.
import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { rangeError } from '../../ts/errors.js';
import { Call, type Properties } from '../fuzz/call.js';
import { Guarded } from '../fuzz/memory.js';
import { check, twists } from '../fuzz/oracle.js';
import { callPlans, doors, type CallPlan } from '../fuzz/plan.js';
import { generator, present } from '../support/numbers.js';

const names = twists.map(({ name }) => name);
const plansOf = (places: readonly 'host'[], twisted: readonly string[] = names) =>
  callPlans({ doors, places, twists: twisted });
const [any] = fc.sample(plansOf(['host']), { seed: 20250203, numRuns: 1 });

/** A fine call of logits into a buffer of the caller's, in memory of its own. */
const intoBuffer: CallPlan = (({ rows, run, fields, ...plan }: CallPlan) => ({
  ...plan,
  ...({ door: 'logits', place: 'host', asynchronous: false, shared: false, twists: [] } as const),
  ...{ config: { method: 'dpo', beta: 0.1 }, mixture: undefined, recipe: undefined },
  rows: {
    ...rows,
    ...{ units: 2, tokens: 3, vocab: 7, scale: 2, ignored: 0 },
    ...{ packed: false, special: false, emptied: false },
  },
  fields: {
    ...fields,
    ...{ names: [], tokenWeights: false },
    ...{ logitScale: undefined, logitSoftcap: undefined, temperature: undefined },
  },
  run: {
    ...run,
    ...{ target: 'out', gradient: undefined, gradientScale: undefined, padding: 0 },
    sftLabels: false,
  },
}))(present(any));

describe('what it finds', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });
  const start: (this: Call) => unknown = Reflect.get(Call.prototype, 'start');
  /** What the package does otherwise than it does. */
  const plant = (fault: (this: Call) => unknown): void => {
    vi.spyOn(Call.prototype, 'start').mockImplementation(fault);
  };
  const held = (call: Call, name: string): Guarded =>
    [call.inputs.get(name), call.outputs.get(name)].find(
      (one) => one instanceof Guarded,
    ) as Guarded;

  test('nothing, where nothing is wrong', async () => {
    await expect(check(intoBuffer)).resolves.toBeUndefined();
  });

  test.each<[string, RegExp, (this: Call) => unknown]>([
    [
      'a byte behind an output',
      /^out gradLogits: byte \d+ of an array of \d+ was written$/,
      function () {
        const { buffer, byteOffset, byteLength } = held(this, 'gradLogits').value;
        new Uint8Array(buffer)[byteOffset + byteLength] = 1;
        return start.call(this);
      },
    ],
    [
      'a byte before an input',
      /^labels: byte -1 of an array of \d+ was written$/,
      function () {
        const { buffer, byteOffset } = held(this, 'labels').value;
        new Uint8Array(buffer)[byteOffset - 1] = 1;
        return start.call(this);
      },
    ],
    [
      'an input that changes',
      /^labels: byte \d+ was written$/,
      function () {
        const result = start.call(this);
        held(this, 'labels').value.fill(3);
        return result;
      },
    ],
    [
      'a refusal that has written',
      /^out gradLogits: byte \d+ was written$/,
      function () {
        start.call(this);
        throw rangeError('ERR_DIRALIGN_SHAPE', 'planted');
      },
    ],
    [
      'a fine call that is refused',
      /^a fine call was refused: DirAlignError: planted/,
      () => {
        throw rangeError('ERR_DIRALIGN_SHAPE', 'planted');
      },
    ],
    [
      'a loss that is off',
      /^against float64: loss/,
      function () {
        const result = start.call(this) as Properties;
        return { ...result, loss: (result.loss as number) * (1 + 1e-9) + 1e-9 };
      },
    ],
    [
      'an element of a gradient that is off',
      /^against float64: gradient/,
      function () {
        const result = start.call(this);
        const gradient = held(this, 'gradLogits').value;
        if (gradient instanceof Float32Array) gradient[1] = (gradient[1] ?? 0) * 1.001 + 1e-3;
        else gradient[1] = 0x3c00;
        return result;
      },
    ],
    [
      'a NaN of finite numbers',
      /^rewards has a NaN at 0$/,
      function () {
        const result = start.call(this) as Properties;
        (result.rewards as Float64Array)[0] = NaN;
        return result;
      },
    ],
    [
      'a result in an array of another class',
      /^losses is not a plain array$/,
      function () {
        const result = start.call(this) as Properties;
        return {
          ...result,
          losses: new (class extends Float64Array {})(result.losses as Float64Array),
        };
      },
    ],
  ])('%s', async (_, message, fault) => {
    plant(fault);
    await expect(check(intoBuffer)).rejects.toThrow(message);
  });

  /** The same only where the call is twisted. */
  const twistedBy = (name: string): CallPlan => ({ ...intoBuffer, twists: [{ name, pick: 1 }] });
  const plantTwisted = (fault: (this: Call) => unknown): void => {
    plant(function () {
      return this.plan.twists.length === 0 ? start.call(this) : fault.call(this);
    });
  };

  test('an error that is none of the package', async () => {
    plantTwisted(() => {
      throw new TypeError('planted');
    });
    await expect(check(twistedBy('a value of another kind'))).rejects.toThrow(
      /not a DirAlignError: TypeError: planted/,
    );
  });
  test('a twist that changes the numbers', async () => {
    plantTwisted(function () {
      const result = start.call(this) as Properties;
      return { ...result, loss: 0 };
    });
    await expect(check(twistedBy('an instance of a subclass'))).rejects.toThrow(
      /loss is 0 in place of/,
    );
  });
  test('a twist that is refused, and need not be', async () => {
    plantTwisted(() => {
      throw rangeError('ERR_DIRALIGN_DTYPE', 'planted');
    });
    await expect(check(twistedBy('an instance of a subclass'))).rejects.toThrow(
      /refused: DirAlignError: planted/,
    );
  });
  test('a twist that is accepted, and must not be', async () => {
    plantTwisted(function () {
      const plain = new Call({ ...this.plan, twists: [] });
      return start.call(plain);
    });
    await expect(check(twistedBy('a label outside the vocabulary'))).rejects.toThrow(
      /accepted in place of refused/,
    );
  });
});

test('every twist finds calls that it changes', () => {
  const without = new Set(names);
  for (const { twist: name, plan } of fc.sample(
    fc.record({ twist: fc.constantFrom(...names), plan: plansOf(['host']) }),
    {
      seed: 7,
      numRuns: 6000,
    },
  )) {
    const twist = present(twists.find((one) => one.name === name));
    if (!without.has(name)) continue;
    const call = new Call(plan);
    if (twist.apply(call, generator(plan.rows.seed)) !== undefined) without.delete(name);
    call.end();
  }
  // Those of tensors are for a device.
  expect(
    [...without].filter((name) => !/tensor|memory that is no memory|array of the host/.test(name)),
  ).toEqual([]);
});

test('calls of every door, fine and twisted', { timeout: 120_000 }, async () => {
  const property = fc.asyncProperty(plansOf(['host']), check);
  await fc.assert(property, { seed: 20250203, numRuns: 500 });
});
