import { describe, expect, test } from 'vitest';
import {
  decodeBfloat16,
  decodeFloat16,
  Dual,
  exp,
  expm1,
  finiteDifference,
  log1mexp,
  logOdds,
  logSigmoid,
  type ReferenceConfig,
  referenceFromLogps,
  referenceHiddenLoss,
  referenceLogps,
  referenceLoss,
  referenceTokenLogps,
  relu,
  sigmoid,
  softplus,
} from '../../ts/verification/reference.js';
import type { LogitsBatch, LogpsBatch } from '../../ts/batch/types.js';
import { layerBatch, loadLayerCases } from '../support/hidden.js';
import { generator } from '../support/numbers.js';

function relativeError(actual: number, expected: number): number {
  return actual === expected ? 0 : Math.abs(actual - expected) / Math.abs(expected);
}

function largestError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const scale = Math.max(...Array.from(expected, Math.abs));
  return Math.max(
    ...Array.from(expected, (x, i) =>
      actual[i] === x ? 0 : Math.abs((actual[i] ?? NaN) - x) / scale,
    ),
  );
}

function softplusOf(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** Mean log-probabilities and their log(1 - p), over the range that language models have. */
function meanLogps(count: number): [a: number, lm: number][] {
  const random = generator(1);
  return Array.from({ length: count }, () => {
    const a = -(10 ** (3 * random() - 2));
    return [a, Math.log(-Math.expm1(a))];
  });
}

/** One pair without a reference, one token each: its mean log-probabilities are its sums. */
function onePair(config: ReferenceConfig, chosen: number, rejected: number): number {
  return referenceFromLogps(config, {
    logps: Float64Array.of(chosen, rejected),
    counts: Int32Array.of(1, 1),
  }).loss;
}

function randomLogps(seed: number, pairs: number): LogpsBatch {
  const random = generator(seed);
  const counts = Int32Array.from({ length: 2 * pairs }, () => 1 + Math.floor(20 * random()));
  const logps = Float64Array.from(counts, (n) => -n * (0.05 + 2 * random()));
  const reference = Float64Array.from(logps, (s) => s * (0.7 + 0.6 * random()));
  return { logps, counts, reference };
}

function randomBatch(
  seed: number,
  [sequences, tokens, vocab]: [number, number, number],
): LogitsBatch {
  const random = generator(seed);
  const rows = sequences * tokens;
  return {
    logits: Float32Array.from({ length: rows * vocab }, () => 6 * random() - 3),
    shape: [sequences, tokens, vocab],
    labels: Int32Array.from({ length: rows }, () =>
      random() < 0.3 ? -100 : Math.floor(vocab * random()),
    ),
    reference: Float64Array.from({ length: sequences }, () => -tokens * 2 * random()),
  };
}

const configs: ReferenceConfig[] = [
  { method: 'sft' },
  { method: 'sft', normalize: false },
  { method: 'sft', sftReduction: 'token' },
  { method: 'dpo', beta: 0.1 },
  { method: 'dpo', beta: 5, normalize: true, labelSmoothing: 0.2 },
  { method: 'dpo', beta: 0.3, divergence: 'forward_kl' },
  { method: 'dpo', beta: 0.3, divergence: 'js' },
  { method: 'dpo', beta: 0.3, divergence: 'alpha', alpha: 0.7 },
  { method: 'dpo', beta: 0.3, divergence: 'alpha', alpha: 0 },
  { method: 'dpo', beta: 0.1, referenceFree: true, sftWeight: 0.5 },
  { method: 'dpo', beta: 0.1, sftWeight: 1, sftReduction: 'token' },
  { method: 'ipo', beta: 0.05 },
  { method: 'ipo', beta: 0.5, normalize: true },
  { method: 'simpo', beta: 2.5, gamma: 1.2 },
  { method: 'simpo', beta: 2, labelSmoothing: 0.1, normalize: false },
  { method: 'orpo', beta: 0.3 },
  { method: 'orpo', beta: 1, lambda: 0.25, sftWeight: 1 },
  { method: 'orpo', beta: 1, normalize: false },
  { method: 'asft', beta: 0.3 },
  { method: 'asft', beta: 1, lambda: 0.25, sftWeight: 1, sftReduction: 'token' },
  { method: 'asft', beta: 2, normalize: false },
  { method: 'apo_zero', beta: 0.2 },
  { method: 'nca', beta: 0.2 },
  { method: 'cal_dpo', beta: 0.1 },
  { method: 'cal_dpo', beta: 0.1, calibrationWeight: 0.5, normalize: true },
  { method: 'hinge', beta: 0.2 },
  { method: 'robust', beta: 0.2 },
  { method: 'robust', beta: 0.2, labelSmoothing: 0.3 },
  { method: 'exo_pair', beta: 0.2 },
  { method: 'exo_pair', beta: 0.2, labelSmoothing: 0.1 },
  { method: 'bco_pair', beta: 0.2 },
  { method: 'sppo_hard', beta: 0.1 },
  { method: 'aot', beta: 0.2, labelSmoothing: 0.1 },
  { method: 'aot_unpaired', beta: 0.2, normalize: true },
  { method: 'discopop', beta: 0.1 },
  { method: 'discopop', beta: 0.1, tau: 0.5 },
  { method: 'apo_down', beta: 0.2 },
  { method: 'cpo', beta: 0.2, labelSmoothing: 0.1 },
  { method: 'alphapo', beta: 2.5 },
  { method: 'alphapo', beta: 2.5, alpha: -0.3, labelSmoothing: 0.1 },
  { method: 'alphapo', beta: 2.5, alpha: 0 },
  { method: 'r_dpo', beta: 0.1 },
  { method: 'r_dpo', beta: 0.1, alpha: 0.01, normalize: true },
  { method: 'dpop', beta: 0.2, penalty: 0.5 },
  { method: 'dpop', beta: 0.01 },
];

describe('decoders', () => {
  // Through the bits of a float32: a way that shares no arithmetic with the definition.
  const float32 = new Float32Array(1);
  const bits32 = new Uint32Array(float32.buffer);
  const fromBits = (bits: number): number => {
    bits32[0] = bits;
    return float32[0] ?? NaN;
  };

  test('bfloat16: all 65536 values are the upper halves of float32s', () => {
    for (let bits = 0; bits < 0x10000; bits++)
      expect(Object.is(decodeBfloat16(bits), fromBits(bits * 0x10000))).toBe(true);
  });

  test('float16: all 65536 values are float32s with a rebased exponent', () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const sign = bits & 0x8000 ? -1 : 1;
      const magnitude = bits & 0x7fff;
      // Shifted into a float32 the exponent is 112 too small, which one exact product mends,
      // subnormals included.
      const finite = fromBits(magnitude << 13) * 2 ** 112;
      const special = magnitude === 0x7c00 ? Infinity : NaN;
      expect(Object.is(decodeFloat16(bits), sign * (magnitude < 0x7c00 ? finite : special))).toBe(
        true,
      );
    }
  });
});

