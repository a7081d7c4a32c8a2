// `diralign verify` is worth what it catches: errors are planted in results, and each must be
// found.
import { describe, expect, test } from 'vitest';
import { methods } from '../../ts/catalogue.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import type { LogitsBatch } from '../../ts/batch/types.js';
import type { RunOptions } from '../../ts/loss/options.js';
import type { HiddenLossResult, LossResult } from '../../ts/loss/results.js';
import {
  backwardCases,
  backwardLibrary,
  checkBackward,
  prepareBackward,
  type BackwardLibrary,
} from '../../ts/verification/backward.js';
import {
  allConfigs,
  configs,
  converted,
  convertedHidden,
  mixtures,
  packed,
  syntheticBatches,
  syntheticHiddenBatches,
} from '../../ts/verification/cases.js';
import {
  checkHiddenObjective,
  hiddenLibrary,
  prepareHidden,
  type HiddenLibrary,
} from '../../ts/verification/hidden.js';
import {
  checkDifferences,
  checkExpected,
  checkObjective,
  decoder,
  encode,
  gradientBound,
  halfGradientBound,
  library,
  logpBound,
  lossBound,
  prepare,
  Tally,
  ulp,
  withFields,
  type Kind,
  type Library,
} from '../../ts/verification/verification.js';

const batches = new Map(syntheticBatches().map(({ name, batch }) => [name, batch]));

function batchNamed(name: string): LogitsBatch {
  const batch = batches.get(name);
  if (!batch) throw new Error(`there is no batch '${name}'`);
  return batch;
}
const small = prepare(batchNamed('vocabulary 31'));
const dpo: ReferenceConfig = { method: 'dpo', beta: 0.1 };
const simpo: ReferenceConfig = { method: 'simpo', beta: 2 };

/** A library with an error: `alter` sees every result. */
function faulty(
  alter: (result: LossResult<Float32Array>, batch: LogitsBatch, run: RunOptions) => void,
): Library {
  return {
    ...library,
    loss(config, batch, run) {
      const result = library.loss(config, batch, run) as LossResult<Float32Array>;
      alter(result, batch, run);
      return result;
    },
  };
}

function scale(values: Float32Array | Float64Array | undefined, factor: number): void {
  values?.forEach((x, i) => (values[i] = x * factor));
}

function caught(tally: Tally): Kind[] {
  return Object.entries(tally.worst)
    .filter(([, worst]) => worst > 1)
    .map(([kind]) => kind as Kind);
}

test('nothing is found where nothing is wrong', () => {
  for (const config of allConfigs()) {
    const tally = checkObjective(library, config, small);
    checkDifferences(tally, library, config, small);
    expect(tally.misses).toEqual([]);
  }
});

