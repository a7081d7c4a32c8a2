// The fields of a batch as `diralign loss` and `verify` have them of a file.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dirAlignLoss, methods, type LogitsBatch, type ObjectiveCalls } from '../../ts/index.js';
import { readBatch, writeSafetensors, type WritableTensor } from '../../ts/safetensors.js';
import { checkedBatch, fileBatch } from '../../ts/cli/verify-plans.js';
import type { LossConfig } from '../../ts/verification/objectives.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import {
  checkObjective,
  library,
  prepare,
  withFields,
  type Library,
} from '../../ts/verification/verification.js';
import { compileProgram, diralign, output, refusal } from '../support/cli.js';
import { expectNear } from '../support/near.js';
import { bytes, floats, long, scalar, singles, whole } from '../support/tensors.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-fields-'));
beforeAll(compileProgram, 120_000);
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

type Tensors = Readonly<Record<string, WritableTensor>>;

/** Four sequences of two tokens, over a vocabulary of three. */
const tiny: LogitsBatch & { readonly reference: Float64Array } = {
  logits: Float32Array.from({ length: 24 }, (_, i) => Math.sin(i)),
  shape: [4, 2, 3],
  labels: Int32Array.of(0, 1, 2, -100, 1, 0, 2, 2),
  reference: Float64Array.of(-2, -1, -2.5, -2),
};
const rows: Tensors = {
  logits: { dtype: 'F32', shape: tiny.shape, data: tiny.logits },
  labels: { dtype: 'I32', shape: [4, 2], data: tiny.labels },
  reference: floats(...tiny.reference),
};

let files = 0;
function write(tensors: Tensors): string {
  const file = path.join(folder, `${++files}.safetensors`);
  writeSafetensors(file, tensors);
  return file;
}

interface ResultJson {
  readonly method?: string;
  readonly unit: string;
  readonly beta?: number;
  readonly betaSource?: string;
  readonly loss: number;
  readonly losses: readonly number[];
  readonly terms?: readonly { readonly method: string; readonly loss: number }[];
  readonly metrics: Readonly<Record<string, number>>;
}
interface LossJson {
  readonly batch: { readonly fields: readonly string[]; readonly groups?: number };
  readonly results: readonly ResultJson[];
  readonly skipped: readonly { readonly method: string; readonly reason: string }[];
}
const lossJson = (...args: string[]): LossJson =>
  JSON.parse(output('loss', ...args, '--json')) as LossJson;