describe('dual numbers', () => {
  const functions: [name: string, f: (x: Dual) => Dual, points: number[]][] = [
    ['exp', exp, [-3, 0, 2]],
    ['expm1', expm1, [-3, 1e-3, 2]],
    ['sigmoid', sigmoid, [-20, -1, 0, 1, 5]],
    ['softplus', softplus, [-20, -1, 0, 1, 20]],
    ['logSigmoid', logSigmoid, [-20, -1, 0, 1, 20]],
    ['log1mexp', log1mexp, [-10, -1, -Math.LN2, -0.1, -1e-6, -1e-14]],
    ['logOdds', logOdds, [-30, -1, -0.1, -1e-6, -1e-14]],
    ['relu', relu, [-1, 1]],
    ['squared', (x) => x.squared(), [-2, 3]],
    ['product', (x) => exp(x).times(sigmoid(x)), [-2, 1]],
    ['difference', (x) => exp(x).minus(x.times(3)).plus(1), [-2, 1]],
  ];

  test.each(functions)('%s: derivative agrees with differences', (_, f, points) => {
    for (const x of points) {
      const { dChosen, dRejected } = f(new Dual(x, 1, -2));
      const bound = x < 0 ? 0 : Infinity;
      const { gradient } = finiteDifference(([y = NaN]) => f(new Dual(y)).value, [x], { bound });
      expect(relativeError(dChosen, gradient[0] ?? NaN)).toBeLessThan(1e-9);
      expect(dRejected).toBeCloseTo(-2 * dChosen, 12);
    }
  });

  test('near certainty the odds and their derivative keep all digits', () => {
    // 1 - e^a = x (1 - x/2 + ...) for a = -x, so that o = -log x - x/2 + ... and o' = 1/x + 1/2 +
    // ...
    for (const x of [1e-8, 1e-14, 1e-30]) {
      const o = logOdds(new Dual(-x, 1));
      expect(relativeError(o.value, -Math.log(x) - x / 2)).toBeLessThan(1e-15);
      expect(relativeError(o.dChosen, 1 / x + 0.5)).toBeLessThan(1e-15);
    }
  });

  test('certainty is clamped to 1e-37, for the value and the derivative', () => {
    for (const a of [0, -0, -1e-40, -1e-37]) {
      const o = logOdds(new Dual(a, 1));
      expect(relativeError(o.value, 37 * Math.LN10)).toBeLessThan(1e-15);
      expect(relativeError(o.dChosen, 1e37)).toBeLessThan(1e-15);
    }
  });

  test('the kink of max(0, x) has derivative 0, and NaN stays NaN', () => {
    expect(relu(new Dual(0, 1)).dChosen).toBe(0);
    expect(relu(new Dual(NaN, 1))).toEqual(new Dual(NaN, NaN, 0));
  });

  test('a derivative of 0 outweighs an infinite slope', () => {
    const infinite = exp(new Dual(Infinity, 0, 1));
    expect([infinite.value, infinite.dChosen, infinite.dRejected]).toEqual([Infinity, 0, Infinity]);
  });

  test('a product of numbers that are beyond float64 has the value it has', () => {
    for (const x of [700, 750, 1e4, 1e6]) {
      const product = exp(new Dual(x, 1)).times(exp(new Dual(-x, 1)));
      const slope = softplus(new Dual(-x, 1)).times(exp(new Dual(x)));
      for (const value of [product.value, product.dChosen / 2, slope.dChosen])
        expect(Math.abs(value - 1)).toBeLessThan(1e-15);
    }
    expect(exp(new Dual(-1e4)).value).toBe(0);
    expect(exp(new Dual(1e4)).minus(exp(new Dual(1e4 + 1e-3))).value).toBe(-Infinity);
    // Subnormal: rounded once.
    expect(exp(new Dual(-744.4400719213812)).value).toBe(5e-324);
  });
});

