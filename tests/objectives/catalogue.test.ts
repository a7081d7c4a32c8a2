// The catalogue: complete, frozen, and the same in the addon, in the generated types and in what an
// objective shows of itself.
import fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { contract, contractHash } from '../../ts/contract.generated.js';
import { dirAlignLoss, methods, type MethodInfo } from '../../ts/index.js';
import { native } from '../../ts/native/interface.js';

/**
 * Per method: family, ranking, needs a reference, normalises, and its own options with their
 * defaults.
 */
const expected: [
  string,
  'paper' | 'wider',
  MethodInfo['ranking'],
  boolean,
  boolean,
  Record<string, number | string>,
][] = [
  ['sft', 'paper', 'likelihood', false, true, {}],
  [
    'dpo',
    'paper',
    'pairwise',
    true,
    false,
    { labelSmoothing: 0, divergence: 'reverse_kl', alpha: 0.5 },
  ],
  ['ipo', 'paper', 'pairwise', true, false, {}],
  ['simpo', 'paper', 'pairwise', false, true, { labelSmoothing: 0, gamma: 0.5 }],
  ['orpo', 'paper', 'pairwise', false, true, { lambda: 1 }],
  ['asft', 'paper', 'pointwise', false, true, { lambda: 1 }],
  ['apo_zero', 'paper', 'pointwise', true, false, {}],
  ['nca', 'paper', 'pointwise', true, false, {}],
  ['cal_dpo', 'paper', 'pointwise', true, false, { calibrationWeight: 1 }],
  ['hinge', 'wider', 'pairwise', true, false, {}],
  ['robust', 'wider', 'pairwise', true, false, { labelSmoothing: 0.1 }],
  ['exo_pair', 'wider', 'pairwise', true, false, { labelSmoothing: 0.001 }],
  ['bco_pair', 'wider', 'pointwise', true, false, {}],
  ['sppo_hard', 'wider', 'pointwise', true, false, {}],
  ['aot', 'wider', 'pairwise', true, false, { labelSmoothing: 0 }],
  ['aot_unpaired', 'wider', 'pairwise', true, false, { labelSmoothing: 0 }],
  ['discopop', 'wider', 'pairwise', true, false, { tau: 0.05 }],
  ['apo_down', 'wider', 'pointwise', true, false, {}],
  ['cpo', 'wider', 'pairwise', false, false, { labelSmoothing: 0 }],
  ['alphapo', 'wider', 'pairwise', false, true, { labelSmoothing: 0, gamma: 0.5, alpha: 0.25 }],
  ['r_dpo', 'wider', 'pairwise', true, false, { alpha: 0.05 }],
  ['dpop', 'wider', 'pairwise', true, false, { penalty: 50 }],
  ['kto', 'wider', 'pointwise', true, false, { desirableWeight: 1, undesirableWeight: 1 }],
  [
    'apo_zero_unpaired',
    'wider',
    'pointwise',
    true,
    false,
    { desirableWeight: 1, undesirableWeight: 1 },
  ],
  ['bco', 'wider', 'pointwise', true, false, { desirableWeight: 1, undesirableWeight: 1 }],
  ['simper', 'wider', 'pairwise', false, true, {}],
  ['plackett_luce', 'wider', 'listwise', true, false, {}],
  ['info_nca', 'wider', 'listwise', true, false, { rewardTemperature: 1 }],
  ['nca_listwise', 'wider', 'pointwise', true, false, { rewardTemperature: 1 }],
];

test("the generated catalogue is the addon's", () => {
  expect(contract).toEqual(JSON.parse(native().contract));
  expect(native().revision).toBe(contractHash);
});

test('every method, in order', () => {
  expect(methods().map((m) => m.name)).toEqual(expected.map(([name]) => name));
});

test('pages that count the methods', () => {
  for (const page of ['docs/index.md', 'CHANGELOG.md']) {
    const text = fs.readFileSync(new URL(`../../${page}`, import.meta.url), 'utf8');
    const counted = [...text.matchAll(/(\d+) (?:methods|direct alignment losses)/g)];
    expect(counted.map(([, number]) => Number(number))).toEqual([methods().length]);
  }
});

/** None of their sequences is the chosen one, which a likelihood term is of. */
const ofGroups = ['plackett_luce', 'info_nca', 'nca_listwise'];

describe.each(expected)('%s', (name, family, ranking, reference, normalize, own) => {
  const info = methods().find((m) => m.name === name);
  const defaults = {
    ...own,
    ...(reference ? { referenceFree: false } : {}),
    ...(ofGroups.includes(name) ? {} : { sftReduction: 'sequence' }),
    ...(name === 'sft' || ofGroups.includes(name) ? {} : { sftWeight: 0 }),
  };

  test('is described', () => {
    expect(info).toMatchObject({ name, family, ranking, reference, normalize });
    expect(info?.batchCoupled).toBe(name.startsWith('aot'));
    expect(info?.score).not.toBe('');
    expect(info?.formula).not.toBe('');
    expect(info?.source).not.toBe('');
  });

  test('its options and their defaults', () => {
    const options = Object.fromEntries(
      Object.entries(info?.options ?? {}).map(([key, option]) => [key, option.default]),
    );
    expect(options).toEqual(defaults);
    for (const option of Object.values(info?.options ?? {})) expect(option.meaning).not.toBe('');
  });

  test('an objective shows its settings, and nothing else', () => {
    const settings = {
      method: name,
      beta: name === 'sft' || name === 'simper' ? undefined : 0.25,
      normalize,
      ...defaults,
    };
    const positional = dirAlignLoss(name as 'dpo', 0.25);
    const named = dirAlignLoss({ method: name as 'dpo', beta: 0.25 });
    for (const objective of [positional, named]) {
      expect(objective).toBeTypeOf('function');
      const shown = Object.entries(objective).filter(
        ([key]) => !['async', 'fromHidden', 'fromLogps', 'window'].includes(key),
      );
      expect(Object.fromEntries(shown)).toEqual(settings);
    }
    expect(dirAlignLoss(name as 'dpo', 0.25, !normalize).normalize).toBe(!normalize);
  });
});

test('the catalogue and objectives cannot be changed', () => {
  const thawed: string[] = [];
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return;
    if (!Object.isFrozen(value)) thawed.push(path);
    for (const [key, child] of Object.entries(value)) visit(child, `${path}.${key}`);
  };
  visit(methods(), 'methods()');
  expect(thawed).toEqual([]);

  const objective = dirAlignLoss('dpo', 0.1);
  expect(Object.isFrozen(objective)).toBe(true);
  expect(() => Object.assign(objective, { beta: 1 })).toThrow(TypeError);
  expect(objective.beta).toBe(0.1);
});