const groups = whole(0, 1, 4);
/** What a call is given by the file, and by a program. */
const cases: readonly {
  readonly call: string;
  readonly objective: ObjectiveCalls;
  readonly file: Tensors;
  readonly fields: object;
}[] = [
  {
    call: 'kto --beta 0.5',
    objective: dirAlignLoss('kto', 0.5),
    file: { desirable: bytes('U8', 1, 0, 0, 1), kl: scalar(0.25) },
    fields: { desirable: [true, false, false, true], kl: 0.25 },
  },
  {
    call: 'kto --beta 0.5 --undesirable-weight 2',
    objective: dirAlignLoss('kto', 0.5, false, { undesirableWeight: 2 }),
    file: {
      desirable: bytes('BOOL', 1, 0, 0, 1),
      'kl.logps': floats(-3, -4),
      'kl.reference': singles([2], -3.5, -5),
    },
    fields: {
      desirable: Uint8Array.of(1, 0, 0, 1),
      kl: { logps: [-3, -4], reference: [-3.5, -5] },
    },
  },
  {
    call: 'bco --beta 0.5',
    objective: dirAlignLoss('bco', 0.5),
    file: {
      desirable: long(0n, 1n, 1n, 0n),
      shift: singles([1], -0.5),
      weights: floats(1, 2, 0, 1),
    },
    fields: { desirable: [false, true, true, false], shift: -0.5, weights: [1, 2, 0, 1] },
  },
  {
    call: 'apo_zero_unpaired --beta 0.5',
    objective: dirAlignLoss('apo_zero_unpaired', 0.5),
    file: { desirable: whole(1, 1, 0, 0), denominator: scalar(8) },
    fields: { desirable: [true, true, false, false], denominator: 8 },
  },
  {
    call: 'plackett_luce --beta 0.5',
    objective: dirAlignLoss('plackett_luce', 0.5),
    file: { groups: long(0n, 1n, 4n), ranks: long(1n, 3n, -2n, 0n), weights: floats(2, 3) },
    fields: { groups: Int32Array.of(0, 1, 4), ranks: [1, 3, -2, 0], weights: [2, 3] },
  },
  {
    call: 'info_nca --beta 0.5 --reward-temperature 2',
    objective: dirAlignLoss('info_nca', 0.5, false, { rewardTemperature: 2 }),
    file: { groups, rewards: floats(0, 1, 3, 2) },
    fields: { groups: Int32Array.of(0, 1, 4), rewards: [0, 1, 3, 2] },
  },
  {
    call: 'dpo --beta 0.5',
    objective: dirAlignLoss('dpo', 0.5),
    file: { weights: floats(1, 3), margins: floats(0.5, -1), preferences: singles([2], 1, 0.75) },
    fields: { weights: [1, 3], margins: [0.5, -1], preferences: [1, 0.75] },
  },
  {
    call: 'ipo --beta 0.5',
    objective: dirAlignLoss('ipo', 0.5),
    file: { targets: floats(1, 2) },
    fields: { targets: [1, 2] },
  },
  {
    call: 'simpo --beta 0.5 --sft-weight 1 --sft-reduction token',
    objective: dirAlignLoss('simpo', 0.5, true, { sftWeight: 1, sftReduction: 'token' }),
    file: {
      tokenWeights: { ...floats(1, 0.5, 2, 0, 1, 1, 0.25, 1), shape: [4, 2] },
      sftDenominator: scalar(5),
    },
    fields: { tokenWeights: [1, 0.5, 2, 0, 1, 1, 0.25, 1], sftDenominator: 5 },
  },
  {
    call: 'orpo --beta 0.5',
    objective: dirAlignLoss('orpo', 0.5),
    file: { logitScale: scalar(0.5), logitSoftcap: scalar(2), temperature: scalar(0.75) },
    fields: { logitScale: 0.5, logitSoftcap: 2, temperature: 0.75 },
  },
];

const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
const renamed = (tensors: Tensors): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [snake(name), tensor]));