describe('a planted error is found', () => {
  test('a coefficient off by 2e-5', () => {
    const tally = checkObjective(
      faulty(({ gradLogits }) => {
        scale(gradLogits, 1 + 2e-5);
      }),
      dpo,
      small,
    );
    expect(caught(tally)).toEqual(expect.arrayContaining(['label', 'others']));
    expect(tally.misses[0]?.what).toMatch(/^gradient, row \d+, element \d+/);
  });

  test('a gradient without 1 / L', () => {
    const lib = faulty((result, { shape }) => {
      const [, tokens, vocab] = shape as [number, number, number];
      result.gradLogits?.forEach((g, i, gradient) => {
        gradient[i] = g * (result.counts[Math.floor(i / (tokens * vocab))] ?? 1);
      });
    });
    expect(caught(checkObjective(lib, simpo, small))).toEqual(
      expect.arrayContaining(['label', 'others']),
    );
  });

  test('chosen and rejected the wrong way round', () => {
    const lib = faulty(({ gradLogits }) => {
      scale(gradLogits, -1);
    });
    expect(caught(checkObjective(lib, dpo, small))).toEqual(
      expect.arrayContaining(['label', 'others']),
    );
  });

  test("another token's element for the label's", () => {
    const lib: Library = {
      ...library,
      loss: (config, batch, run) => {
        const labels = batch.labels.map((label) => (label < 0 ? label : (label + 1) % 31));
        return library.loss(config, { ...batch, labels }, run);
      },
    };
    expect(caught(checkObjective(lib, dpo, small))).toEqual(
      expect.arrayContaining(['logps', 'label', 'others']),
    );
  });

  test("only the label's element: p in place of p - 1", () => {
    const lib = faulty(({ gradLogits }, { labels, shape }) => {
      const row = labels.findIndex((label) => label >= 0);
      const position = row * (shape.at(-1) ?? 0) + (labels[row] ?? 0);
      if (gradLogits) gradLogits[position] = (gradLogits[position] ?? 0) * 1.001;
    });
    expect(caught(checkObjective(lib, dpo, small))).toEqual(['label', 'sums']);
  });

  test('a row that is ignored and not 0, were it only a negative zero', () => {
    for (const value of [1e-30, -0, NaN]) {
      const lib = faulty(({ gradLogits }, { labels, shape }) => {
        const row = labels.indexOf(-100);
        if (gradLogits) gradLogits[row * (shape.at(-1) ?? 0)] = value;
      });
      expect(caught(checkObjective(lib, dpo, small))).toEqual(['others']);
    }
  });

  test('a loss off by 3e-6 of itself; a wrong loss of one pair', () => {
    const config = { method: 'ipo', beta: 0.1 } as const;
    const whole = faulty((result) => {
      Object.assign(result, { loss: result.loss * (1 + 3e-6) });
    });
    expect(caught(checkObjective(whole, config, small))).toEqual(['loss']);
    const one = faulty(({ losses }) => {
      losses[1] = (losses[1] ?? 0) + 1e-4;
    });
    expect(caught(checkObjective(one, config, small))).toEqual(['loss']);
  });

  test('a NaN anywhere', () => {
    const lib = faulty((result) => {
      Object.assign(result, { loss: NaN });
    });
    expect(caught(checkObjective(lib, dpo, small))).toEqual(['loss']);
  });

  test('log-probabilities summed in bfloat16', () => {
    const lib = faulty(({ logps }) => {
      const decode = decoder('bfloat16');
      logps.forEach((x, b) => (logps[b] = decode(encode(x, 'bfloat16'))));
    });
    expect(caught(checkObjective(lib, dpo, small))).toEqual(['logps']);
  });

  test('in place and elsewhere: one bit', () => {
    const lib = faulty(({ gradLogits }, { labels }, { inPlace }) => {
      const row = labels.findIndex((label) => label >= 0);
      if (inPlace && gradLogits)
        gradLogits[row * 31] = (gradLogits[row * 31] ?? 0) * (1 + 2 ** -23);
    });
    expect(checkObjective(lib, dpo, small).misses[0]?.what).toMatch(/in place/);
  });

  test("a factored gradient's scale", () => {
    const lib = faulty(({ rowScale }) => {
      scale(rowScale, 1 + 1e-4);
    });
    expect(caught(checkObjective(lib, dpo, small))).toEqual(
      expect.arrayContaining(['label', 'others']),
    );
  });

  test.each(['float16', 'bfloat16'] as const)('%s: the neighbour of the right number', (dtype) => {
    const prepared = prepare(converted(batchNamed('vocabulary 31'), dtype));
    const lib = faulty(({ gradLogits }, { labels }) => {
      const row = labels.findIndex((label) => label >= 0);
      if (gradLogits) gradLogits[row * 31] = (gradLogits[row * 31] ?? 0) + 1;
    });
    expect(checkObjective(library, dpo, prepared).count).toBe(0);
    expect(checkObjective(lib, dpo, prepared).count).toBeGreaterThan(0);
  });

  test('dLoss/dlogps: a coefficient off by 1e-5', () => {
    const lib: Library = {
      ...library,
      fromLogps(config, batch) {
        const result = library.fromLogps(config, batch);
        scale(result.gradLogps, 1 + 1e-5);
        return result;
      },
    };
    const tally = new Tally();
    checkDifferences(tally, lib, dpo, small);
    expect(caught(tally)).toEqual(['differences']);
  });

  test('values from elsewhere that differ', () => {
    const { loss, losses } = library.loss(dpo, small.batch, {});
    const right = { call: dpo, loss, losses: [...losses] };
    expect(checkExpected(library, small.batch, right).count).toBe(0);
    expect(checkExpected(library, small.batch, { ...right, loss: loss + 2e-6 }).count).toBe(1);
    expect(
      checkExpected(library, small.batch, { ...right, gradient: { at: [[0, 0, 99]], value: [1] } })
        .count,
    ).toBe(1);
    expect(checkExpected(library, small.batch, { ...right, losses: [...losses, 1] }).count).toBe(1);
  });
});