describe('identities between objectives', () => {
  const points = meanLogps(400);
  const each = (check: (aw: number, al: number, lmw: number, lml: number) => void): void => {
    points.forEach(([aw, lmw], i) => {
      const [al, lml] = points[(i * 7 + 3) % points.length] ?? [NaN, NaN];
      check(aw, al, lmw, lml);
    });
  };

  test('asft at beta 1 is -a_w - log(1 - p_l)', () => {
    each((aw, al, _, lml) => {
      expect(relativeError(onePair({ method: 'asft', beta: 1 }, aw, al), -aw - lml)).toBeLessThan(
        1e-14,
      );
    });
  });

  test('one-stage asft is -(1 + lambda) a_w - lambda log(1 - p_l)', () => {
    each((aw, al, _, lml) => {
      const loss = onePair({ method: 'asft', beta: 1, lambda: 0.3, sftWeight: 1 }, aw, al);
      expect(relativeError(loss, -1.3 * aw - 0.3 * lml)).toBeLessThan(1e-14);
    });
  });

  test('orpo is asft + lambda log(p_w (1 - p_l) + p_l (1 - p_w))', () => {
    each((aw, al, lmw, lml) => {
      const options = { beta: 1, lambda: 0.3, sftWeight: 1 };
      const difference =
        onePair({ method: 'orpo', ...options }, aw, al) -
        onePair({ method: 'asft', ...options }, aw, al);
      expect(difference).toBeCloseTo(0.3 * Math.log(Math.exp(aw + lml) + Math.exp(al + lmw)), 12);
    });
  });

  test('orpo is at most asft, for every beta', () => {
    for (const beta of [0.05, 0.2, 1, 2]) {
      each((aw, al) => {
        expect(onePair({ method: 'orpo', beta }, aw, al)).toBeLessThanOrEqual(
          onePair({ method: 'asft', beta }, aw, al),
        );
      });
    }
  });

  test('orpo tends to simpo with gamma 0 as probabilities vanish', () => {
    const simpo = onePair({ method: 'simpo', beta: 0.7, gamma: 0 }, -40, -41);
    expect(relativeError(onePair({ method: 'orpo', beta: 0.7 }, -40, -41), simpo)).toBeLessThan(
      1e-15,
    );
  });

  test('cal_dpo is dpo at beta 1 + sppo_hard', () => {
    const batch = randomLogps(2, 8);
    const loss = (config: ReferenceConfig): number => referenceFromLogps(config, batch).loss;
    const sum = loss({ method: 'dpo', beta: 1 }) + loss({ method: 'sppo_hard', beta: 0.1 });
    expect(relativeError(loss({ method: 'cal_dpo', beta: 0.1 }), sum)).toBeLessThan(1e-15);
  });

  test('nca is smallest in r_w at beta r_w = ln 2', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(-10 + Math.LN2 / 0.2, -10),
      counts: Int32Array.of(5, 5),
      reference: Float64Array.of(-10, -10),
    };
    expect(referenceFromLogps({ method: 'nca', beta: 0.2 }, batch).gradLogps[0]).toBeCloseTo(0, 15);
  });

  test('cpo is reference-free dpo; dpo with alpha 0 is dpo; alphapo with alpha 0 is simpo', () => {
    const batch = randomLogps(3, 4);
    const same = (a: ReferenceConfig, b: ReferenceConfig): void => {
      expect(referenceFromLogps(a, batch)).toEqual(referenceFromLogps(b, batch));
    };
    same({ method: 'cpo', beta: 0.3 }, { method: 'dpo', beta: 0.3, referenceFree: true });
    same({ method: 'dpo', beta: 0.3 }, { method: 'dpo', beta: 0.3, divergence: 'alpha', alpha: 0 });
    same(
      { method: 'simpo', beta: 3, gamma: 1 },
      { method: 'alphapo', beta: 3, gamma: 1, alpha: 0 },
    );
  });

  test('policy == reference: dpo ln 2, ipo 1 / (4 beta^2), apo_zero 1, nca 2 ln 2', () => {
    const { logps, counts } = randomLogps(4, 3);
    const loss = (method: ReferenceConfig['method']): number =>
      referenceFromLogps({ method, beta: 0.1 }, { logps, counts, reference: logps }).loss;
    expect(loss('dpo')).toBe(Math.LN2);
    expect(loss('ipo')).toBe(25);
    expect(loss('apo_zero')).toBe(1);
    expect(loss('nca')).toBe(2 * Math.LN2);
  });
});