describe('fields of a file', () => {
  test('the cases have every field of every method', () => {
    const there = new Set(cases.flatMap(({ fields }) => Object.keys(fields)));
    const all = methods().flatMap(({ fields }) => Object.keys(fields));
    expect([...new Set([...all, 'groups'])].filter((name) => !there.has(name))).toEqual([]);
  });

  test.each(cases)(
    '$call: the numbers are those of a program',
    ({ call, objective, file, fields }) => {
      const { loss, losses, metrics } = objective({ ...tiny, ...fields });
      for (const tensors of [file, renamed(file)]) {
        const { results, batch } = lossJson(...call.split(' '), write({ ...rows, ...tensors }));
        expect(results).toMatchObject([{ loss, losses: [...losses], metrics }]);
        expect([...batch.fields].sort()).toEqual(Object.keys(fields).sort());
      }
      // Without them it is another loss, or none.
      const bare = diralign(['loss', ...call.split(' '), write(rows), '--json']);
      const { method } = objective as unknown as { readonly method: string };
      const taken = methods().find(({ name }) => name === method);
      const lacks = Object.values(taken?.fields ?? {}).some(({ needed }) => needed);
      expect([taken?.name, bare.status]).toEqual([method, lacks ? 1 : 0]);
      if (lacks) expect(bare.stderr).toContain(`'${method}' needs`);
      else expect((JSON.parse(bare.stdout) as LossJson).results[0]?.loss).not.toBe(loss);
    },
  );

  test('packed: a weight per row', () => {
    const weights = [1, 0.5, 2, 0, 1, 1, 0.25, 1];
    const file = write({
      logits: { ...(rows.logits as WritableTensor), shape: [8, 3] },
      labels: { ...(rows.labels as WritableTensor), shape: [8] },
      offsets: whole(0, 2, 4, 6, 8),
      token_weights: floats(...weights),
    });
    expect(lossJson('simpo', file).results[0]?.loss).toBe(
      dirAlignLoss('simpo', 2)({ ...tiny, tokenWeights: weights }).loss,
    );
  });

  test.each<[string, Tensors, RegExp]>([
    [
      'desirable of floats',
      { desirable: floats(1, 0, 0, 1) },
      /"desirable": dtype F64; expected U8/,
    ],
    [
      'desirable of three',
      { desirable: bytes('U8', 1, 0, 0) },
      /"desirable": shape \[3\]; expected \[4\]/,
    ],
    [
      'a 2 among them',
      { desirable: bytes('U8', 1, 0, 2, 1) },
      /"desirable": element 2 is 2; expected 0/,
    ],
    ['one beyond 32 bits', { desirable: long(0n, 1n, 2n ** 32n, 1n) }, /element 2 is 4294967296/],
    ['ranks of floats', { ranks: floats(0, 1, 2, 3) }, /"ranks": dtype F64; expected I32 or I64/],
    [
      'ranks beyond 32 bits',
      { ranks: long(0n, 1n, 2n, -(2n ** 40n)) },
      /"ranks": element 3 is -109/,
    ],
    [
      'rewards of integers',
      { rewards: whole(0, 1, 2, 3) },
      /"rewards": dtype I32; expected F32 or F64/,
    ],
    ['rewards of two', { rewards: floats(0, 1) }, /"rewards": shape \[2\]; expected \[4\]/],
    [
      'weights of three',
      { weights: floats(1, 1, 1) },
      /"weights": shape \[3\]; expected \[4\] or \[2\]/,
    ],
    ['a column of weights', { weights: singles([4, 1], 1, 1, 1, 1) }, /"weights": shape \[4, 1\]/],
    [
      'two denominators',
      { denominator: floats(1, 2) },
      /"denominator": shape \[2\]; expected \[\] or \[1\]/,
    ],
    ['a shift of integers', { shift: whole(1) }, /"shift": dtype I32; expected F32 or F64/],
    [
      'flat weights of rows',
      { token_weights: floats(...Array<number>(8).fill(1)) },
      /"token_weights": shape \[8\]; expected \[4, 2\]/,
    ],
    [
      'both spellings',
      { tokenWeights: scalar(1), token_weights: scalar(1) },
      /"token_weights": there is "tokenWeights", too/,
    ],
    [
      'groups that stand still',
      { groups: whole(0, 2, 2, 4) },
      /"groups": expected offsets .* from 0 to 4/,
    ],
    ['groups that end early', { groups: whole(0, 2) }, /"groups": expected offsets/],
    ['no groups', { groups: whole() }, /"groups": expected offsets/],
    ['half a baseline', { 'kl.logps': floats(1) }, /"kl.reference" is missing/],
    ['two baselines', { kl: scalar(1), 'kl.logps': floats(1) }, /"kl": there is "kl.logps", too/],
    [
      'baselines of two lengths',
      { 'kl.logps': floats(1), 'kl.reference': floats(1, 2) },
      /"kl.reference": shape \[2\]; expected \[1\]/,
    ],
    ['two temperatures', { temperature: floats(1, 2) }, /"temperature": shape \[2\]/],
  ])('%s: refused by the name of the tensor', (_, tensors, message) => {
    expect(() => readBatch(write({ ...rows, ...tensors }))).toThrow(message);
  });

  test('one method is given all, and refuses; of several each is given what it takes', () => {
    const file = write({ ...rows, margins: floats(1, 1), desirable: bytes('U8', 1, 0, 0, 1) });
    const line = refusal(1, 'loss', 'dpo', file);
    expect(line).toContain("desirable: 'dpo' gives it no meaning");
    expect(line).toContain(path.basename(file));
    const { results } = lossJson('dpo,nca,apo_zero_unpaired', file);
    const { desirable, ...paired } = {
      ...tiny,
      margins: [1, 1],
      desirable: [true, false, false, true],
    };
    expect(results.map(({ loss }) => loss)).toEqual([
      dirAlignLoss('dpo', 0.1)(paired).loss,
      dirAlignLoss('nca', 0.1)(tiny).loss,
      dirAlignLoss('apo_zero_unpaired', 0.1)({ ...tiny, desirable }).loss,
    ]);
    const bad = write({ ...rows, margins: floats(1, NaN) });
    expect(refusal(1, 'loss', 'dpo', bad)).toContain('margins[1]: NaN is not a finite number');
    expect(refusal(1, 'loss', 'dpo', write({ ...rows, temperature: scalar(0) }))).toContain(
      'temperature: 0',
    );
  });

  test('all leaves out what lacks something, and says why; a name is refused', () => {
    const file = write({
      ...rows,
      desirable: bytes('U8', 1, 0, 0, 1),
      weights: floats(1, 2, 1, 1),
    });
    const { results, skipped } = lossJson(file);
    expect(results.map(({ method }) => method)).toEqual([
      ...['sft', 'aot', 'aot_unpaired', 'apo_zero_unpaired', 'bco'],
    ]);
    const reasons = Object.fromEntries(skipped.map(({ method, reason }) => [method, reason]));
    expect(reasons).toMatchObject({
      kto: 'the batch has no kl',
      plackett_luce: 'the batch has no groups and no ranks',
      info_nca: 'the batch has no groups and no rewards',
      dpo: 'the batch has 4 weights and 2 pairs',
    });
    expect(output('loss', file)).toContain('Left out, for the batch has no kl: kto.');
    expect(refusal(1, 'loss', 'sft,kto', file)).toContain(
      `kl: 'kto' needs it; add a tensor "kl", or "kl.logps" and "kl.reference"`,
    );
    expect(refusal(1, 'loss', 'plackett_luce', file)).toContain('a tensor "groups"');
    expect(refusal(1, 'loss', 'dpo,sft', file)).toContain('4 weights and 2 pairs');
    const odd = write({
      logits: singles([3, 1, 2], 0, 1, 2, 3, 4, 5),
      labels: { ...whole(0, 1, 0), shape: [3, 1] },
    });
    expect(lossJson(odd).results.map(({ method }) => method)).toEqual(['sft']);
    expect(lossJson(odd).skipped).toContainEqual({
      method: 'simpo',
      reason: 'the batch has 3 sequences, which are no pairs',
    });
  });

  test('numbers of sequences, with what is desirable; of groups, with the best', () => {
    const single = output('loss', 'bco', write({ ...rows, desirable: bytes('U8', 1, 0, 0, 1) }));
    expect(single).toContain('4 sequences, 7 scored tokens of 8');
    expect(single).toMatch(/^sequence +desirable +loss +tokens +logp +reward +dloss\/dlogp$/m);
    expect(
      [...single.matchAll(/^ +(\d) +(yes|no) /gm)].map(([, i, word]) => `${i ?? ''} ${word ?? ''}`),
    ).toEqual([...['0 yes', '1 no', '2 no', '3 yes']]);
    const file = write({ ...rows, groups, rewards: floats(0, 1, 3, 2) });
    const listed = output('loss', 'nca_listwise', file);
    expect(listed).toContain('2 groups of 4 sequences');
    const lines = [...listed.matchAll(/^ +(\d) +(\d) +([\d.e-]+) +(\d) /gm)].map((match) =>
      match.slice(1),
    );
    const [result] = lossJson('nca_listwise', file).results;
    expect(lines.map(([g, size, , best]) => [g, size, best])).toEqual([
      ['0', '1', '0'],
      ['1', '3', '2'],
    ]);
    lines.forEach(([, , loss], g) => {
      // As many digits as are printed.
      expectNear('loss', [Number(loss)], [result?.losses[g] ?? NaN], 1e-3);
    });
    expect(result?.unit).toBe('group');
  });
});