describe('what it is built of', () => {
  test('the bounds are those of the specification', () => {
    expect(lossBound(0.5)).toBe(1e-6);
    expect(lossBound(-40)).toBeCloseTo(4e-5, 12);
    expect(logpBound(-1000, 512)).toBeCloseTo(1.512e-3, 12);
    expect(gradientBound(8e-6, 0.02)).toBeCloseTo(8e-11 + 2e-11, 16);
    expect(halfGradientBound(1, 'bfloat16')).toBe(0.51 / 128);
    expect(halfGradientBound(1.9, 'float16')).toBe(0.51 / 1024);
    expect(halfGradientBound(0, 'float16')).toBe(0.51 * 2 ** -24);
  });

  test.each(['float16', 'bfloat16'] as const)(
    '%s: every number encodes to itself, and rounds to the nearest',
    (dtype) => {
      const decode = decoder(dtype);
      const wrong: number[] = [];
      for (let bits = 0; bits < 0x10000; bits++) {
        const x = decode(bits);
        if (Number.isNaN(x) ? !Number.isNaN(decode(encode(x, dtype))) : encode(x, dtype) !== bits)
          wrong.push(bits);
        if (!Number.isFinite(x) || !Number.isFinite(decode(bits + 1)) || (bits & 0x7fff) === 0x7fff)
          continue;
        const middle = (x + decode(bits + 1)) / 2;
        if (encode(middle, dtype) !== (bits & 1 ? bits + 1 : bits)) wrong.push(bits);
        if (Math.abs(decode(bits + 1) - x) !== ulp(x, dtype)) wrong.push(bits);
      }
      expect(wrong).toEqual([]);
    },
  );

  test('every option of every method is tried', () => {
    for (const info of methods()) {
      const tried = new Set(configs(info).flatMap((config) => Object.keys(config)));
      for (const option of Object.keys(info.options)) expect(tried).toContain(option);
    }
  });

  test('a packed batch has the values of the padded one', () => {
    for (const batch of batches.values()) {
      const { loss, logps } = library.loss({ method: 'cpo', beta: 0.1 }, batch, {});
      const other = library.loss({ method: 'cpo', beta: 0.1 }, packed(batch), {});
      expect(other.loss).toBe(loss);
      expect(other.logps).toEqual(logps);
    }
  });
});

describe('output layers', () => {
  const found = syntheticHiddenBatches().find(({ name }) => name === 'output layer, 31 x 17');
  if (!found) throw new Error('there is no such layer');
  const single = prepareHidden(found.batch);
  const bfloat16 = prepareHidden(convertedHidden(found.batch, 'bfloat16'));
  const planted = (alter: (result: HiddenLossResult<Float32Array>) => void): HiddenLibrary => {
    return (config, batch, run) => {
      const result = hiddenLibrary(config, batch, run) as HiddenLossResult<Float32Array>;
      alter(result);
      return result;
    };
  };
  /** The element that is easiest to see. */
  const largest = (values: ArrayLike<number> = []): number => {
    let found = 0;
    for (let i = 0; i < values.length; i++)
      if (Math.abs(values[i] ?? 0) > Math.abs(values[found] ?? 0)) found = i;
    return found;
  };

  test.each([dpo, simpo, { method: 'sft' }] as const)(
    '$method: nothing is found where nothing is wrong',
    (config) => {
      for (const prepared of [single, bfloat16])
        expect(caught(checkHiddenObjective(hiddenLibrary, config, prepared))).toEqual([]);
    },
  );

  const errors: [string, Kind[], (result: HiddenLossResult<Float32Array>) => void][] = [
    [
      'the gradient of the hidden states, by 1e-4',
      ['layer'],
      ({ gradHidden }) => {
        scale(gradHidden, 1.0001);
      },
    ],
    [
      'the gradient of the weight, by 1e-4',
      ['layer'],
      ({ gradWeight }) => {
        scale(gradWeight, 1.0001);
      },
    ],
    [
      'one element of the weight that is missing',
      ['layer'],
      ({ gradWeight }) => {
        if (gradWeight) gradWeight[largest(gradWeight)] = 0;
      },
    ],
    [
      'an ignored row that is not quite 0',
      ['layer'],
      ({ gradHidden }) => {
        const row = found.batch.labels.indexOf(-100);
        if (gradHidden) gradHidden[row * 17] = -0;
      },
    ],
    [
      'a NaN',
      ['layer'],
      ({ gradHidden }) => {
        if (gradHidden) gradHidden[largest(gradHidden)] = NaN;
      },
    ],
    [
      'a gradient of a bias that is not there',
      ['layer'],
      (result) => {
        Object.assign(result, { gradBias: new Float32Array(31) });
      },
    ],
    [
      'no gradient of the weight',
      ['layer'],
      (result) => {
        Object.assign(result, { gradWeight: undefined });
      },
    ],
    [
      'the loss',
      ['loss'],
      (result) => {
        Object.assign(result, { loss: result.loss + 1e-5 });
      },
    ],
  ];
  test.each(errors)('%s', (_, kinds, alter) => {
    expect(caught(checkHiddenObjective(planted(alter), dpo, single))).toEqual(kinds);
  });

  test('in bfloat16: the gradient of the weight, by 2 %', () => {
    const tally = checkHiddenObjective(
      planted(({ gradWeight }) => {
        scale(gradWeight, 1.02);
      }),
      dpo,
      bfloat16,
    );
    expect(caught(tally)).toEqual(['layer']);
  });
});