describe('gradients', () => {
  test.each(configs.map((config) => [JSON.stringify(config), config] as const))(
    '%s',
    (_, config) => {
      const batch = randomLogps(5, 4);
      const { gradLogps } = referenceFromLogps(config, batch);
      const { gradient } = finiteDifference(
        (logps) => referenceFromLogps(config, { ...batch, logps }).loss,
        batch.logps,
      );
      expect(largestError(gradLogps, gradient)).toBeLessThan(1e-8);
    },
  );

  test('finite differences see slopes at both scales near 0', () => {
    // log-odds move over 1e-12, log-ratios over 1.
    const batch: LogpsBatch = {
      logps: Float64Array.of(-1e-12, -2),
      counts: Int32Array.of(1, 1),
      reference: Float64Array.of(-1, -1),
    };
    for (const method of ['asft', 'dpo'] as const) {
      const f = (logps: Float64Array): number =>
        referenceFromLogps({ method, beta: 0.5 }, { ...batch, logps }).loss;
      const { gradLogps } = referenceFromLogps({ method, beta: 0.5 }, batch);
      expect(largestError(finiteDifference(f, batch.logps).gradient, gradLogps)).toBeLessThan(1e-8);
    }
  });

  test.each(configs.map((config) => [JSON.stringify(config), config] as const))(
    'in the logits: %s',
    (_, config) => {
      const batch = randomBatch(6, [4, 3, 5]);
      const logits = Float64Array.from(batch.logits as Float32Array);
      // Float64 logits under the name of float32: differences need the digits.
      const loss = (x: Float64Array): number => {
        const named = Object.defineProperty(x, Symbol.toStringTag, {
          value: 'Float32Array',
        }) as unknown as Float32Array;
        return referenceLoss(config, { ...batch, logits: named }).loss;
      };
      const { gradient } = finiteDifference(loss, logits, { bound: Infinity, levels: 7 });
      expect(largestError(referenceLoss(config, batch).gradLogits, gradient)).toBeLessThan(1e-8);
    },
  );
});