describe('verify of files with fields', () => {
  test('reference values are those of the fields; every method is checked', () => {
    const file = write({
      ...rows,
      ...{ desirable: bytes('BOOL', 1, 0, 0, 1), kl: scalar(0.25), weights: floats(1, 2, 1, 0) },
      ...{ groups, rewards: floats(0, 1, 3, 2), margins: floats(1, -1) },
    });
    const expected = file.replace('.safetensors', '.expected.json');
    const { loss } = dirAlignLoss(
      'kto',
      0.5,
    )({
      ...{ ...tiny, desirable: [true, false, false, true], kl: 0.25 },
      weights: [1, 2, 1, 0],
    });
    const verify = (cases: readonly object[], asked = 'kto') => {
      fs.writeFileSync(expected, JSON.stringify({ cases }));
      return diralign(['verify', file, '--method', asked]);
    };
    const call = { method: 'kto', beta: 0.5 };
    expect(verify([{ call, loss }], 'kto,nca_listwise,dpo')).toMatchObject({ status: 0 });
    expect(verify([{ call, loss: loss + 0.01 }]).stdout).toMatch(/FAIL expected values 0: kto/);
    const { stderr } = verify([{ call: { method: 'plackett_luce', beta: 0.5 }, loss }]);
    expect(stderr).toContain('cases[0].call: the batch has no ranks');
  });

  /** A library that does not look at the file's fields but at what a check would make up. */
  const blind: Library = {
    ...library,
    loss: (config, batch, run) => {
      const { tokenWeights, logitScale, logitSoftcap, temperature } = batch;
      const { logits, dtype, shape, offsets, labels, reference } = batch;
      const rows = { logits, dtype, shape, offsets, labels, reference };
      const bare = { ...rows, tokenWeights, logitScale, logitSoftcap, temperature };
      return library.loss(config, withFields(config, bare, 4), run);
    },
  };

  test.each<[string, LossConfig, Tensors]>([
    ['desirable', { method: 'bco', beta: 0.5 }, { desirable: bytes('U8', 0, 1, 1, 0) }],
    ['kl', { method: 'kto', beta: 0.5 }, { kl: scalar(0.75) }],
    [
      'kl of completions',
      { method: 'kto', beta: 0.5 },
      { 'kl.logps': floats(-3, -4), 'kl.reference': floats(-3.5, -5) },
    ],
    ['shift', { method: 'bco', beta: 0.5, undesirableWeight: 2 }, { shift: scalar(0.75) }],
    ['groups', { method: 'nca_listwise', beta: 0.5 }, { groups: whole(0, 2, 4) }],
    ['ranks', { method: 'plackett_luce', beta: 0.5 }, { groups, ranks: whole(0, 1, 2, 3) }],
    ['rewards', { method: 'info_nca', beta: 0.5 }, { groups, rewards: floats(0, 1, 3, 2) }],
    ['margins', { method: 'dpo', beta: 0.5, labelSmoothing: 0.1 }, { margins: floats(2, -1) }],
    ['preferences', { method: 'cpo', beta: 0.5, normalize: true }, { preferences: floats(1, 0.3) }],
    ['targets', { method: 'ipo', beta: 0.5, normalize: true }, { targets: floats(2, 1) }],
    ['denominator', { method: 'hinge', beta: 0.5, normalize: true }, { denominator: scalar(8) }],
    [
      'weights',
      [{ weight: 1, config: { method: 'kto', beta: 0.5 } }],
      { weights: floats(1, 2, 0, 3) },
    ],
  ])('%s of the file, and no others, are what is checked', (name, config, tensors) => {
    const { batch, isChecked } = fileBatch(write({ ...rows, ...tensors }));
    expect(isChecked(config)).toBe(true);
    const given = { ...prepare(batch), batch: checkedBatch(config, batch) };
    expect(checkObjective(library, config, given).misses).toEqual([]);
    expect(checkObjective(blind, config, given).count, name).toBeGreaterThan(0);
  });

  test('what a method cannot take of a file is no case of it', () => {
    const file = write({ ...rows, weights: floats(1, 2), preferences: floats(0.9, 0.3) });
    expect(diralign(['verify', file, '--method', 'robust,nca_listwise'])).toMatchObject({
      status: 0,
    });
    const named = fileBatch(file);
    const isChecked = (method: string): boolean =>
      named.isChecked({ method, beta: 0.5 } as ReferenceConfig);
    expect(['robust', 'kto', 'aot', 'dpo', 'nca_listwise'].filter(isChecked)).toEqual([
      ...['aot', 'dpo', 'nca_listwise'],
    ]);
    const { results, skipped } = lossJson(file);
    expect(results.map(({ method }) => method)).toContain('dpo');
    const reason = 'the batch has a preference of 0.3';
    expect(skipped).toContainEqual({ method: 'robust', reason });
    expect(refusal(1, 'loss', 'robust', file)).toContain(`${reason}; 'robust' cannot be computed`);
  });
});