describe('mixtures and losses of the caller', () => {
  const fields = prepare(batchNamed('scale, cap and temperature'));
  const weighted = prepare(batchNamed('weights of tokens'));

  test('nothing is found where nothing is wrong', () => {
    for (const config of mixtures)
      for (const prepared of [small, fields, weighted])
        expect(checkObjective(library, config, prepared).misses).toEqual([]);
    for (const { batch } of [small, fields, weighted])
      for (const one of backwardCases(batch))
        expect(checkBackward(backwardLibrary, one, prepareBackward(batch)).misses).toEqual([]);
  });

  test('a term that is off, and a gradient without it', () => {
    const [mpo = dpo] = mixtures;
    const part = faulty((result) => {
      const [first] = (result.terms ?? []) as unknown as { loss: number }[];
      if (first) first.loss *= 1 + 1e-4;
    });
    expect(caught(checkObjective(part, mpo, small))).toEqual(['loss']);
    const lacking: Library = {
      ...library,
      loss: (config, batch, run) => {
        const result = library.loss(config, batch, run);
        const own = library.loss(dpo, withFields(dpo, batch, 4), run);
        return { ...result, ...(own.gradLogits && { gradLogits: own.gradLogits }) };
      },
    };
    expect(caught(checkObjective(lacking, mpo, small))).toContain('others');
  });

  test('the baseline of kto and the mean reward of bco', () => {
    const lib = faulty(({ metrics }) => {
      Object.assign(metrics, { kl: 1, 'rewards/mean': 1 });
    });
    for (const method of ['kto', 'bco'] as const)
      expect(caught(checkObjective(lib, { method, beta: 0.1 }, small))).toEqual(['logps']);
  });

  test.each(['rows', 'sequences', 'entropy', 'rows, entropy'])(
    'logpsBackward by %s: an element, and what tokenLogps finds',
    (label) => {
      const one = backwardCases(small.batch).find((own) => own.label === label);
      if (!one) throw new Error(label);
      const prepared = prepareBackward(small.batch);
      const off: BackwardLibrary = {
        ...backwardLibrary,
        logpsBackward: ((...all: [never, never, never]) => {
          const result = backwardLibrary.logpsBackward(...all) as { gradLogits: Float32Array };
          scale(result.gradLogits, 1 + 1e-4);
          return result;
        }) as never,
      };
      expect(caught(checkBackward(off, one, prepared))).toContain('others');
      const wrong: BackwardLibrary = {
        ...backwardLibrary,
        tokenLogps: ((...all: [never, never]) => {
          const result = backwardLibrary.tokenLogps(...all) as unknown as { entropy: Float64Array };
          return { ...result, entropy: result.entropy.map((x) => x + 1e-4) };
        }) as never,
      };
      expect(caught(checkBackward(wrong, one, prepared))).toContain('logps');
    },
  );
});