describe('published numbers', () => {
  // Case ids are those of the reference vectors; sums, counts and reference are those of their
  // inputs.
  const tiny: LogpsBatch = {
    logps: Float64Array.of(
      -6.50336531588882,
      -5.605425456668887,
      -6.50121292395742,
      -0.9492342139813188,
    ),
    counts: Int32Array.of(4, 2, 5, 1),
    reference: Float64Array.of(
      -10.792168617248535,
      -4.204452037811279,
      -3.246511220932007,
      -0.47561711072921753,
    ),
  };
  const cases: [id: string, config: ReferenceConfig, loss: number, gradient: number[]][] = [
    [
      'tiny.dpo.ls0.1.b0.1.n0',
      { method: 'dpo', beta: 0.1, labelSmoothing: 0.1 },
      0.5961142096427284,
      [-0.010993704421042774, -0.02115836536153491, 0.010993704421042774, 0.02115836536153491],
    ],
    [
      'tiny.dpo_js.b0.1.n0',
      { method: 'dpo', beta: 0.1, divergence: 'js' },
      0.6347250533621753,
      [-0.00028340393837941193, -0.020723614680058275, 0.020159648926632422, 0.01591686470071422],
    ],
    [
      'tiny.simpo.g0.5.b2.n1',
      { method: 'simpo', beta: 2, gamma: 0.5 },
      2.8238645355395118,
      [-0.1899323937780568, -0.4926634460231058, 0.15194591502244542, 0.9853268920462116],
    ],
    [
      'tiny.apo_down.b0.1.n0',
      { method: 'apo_down', beta: 0.1 },
      0.9568402519480521,
      [0.0010646329886163037, -3.4298913623316984e-5, 0.01087773279888911, 0.012473163793783923],
    ],
    [
      'tiny.aot_unpaired.b0.1.n0',
      { method: 'aot_unpaired', beta: 0.1 },
      0.5439315231353763,
      [-0.019156995222128888, -0.022689452320810852, 0.022689452320810852, 0.019156995222128888],
    ],
    [
      'tiny.exo_pair.ls0.1.b0.1.n0',
      { method: 'exo_pair', beta: 0.1, labelSmoothing: 0.1 },
      0.3721122225628496,
      [-0.01569519867093703, -0.02856304876681706, 0.01569519867093703, 0.02856304876681706],
    ],
    [
      'tiny.discopop.b0.1.n0',
      { method: 'discopop', beta: 0.1 },
      0.6295792153614889,
      [-0.023515773379913032, 0.01168117259846299, 0.023515773379913032, -0.01168117259846299],
    ],
    [
      'tiny.alphapo.b0.1.n1',
      { method: 'alphapo', beta: 0.1, gamma: 0.5, alpha: 0.5 },
      1.1616113611095316,
      [-0.017986320934651325, -0.07402851030906168, 0.012227268707755898, 0.05860723873383618],
    ],
    [
      'tiny.dpop.b0.1.n0',
      { method: 'dpop', beta: 0.1, penalty: 0.5 },
      0.5816626780333058,
      [-0.015993704421042775, -0.04054548351994399, 0.015993704421042775, 0.02703032234662933],
    ],
  ];

  test.each(cases)('%s', (_, config, loss, gradient) => {
    const result = referenceFromLogps(config, tiny);
    expect(relativeError(result.loss, loss)).toBeLessThan(1e-14);
    expect(largestError(result.gradLogps, gradient)).toBeLessThan(1e-13);
  });

  test('tiny.orpo.one_token.b1.n1: losses per pair, with the batch likelihood in each', () => {
    const config = {
      method: 'orpo',
      beta: 1,
      lambda: 0.25,
      sftWeight: 1,
      sftReduction: 'token',
    } as const;
    const { loss, losses, gradLogps } = referenceFromLogps(config, tiny);
    expect(relativeError(loss, 2.4313241319086245)).toBeLessThan(1e-14);
    expect(largestError(losses, [2.250086961757851, 2.6125613020593974])).toBeLessThan(1e-14);
    const [dnll, aw, bw] = [-1 / 6, -0.02352095140668939, -0.06036311466704402];
    expect(
      largestError(gradLogps, [aw + dnll, bw + dnll, 0.020775153770930664, 0.18501084569250442]),
    ).toBeLessThan(1e-13);
  });

  test('tiny_det: coefficients where 1 - p is 1e-14', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(
        ...[
          -5.547409252452804e-14, -2.7018862957559146e-13, -1.4925523899059574e-10,
          -8.834041722477962e-8,
        ],
        ...[
          -4.747713280697803e-6, -0.0004597728579640065, -0.09807026638211741, -0.25320640731677774,
        ],
      ),
      counts: Int32Array.of(4, 2, 3, 5, 3, 3, 3, 1),
    };
    const orpo = referenceFromLogps({ method: 'orpo', beta: 1 }, batch).gradLogps;
    const asft = referenceFromLogps({ method: 'asft', beta: 0.1 }, batch).gradLogps;
    expect(relativeError(orpo[0] ?? NaN, -39492.66497477499)).toBeLessThan(1e-13);
    expect(relativeError(orpo[6] ?? NaN, 3.8793253752973295e-9)).toBeLessThan(1e-13);
    expect(relativeError(asft[0] ?? NaN, -17805169493.686943)).toBeLessThan(1e-13);
    expect(relativeError(asft[7] ?? NaN, 0.05935236585577626)).toBeLessThan(1e-13);
  });

  test('micro: from two rows of two logits', () => {
    const batch: LogitsBatch = {
      logits: Float32Array.of(
        -2.421659231185913,
        -2.7553963661193848,
        -1.5413490533828735,
        -0.11207999289035797,
      ),
      shape: [2, 1, 2],
      labels: Int32Array.of(0, 0),
    };
    const { logps, loss, gradLogits } = referenceLoss({ method: 'asft', beta: 1 }, batch);
    expect(largestError(logps, [-0.5401370356965144, -1.6439641490636487])).toBeLessThan(1e-15);
    expect(relativeError(loss, 0.7548321242676476)).toBeLessThan(1e-14);
    const p = Array.from(logps, Math.exp);
    const [w, l] = [-(1 - (p[0] ?? NaN)), 0.2394839065331904 * (1 - (p[1] ?? NaN))];
    expect(largestError(gradLogits, [w, -w, l, -l])).toBeLessThan(1e-13);
  });
});

describe('conventions', () => {
  const dpo = { method: 'dpo', beta: 0.1 } as const;

  test('a sequence without scored rows has score 0 that depends on nothing', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(-3, 0),
      counts: Int32Array.of(2, 0),
      reference: Float64Array.of(-4, -123),
    };
    const ratio = referenceFromLogps(dpo, batch);
    expect(ratio.loss).toBeCloseTo(softplusOf(-0.1), 15);
    expect(ratio.gradLogps[1]).toBe(0);
    expect(ratio.rewards[1]).toBe(0);
    const odds = referenceFromLogps({ method: 'asft', beta: 0.5 }, batch);
    const o = -1.5 - Math.log(-Math.expm1(-1.5));
    expect(odds.loss).toBeCloseTo(softplusOf(-0.5 * o) + Math.LN2, 14);
    expect(odds.gradLogps[1]).toBe(0);
  });

  test('aot: ties are ordered by pair, losses by rank', () => {
    const logps = Float64Array.of(-1, -1, -3, -2, -2, -2);
    const reference = Float64Array.of(-1, -1, -1, -1, -1, -1);
    const { losses, gradLogps } = referenceFromLogps(
      { method: 'aot_unpaired', beta: 1 },
      { logps, counts: new Int32Array(6).fill(1), reference },
    );
    // Ascending r_w: pairs 2, 0, 1; r_l: pairs 0, 1, 2.
    expect(Array.from(losses)).toEqual([softplusOf(1), softplusOf(-1), softplusOf(-1)]);
    expect(gradLogps[2]).toBe(-(gradLogps[3] ?? NaN));
    expect(gradLogps[0]).toBe(-(gradLogps[4] ?? NaN));
  });

  test('sft: losses of the token reduction are shares whose mean is the loss', () => {
    const batch: LogpsBatch = {
      logps: Float64Array.of(-3, -8, -1),
      counts: Int32Array.of(2, 4, 1),
    };
    const { loss, losses } = referenceFromLogps({ method: 'sft', sftReduction: 'token' }, batch);
    expect(loss).toBeCloseTo(12 / 7, 15);
    expect(losses[0]).toBeCloseTo((3 * 3) / 7, 15);
    expect(referenceFromLogps({ method: 'sft' }, batch).loss).toBeCloseTo((1.5 + 2 + 1) / 3, 15);
    expect(referenceFromLogps({ method: 'sft', normalize: false }, batch).loss).toBeCloseTo(4, 15);
  });

  test('coefficients leave the likelihood term out, gradLogits and gradLogps do not', () => {
    const batch = randomBatch(7, [4, 5, 6]);
    const config = { method: 'dpo', beta: 0.1, sftWeight: 0.5, normalize: true } as const;
    const full = referenceLoss(config, batch);
    expect(full.coefficients).toEqual(
      referenceLoss({ ...config, sftWeight: 0 }, batch).coefficients,
    );
    const { logps, counts } = referenceLogps(batch);
    const { gradLogps } = referenceFromLogps(config, {
      logps,
      counts,
      ...(batch.reference && { reference: batch.reference }),
    });
    gradLogps.forEach((g, b) => {
      const likelihood = b < 2 ? -0.5 / 2 / (counts[b] ?? NaN) : 0;
      expect(g).toBeCloseTo((full.coefficients[b] ?? NaN) + likelihood, 14);
    });
  });

  test('separate likelihood labels score their own rows of the chosen half', () => {
    const batch = randomBatch(8, [2, 4, 5]);
    const labels = Int32Array.of(-100, -100, 1, 2, -100, 0, 3, 4);
    const sftLabels = Int32Array.of(4, 3, 1, 2, -100, -100, -100, -100);
    const config = { method: 'orpo', beta: 1, sftWeight: 1, sftReduction: 'token' } as const;
    const { loss, gradLogits } = referenceLoss(config, { ...batch, labels, sftLabels });
    const nll = -(referenceLogps({ ...batch, labels: sftLabels }).logps[0] ?? NaN) / 4;
    expect(loss).toBeCloseTo(
      referenceLoss({ method: 'orpo', beta: 1 }, { ...batch, labels }).loss + nll,
      14,
    );
    expect(gradLogits[4]).toBeLessThan(0);
  });

  test('packed, strided and padded batches of the same rows agree', () => {
    const padded = randomBatch(9, [4, 3, 5]);
    const { logits, labels, reference } = padded as {
      logits: Float32Array;
      labels: Int32Array;
      reference: Float64Array;
    };
    const strided = new Float32Array(12 * 8).fill(NaN);
    for (let row = 0; row < 12; row++) strided.set(logits.subarray(row * 5, row * 5 + 5), row * 8);
    const expected = referenceLoss(dpo, padded);
    expect(referenceLoss(dpo, { ...padded, logits: strided, rowStride: 8 })).toEqual(expected);
    const offsets = Int32Array.of(0, 3, 6, 9, 12);
    expect(referenceLoss(dpo, { logits, shape: [12, 5], offsets, labels, reference })).toEqual(
      expected,
    );
  });

  test('the 16 bits of a logit mean what dtype says', () => {
    const batch = { shape: [1, 1, 2], labels: Int32Array.of(0) } as const;
    const logps = (logits: Uint16Array, dtype: 'float16' | 'bfloat16'): number | undefined =>
      referenceLogps({ ...batch, logits, dtype }).logps[0];
    expect(logps(Uint16Array.of(0x3c00, 0x4000), 'float16')).toBeCloseTo(-softplusOf(1), 15);
    expect(logps(Uint16Array.of(0x3f80, 0x4000), 'bfloat16')).toBeCloseTo(-softplusOf(1), 15);
  });

  test('token log-probabilities, logsumexp and entropy', () => {
    const logits = Float32Array.of(
      1,
      1,
      1,
      1,
      0,
      -Infinity,
      0,
      -Infinity,
      40,
      0,
      0,
      0,
      NaN,
      NaN,
      NaN,
      NaN,
    );
    const { logps, logsumexp, entropy } = referenceTokenLogps({
      logits,
      shape: [1, 4, 4],
      labels: Int32Array.of(2, 0, 0, -100),
    });
    const rest = 3 * Math.exp(-40);
    expect(largestError(logps, [-Math.log(4), -Math.LN2, -rest, 0])).toBeLessThan(1e-15);
    expect(relativeError(logps[2] ?? NaN, -rest)).toBeLessThan(1e-15);
    expect(largestError(logsumexp, [1 + Math.log(4), Math.LN2, 40, 0])).toBeLessThan(1e-15);
    expect(relativeError(entropy[2] ?? NaN, rest + 40 * rest)).toBeLessThan(1e-14);
    expect(entropy[0]).toBeCloseTo(Math.log(4), 15);
  });

  test('one class, a certain label, an impossible label', () => {
    const row = (...logits: number[]): number | undefined =>
      referenceLogps({
        logits: Float32Array.from(logits),
        shape: [1, 1, logits.length],
        labels: Int32Array.of(0),
      }).logps[0];
    expect(row(5)).toBe(0);
    expect(row(1e4, -1e4)).toBe(0);
    expect(row(-Infinity, 0)).toBe(-Infinity);
    for (const bad of [
      row(NaN, 0),
      row(0, NaN),
      row(Infinity, 0),
      row(0, Infinity),
      row(-Infinity, -Infinity),
    ])
      expect(bad).toBeNaN();
  });

  test('NaN stays in its pair, and ignored rows are never read', () => {
    const batch = randomBatch(10, [6, 2, 4]);
    const labels = Int32Array.from({ length: 12 }, (_, row) => (row % 2 === 0 ? -100 : 1));
    const logits = Float32Array.from(batch.logits as Float32Array, (z, i) =>
      Math.floor(i / 4) % 2 === 0 ? NaN : z,
    );
    const expected = referenceLoss(dpo, { ...batch, labels });
    expect(referenceLoss(dpo, { ...batch, labels, logits })).toEqual(expected);
    logits[4 * 3] = NaN;
    const poisoned = referenceLoss(dpo, { ...batch, labels, logits });
    expect(poisoned.loss).toBeNaN();
    expect(poisoned.losses[1]).toBeNaN();
    for (const pair of [0, 2]) expect(poisoned.losses[pair]).toBe(expected.losses[pair]);
    for (const row of [1, 5, 7, 11]) {
      const [from, to] = [4 * row, 4 * row + 4];
      expect(poisoned.gradLogits.slice(from, to)).toEqual(expected.gradLogits.slice(from, to));
    }
  });

  test.each([
    [{ method: 'dpo' }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'dpo', beta: 0 }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'dpo', beta: 1, gamma: 1 }, 'ERR_DIRALIGN_OPTION'],
    [{ method: 'nothing' as 'dpo', beta: 1 }, 'ERR_DIRALIGN_OPTION'],
  ] satisfies [ReferenceConfig, string][])('%j is refused', (config, code) => {
    expect(() => referenceFromLogps(config, randomLogps(11, 2))).toThrow(
      expect.objectContaining({ code }) as Error,
    );
  });
});

describe('output layers', () => {
  // Of published implementations, and in 120 digits; the gradients are stored in float32.
  test.each(loadLayerCases().map((c) => [c.id, c] as const))('%s', (_, c) => {
    const { loss, logps, gradHidden, gradWeight, gradBias } = referenceHiddenLoss(
      c.call,
      layerBatch(c),
    );
    expect(Math.abs(loss - c.loss)).toBeLessThan(1e-12 * Math.max(1, Math.abs(c.loss)));
    logps.forEach((logp, b) => {
      expect(Math.abs(logp - (c.input.logps[b] ?? NaN))).toBeLessThan(1e-12 * Math.abs(logp));
    });
    const pairs = [
      [gradHidden, c.gradients.hidden],
      [gradWeight, c.gradients.weight],
      [gradBias, c.gradients.bias],
    ] as const;
    for (const [own, expected] of pairs) {
      if (!expected) continue;
      const largest = expected.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      const wrong = own.findIndex(
        (x, i) => !(Math.abs(x - (expected[i] ?? NaN)) <= 2 ** -24 * Math.abs(x) + 1e-13 * largest),
      );
      expect(wrong).toBe(-1);
    }
  });

  test('a batch of another size, and of another type, is refused', () => {
    const batch = {
      hidden: new Float32Array(6),
      weight: new Float32Array(6),
      shape: [2, 1, 2] as const,
      labels: Int32Array.of(0, 1),
    };
    const call = { method: 'cpo', beta: 1 } as const;
    expect(referenceHiddenLoss(call, batch).gradBias).toHaveLength(2);
    expect(() => referenceHiddenLoss(call, { ...batch, hidden: new Float32Array(5) })).toThrow(
      'hidden: 5',
    );
    expect(() => referenceHiddenLoss(call, { ...batch, hiddenSize: 2 })).toThrow('hidden: 6');
    expect(() => referenceHiddenLoss(call, { ...batch, bias: new Float32Array(3) })).toThrow(
      'bias: 3',
    );
    expect(() => referenceHiddenLoss(call, { ...batch, weight: new Uint16Array(6) })).toThrow(
      'weight: a Uint16Array',
    );
  });
});
