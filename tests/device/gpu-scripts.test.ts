// The commands for machines with a GPU. What they say about a device is theirs to say there; here
// it is shown that they find nothing where nothing is wrong, that they find planted errors, and
// that they refuse to run, or to keep results, where there is no device.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Objective } from '../../ts/index.js';
import { call, onDevice } from '../support/calls.js';
import { compileInto } from '../support/compiled.js';
import type { Cuda } from '../support/device.js';
import { pretendSubject, type Faults } from '../support/pretend-cuda.js';

/** The addon is the one with the emulation of CUDA: what does not need it runs without. */
const isEmulated = process.env.DIRALIGN_EXPECT_CUDA === '1';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-scripts-'));

interface Section {
  readonly name: string;
}
interface Outcome {
  readonly section: string;
  readonly status: 'ok' | 'MISS' | 'not run' | 'cut off';
  readonly checked: number;
  readonly notes: readonly string[];
  readonly misses: readonly string[];
}
interface Check {
  readonly sections: readonly Section[];
  readonly TimeIsOver: new (message: string) => Error;
  readonly runSection: (section: Section, context: object) => Promise<Outcome>;
  readonly failed: (results: readonly Outcome[]) => boolean;
}
let check: Check;
let scales: Record<string, object>;
let support: { readonly Misses: new () => { readonly list: string[] } };
const load = async (file: string): Promise<unknown> =>
  import(pathToFileURL(path.join(folder, file)).href);

/**
 * The scripts beside the package compiled from ts/ as it is now: a stale dist/ is never what is
 * tested.
 */
beforeAll(async () => {
  compileInto(path.join(folder, 'dist'));
  for (const name of ['scripts', 'tests/device', 'bench', 'tests/support', 'package.json'])
    fs.cpSync(path.join(root, name), path.join(folder, name), {
      recursive: true,
      filter: (from) => !from.includes('node_modules'),
    });
  for (const name of ['build/Release', 'prebuilds', 'node_modules', 'tests/fixtures']) {
    if (!fs.existsSync(path.join(root, name))) continue;
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.symlinkSync(path.join(root, name), path.join(folder, name), 'dir');
  }
  check = (await load('tests/device/check/run.mjs')) as Check;
  ({ scales } = (await load('tests/device/check/scales.mjs')) as { scales: typeof scales });
  support = (await load('tests/device/check/support.mjs')) as typeof support;
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

async function runSection(name: string, faults: Faults = {}): Promise<Outcome> {
  const section = check.sections.find((each) => each.name === name);
  if (!section) throw new Error(`there is no section ${name}`);
  const subject = pretendSubject(faults);
  const context = { subject, scale: scales.tiny, device: subject.cuda.devices()[0] };
  const outcome = await check.runSection(section, context);
  expect(subject.memory.size, 'buffers left behind').toBe(0);
  return outcome;
}

const withPretended = ['vectors', 'reference', 'determinism', 'independence', 'huge'];

describe.skipIf(isEmulated)('gpu:check', () => {
  test.each(withPretended)('%s: nothing is found where nothing is wrong', async (name) => {
    const outcome = await runSection(name);
    expect(outcome.misses).toEqual([]);
    expect(outcome.status).toBe('ok');
    expect(outcome.checked).toBeGreaterThan(100);
  });

  test('a section that did nothing and does not say why has not passed', () => {
    const idle = { section: 'x', status: 'not run', checked: 0, misses: [] } as const;
    expect(check.failed([{ ...idle, notes: [] }])).toBe(true);
    expect(check.failed([{ ...idle, notes: ['not available'] }])).toBe(false);
  });

  test('a section that is cut off reports what it has found, and has not passed', async () => {
    const cut = (finds: boolean) =>
      check.runSection(
        {
          name: 'x',
          run: ({
            misses,
          }: {
            misses: { require: (condition: boolean, what: string) => void };
          }) => {
            misses.require(!finds, 'something');
            throw new check.TimeIsOver('after 3 minutes, at 40 %');
          },
        } as Section,
        {},
      );
    expect(await cut(false)).toMatchObject({
      status: 'cut off',
      checked: 1,
      notes: ['cut off after 3 minutes, at 40 %'],
    });
    expect(await cut(true)).toMatchObject({ status: 'MISS', checked: 1, misses: ['something'] });
  });

  describe('sections side by side', () => {
    interface Job {
      readonly name: string;
      readonly alone: boolean;
    }
    interface SideBySide {
      readonly sideBySide: (
        sections: readonly Job[],
        how: {
          readonly jobs: number;
          readonly run: (section: Job) => Promise<string>;
          readonly skip: (section: Job) => string;
          readonly isOver: () => boolean;
          readonly done: (result: string) => void;
        },
      ) => Promise<string[]>;
    }
    const jobsOf = (...names: string[]) =>
      names.map((name) => ({ name, alone: name === name.toUpperCase() }));

    test('as many as may, those that need the device alone last, results in order', async () => {
      const { sideBySide } = (await load('tests/device/check/jobs.mjs')) as SideBySide;
      const active = new Set<string>();
      let most = 0;
      const done: string[] = [];
      const run = async ({ name, alone }: Job) => {
        active.add(name);
        most = Math.max(most, active.size);
        if (alone) expect([...active]).toEqual([name]);
        // The first of those that began ends last.
        for (let turn = 0; turn < (name === 'a' ? 20 : 5); turn++) await Promise.resolve();
        active.delete(name);
        return `${name} ran`;
      };
      const how = {
        jobs: 2,
        run,
        skip: () => 'skipped',
        isOver: () => false,
        done: (result: string) => void done.push(result),
      };
      expect(await sideBySide(jobsOf('a', 'X', 'b', 'c', 'Y'), how)).toEqual([
        'a ran',
        'X ran',
        'b ran',
        'c ran',
        'Y ran',
      ]);
      expect(most).toBe(2);
      expect(done).toEqual(['b ran', 'c ran', 'a ran', 'X ran', 'Y ran']);
    });

    test('nothing is begun when the time is over', async () => {
      const { sideBySide } = (await load('tests/device/check/jobs.mjs')) as SideBySide;
      const begun: string[] = [];
      const run = ({ name }: Job) => Promise.resolve(`${name} ${begun.push(name)}`);
      const how = {
        jobs: 1,
        run,
        skip: ({ name }: Job) => `${name} skipped`,
        isOver: () => begun.length > 0,
        done: () => undefined,
      };
      expect(await sideBySide(jobsOf('a', 'b', 'X'), how)).toEqual([
        'a 1',
        'b skipped',
        'X skipped',
      ]);
    });
  });

  describe('a device that fails for good', () => {
    interface Words {
      readonly outcomes: readonly { what: string; code: string; message: string }[];
      readonly ended: number | string;
      readonly complaints: string;
    }
    const missesOf = async (words: Words): Promise<string[]> => {
      const { judge } = (await load('tests/device/check/failure.mjs')) as {
        judge: (words: Words, misses: object) => void;
      };
      const misses = new support.Misses();
      judge(words, misses);
      return misses.list;
    };
    const what = [
      'a good call',
      'a call behind the failure',
      'a call after it',
      'a synchronous call after it',
      'an allocation after it',
    ];
    const outcomes = what.map((each, i) => ({
      what: each,
      code: i === 0 ? 'resolved' : 'ERR_DIRALIGN_DEVICE',
      message: 'lost',
    }));

    test('is fine where every later call is told', async () => {
      expect(await missesOf({ outcomes, ended: 0, complaints: '' })).toEqual([]);
    });

    test('is a miss where a promise hangs or resolves, or the process crashes', async () => {
      const hung = await missesOf({
        outcomes: outcomes.slice(0, 1),
        ended: 'SIGKILL',
        complaints: '',
      });
      expect(hung).toEqual([
        expect.stringContaining(
          'a call behind the failure was never settled; the process ended with SIGKILL',
        ),
      ]);
      const resolved = outcomes.map((outcome, i) =>
        i === 1 ? { ...outcome, code: 'resolved' } : outcome,
      );
      expect(await missesOf({ outcomes: resolved, ended: 0, complaints: '' })).toHaveLength(1);
      expect(
        await missesOf({ outcomes: [], ended: 134, complaints: 'terminate called' }),
      ).toHaveLength(1);
    });
  });

  describe('output layers', () => {
    interface Hidden {
      readonly checkAlgorithms: (
        found: readonly object[],
        misses: object,
        note: (text: string) => void,
      ) => void;
      readonly checkRowCounts: (
        subject: object,
        misses: object,
        layer: object,
        dtype: string,
      ) => void;
    }
    const missesOf = async (look: (hidden: Hidden, misses: object) => void): Promise<string[]> => {
      const misses = new support.Misses();
      look((await load('tests/device/check/hidden.mjs')) as Hidden, misses);
      return misses.list;
    };

    test('a layer that no algorithm of cuBLASLt serves is found', async () => {
      const found = [
        { what: '1 x 1 float32', usable: 3, offered: 8 },
        { what: '9 x 9 float16', usable: 0, offered: 8 },
      ];
      const notes: string[] = [];
      const misses = await missesOf((hidden, list) => {
        hidden.checkAlgorithms(found, list, (text) => notes.push(text));
      });
      expect(misses).toEqual([expect.stringContaining('9 x 9 float16: none of 8')]);
      expect(notes).toEqual([
        'algorithms for any number of rows: 1 x 1 float32 3 of 8, 9 x 9 float16 0 of 8',
      ]);
    });

    test.each([
      ['the same', 0, 0],
      ['another from so many rows on', 2 ** -40, 1],
    ])('bits of a row in any number of rows: %s', async (_, shift, expected) => {
      const subject = {
        ...pretendSubject(),
        tokenLogps: ({ shape: [rows = 0] }: { shape: readonly number[] }) => ({
          logps: Float64Array.from(
            { length: rows },
            (__, row) => -1 - row + (rows > 2 && rows < 40 ? shift : 0),
          ),
        }),
      };
      const layer = { vocab: 37, size: 9, counts: [1, 2, 7, 40] };
      const misses = await missesOf((hidden, list) => {
        hidden.checkRowCounts(subject, list, layer, 'bfloat16');
      });
      expect(misses).toHaveLength(expected);
      expect(subject.memory.size).toBe(0);
    });
  });

  /** Another bit at the end of an element. */
  const bump = (array: ArrayLike<number> | undefined, index: number): void => {
    if (!array?.length) return;
    const bits =
      array instanceof Float32Array
        ? new Uint32Array(array.buffer, array.byteOffset, array.length)
        : (array as Uint16Array);
    const i = index < 0 ? array.length + index : index;
    bits[i] = (bits[i] ?? 0) ^ 1;
  };
  const scaleFirst = (values: Float64Array, factor: number): void => {
    values[0] = (values[0] ?? 0) * factor;
  };
  let calls = 0;
  const nowAndThen = (): boolean => calls++ % 3 === 2;
  const faults: Readonly<Record<string, Record<string, Faults>>> = {
    vectors: {
      'a gradient off by 2e-5': {
        alter(_, gradient) {
          gradient?.forEach((x, i) => (gradient[i] = x * (1 + 2e-5)));
        },
      },
      'a loss off by 1e-5': {
        alter(result) {
          Object.assign(result, { loss: result.loss * (1 + 1e-5) + 1e-5 });
        },
      },
      'one wrong log-probability of a token': {
        alterTokens(logps) {
          logps[1] = (logps[1] ?? 0) - 1e-4;
        },
      },
      'one wrong count': {
        alter({ counts }) {
          counts[0] = (counts[0] ?? 0) + 1;
        },
      },
      'one bit of a gradient in place': {
        alter(_, gradient, __, run) {
          if (run.inPlace && run.gradient === 'dense') bump(gradient, 0);
        },
      },
    },
    reference: {
      'one unit at the end of a 16-bit gradient': {
        alter(_, gradient) {
          if (gradient instanceof Uint16Array) bump(gradient, -1);
        },
      },
      'a wrong log-probability': {
        alterTokens(logps) {
          scaleFirst(logps, 1 + 1e-5);
        },
      },
      'one unit in the gradient of given derivatives': {
        alterBackward(gradient) {
          if (gradient instanceof Uint16Array) bump(gradient, -1);
        },
      },
    },
    determinism: {
      'a bit that is another in some runs': {
        alter(_, gradient) {
          if (nowAndThen()) bump(gradient, 0);
        },
      },
      'a sum in another order in some runs': {
        alter({ logps }) {
          if (nowAndThen()) scaleFirst(logps, 1 + 2 ** -52);
        },
      },
    },
    independence: {
      'a reduction that depends on the number of rows': {
        alter({ logps }, _, { labels }) {
          scaleFirst(logps, 1 + (labels.length % 3) * 2 ** -52);
        },
      },
      'a bit of an ignored row': {
        alter(_, gradient, { shape }) {
          if (shape[1] === 7) bump(gradient, -1);
        },
      },
      'a bit of a row whose batch is packed': {
        alter(_, gradient, { shape }) {
          if (shape.length === 2) bump(gradient, 0);
        },
      },
    },
    huge: {
      'a bit of the last element': {
        alter(_, gradient) {
          bump(gradient, -1);
        },
      },
      'a bit of an ignored row': {
        alter(_, gradient) {
          bump(gradient, 5 * 96);
        },
      },
    },
  };
  const planted = Object.entries(faults).flatMap(([section, each]) =>
    Object.entries(each).map(([what, fault]) => [section, what, fault] as const),
  );
  test.each(planted)('%s finds %s', async (name, _, fault) => {
    calls = 0;
    const outcome = await runSection(name, fault);
    expect(outcome.status).toBe('MISS');
    expect(check.failed([outcome])).toBe(true);
  });

  test('memory around an array that is written is found', () => {
    const logits = Float32Array.from({ length: 8 }, Math.sin);
    const batch = {
      logits,
      shape: [2, 1, 4],
      labels: Int32Array.of(1, 2),
      reference: Float64Array.of(-1, -1),
    };
    const behind: Faults = {
      alter: (_, gradient) => {
        if (gradient)
          new Uint8Array(gradient.buffer, gradient.byteOffset + gradient.byteLength, 1)[0] = 0;
      },
    };
    for (const [faults, problems] of [
      [{}, []],
      [behind, ['memory around an array was written']],
    ] as const) {
      const subject = pretendSubject(faults);
      const prepared = onDevice(subject.cuda as unknown as Cuda)(batch, { place: 'out' });
      const objective = subject.dirAlignLoss('dpo', 0.1) as unknown as Objective;
      expect(call(objective, prepared).problems).toEqual(problems);
    }
  });

  test('compute-sanitizer: clean only where its own summary says that it looked', async () => {
    const { verdict } = (await load('tests/device/check/sanitizer.mjs')) as {
      verdict: (run: { status: number; output: string }) => string;
    };
    expect(verdict({ status: 0, output: '========= ERROR SUMMARY: 0 errors' })).toBe('clean');
    expect(
      verdict({
        status: 0,
        output: '========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)',
      }),
    ).toBe('clean');
    expect(verdict({ status: 86, output: '========= ERROR SUMMARY: 3 errors' })).toBe(
      'found errors',
    );
    expect(
      verdict({
        status: 0,
        output: '========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)',
      }),
    ).toBe('found errors');
    expect(verdict({ status: 1, output: '========= ERROR SUMMARY: 0 errors' })).toBe(
      'the checked run failed',
    );
    expect(verdict({ status: 0, output: '========= Error: Device not supported' })).toBe(
      'did not run',
    );
  });
});

describe.skipIf(isEmulated)('gpu:bench', () => {
  interface Target {
    readonly mode: string;
    readonly what: string;
    readonly wanted: number;
    readonly got: number;
    readonly reached: boolean;
  }
  interface Plan {
    readonly modes: readonly {
      readonly name: string;
      readonly passes: number;
      readonly zeros: boolean;
    }[];
    readonly shapeOf: (rows: number) => { sequences: number; tokens: number };
    readonly parseShapes: (text: string) => unknown;
    readonly scales: Readonly<Record<string, object>>;
    readonly batchesOf: (
      scale: object,
      shapes?: readonly object[],
    ) => { dtype: string; rows: number; vocab: number; hasPeers: boolean }[];
    readonly floorBytes: (mode: object, batch: object) => number;
  }
  interface Report {
    readonly judge: (result: object) => Target[];
    readonly report: (result: object) => string;
  }
  const plan = (): Promise<Plan> => load('bench/gpu/plan.mjs') as Promise<Plan>;
  const spread = (median: number) => ({
    median,
    q1: 0.9 * median,
    q3: 1.1 * median,
    min: 0.8 * median,
    n: 15,
  });
  const copyBandwidth = 4e12;

  /**
   * A group of 8192 x 32000 in which every mode reaches a share of the copy's bandwidth, with half
   * of the rows `half` of that time.
   */
  async function group(share: number, half: number) {
    const { modes, floorBytes } = await plan();
    const batch = { dtype: 'bfloat16', rows: 8192, vocab: 32000 };
    const entries = [1, 0.5].flatMap((fraction) =>
      modes.map((mode) => {
        const whole = floorBytes(mode, { ...batch, scoredRows: 8192 });
        const wholeMs = (1000 * whole) / (share * copyBandwidth);
        const zerosMs = mode.zeros ? (1000 * 4096 * 64000) / copyBandwidth : 0;
        const ms = fraction === 1 ? wholeMs : half * wholeMs + zerosMs;
        const scoredRows = 8192 * fraction;
        const bytes = floorBytes(mode, { ...batch, scoredRows });
        const times = { device: spread(ms), wall: spread(ms + 0.02) };
        return { ...batch, fraction, scoredRows, mode: mode.name, floorBytes: bytes, ...times };
      }),
    );
    return { ...batch, copyBandwidth, entries };
  }

  test('floors', async () => {
    const { modes, floorBytes } = await plan();
    const batch = { dtype: 'bfloat16', rows: 8192, vocab: 32000, scoredRows: 4096 };
    const half = 4096 * 32000 * 2;
    const floors = Object.fromEntries(
      modes.map((mode) => [mode.name, floorBytes(mode, batch) / half]),
    );
    // Zeros for the other half of the rows where there is a gradient.
    expect(floors).toEqual({ forward: 1, tokenLogps: 1, factored: 3, dense: 4, 'dense out': 4 });
  });

  test.each([
    ['everything is reached', 0.95, 0.5, 0],
    ['too little of the bandwidth', 0.8, 0.5, 4],
    ['half of the rows in more than half of the time', 0.95, 0.6, 4],
  ])('targets: %s', async (_, share, half, missed) => {
    const { judge } = (await load('bench/gpu/report.mjs')) as Report;
    const targets = judge({ groups: [await group(share, half)], peers: [] });
    expect(targets).toHaveLength(8);
    expect(targets.filter(({ reached }) => !reached)).toHaveLength(missed);
    const [forward] = targets;
    expect(forward?.wanted).toBe(0.92);
    expect(forward?.got).toBeCloseTo(share, 10);
  });

  test('of too few rounds nothing is reached or missed', async () => {
    const { judge, report } = (await load('bench/gpu/report.mjs')) as Report;
    const result = {
      groups: [await group(0.8, 0.5)],
      peers: [],
      skipped: [],
      rounds: 8,
      seconds: 1,
    };
    expect(judge(result)).toEqual([]);
    expect(report({ ...result, targets: [] })).toContain(
      'Of fewer than 9 rounds there are quartiles, and no conclusion.',
    );
    expect(judge({ ...result, rounds: 9 })).toHaveLength(8);
  });

  test('a peer that is faster or computes other numbers is a miss; no memory is told', async () => {
    const { judge, report } = (await load('bench/gpu/report.mjs')) as Report;
    const batch = { dtype: 'bfloat16', rows: 8192, vocab: 32000, fraction: 1 };
    const ratios = {
      ratio: { value: 2, q1: 1.9, q3: 2.1, n: 15 },
      wallRatio: { value: 2, q1: 1.9, q3: 2.1, n: 15 },
      extraBytes: 2 ** 30,
    };
    const timed = (name: string, ms: number) => ({
      ...{ ...batch, ...ratios, name, version: `${name} 1` },
      ...{ device: spread(ms), ours: { device: spread(1) } },
    });
    const peers = [
      timed('slower', 2),
      timed('faster', 0.9),
      { ...batch, name: 'other', problem: 'computes something else' },
      { ...batch, name: 'large', problem: 'CUDA out of memory', exhausted: true },
    ];
    const result = { groups: [await group(0.95, 0.5)], peers, skipped: [], rounds: 15, seconds: 1 };
    const targets = judge(result);
    expect(targets.slice(8).map(({ reached }) => reached)).toEqual([true, false, false]);
    const text = report({ ...result, targets });
    expect(text).toContain('9 of 11 targets reached');
    expect(text).toContain('CUDA out of memory');
    expect(text).toMatch(/bfloat16 +8192 +32000 +100.0 % +loss only +0\.138 .* 3800 +95\.0 %/);
  });

  test('targets of the output layer: time at the stated shape, workspace everywhere', async () => {
    const { judge, report } = (await load('bench/gpu/report.mjs')) as Report;
    const layer = {
      dtype: 'bfloat16',
      rows: 4096,
      size: 4096,
      vocab: 128256,
      mode: 'all gradients',
      flop: 1.29e13,
    };
    const layers = [
      { ...layer, fraction: 1, wall: spread(18), memory: 2 ** 31 },
      { ...layer, fraction: 0.5, wall: spread(10.5), memory: 2 ** 31 + 1 },
      { ...layer, rows: 1024, fraction: 1, wall: spread(18), memory: 2 ** 30 },
    ];
    const result = { groups: [], peers: [], skipped: [], layers, rounds: 15, seconds: 1 };
    const targets = judge(result);
    expect(targets.map(({ what, reached }) => [what, reached])).toEqual([
      ['bytes of workspace', true],
      ['ms', true],
      ['bytes of workspace', false],
      ['ms', false],
      ['bytes of workspace', true],
    ]);
    const text = report({ ...result, targets });
    expect(text).toContain('3 of 5 targets reached');
    expect(text).toMatch(
      /bfloat16 4096 x 4096 x 128256, 100 % +all gradients +18\.00 .* 717 +2048/,
    );
  });

  test('peers of the output layer are judged by the clock, in a table of their own', async () => {
    const { judge, report } = (await load('bench/gpu/report.mjs')) as Report;
    const layer = { dtype: 'bfloat16', rows: 4096, size: 4096, vocab: 128256, fraction: 1 };
    const timed = (name: string, ms: number) => ({
      ...{
        ...layer,
        name,
        version: `${name} 1`,
        wall: spread(ms),
        ours: { wall: spread(18), memory: 2 ** 31 },
      },
      ...{ ratio: { value: ms / 18, q1: ms / 20, q3: ms / 16, n: 15 }, extraBytes: 5 * 2 ** 30 },
    });
    const layerPeers = [
      timed('slower', 36),
      timed('faster', 17),
      { ...layer, name: 'other', problem: 'computes something else' },
      { ...layer, name: 'large', problem: 'CUDA out of memory', exhausted: true },
    ];
    const result = { groups: [], peers: [], layerPeers, skipped: [], rounds: 15, seconds: 1 };
    const targets = judge(result);
    expect(targets.map(({ what, reached }) => [what, reached])).toEqual([
      ['slower over ours', true],
      ['faster over ours', false],
      ['other: computes something else', false],
    ]);
    expect(targets[0]?.got).toBe(2);
    const text = report({ ...result, targets });
    expect(text).toContain('1 of 3 targets reached');
    expect(text).toContain('CUDA out of memory');
    expect(text).not.toContain('No peers were measured');
    expect(text).toMatch(/slower +bfloat16 4096 x 4096 x 128256, 100 % +36\.00 +18\.00\n/);
    expect(text).toMatch(/slower +2\.00 .* 5120 +2048 +slower 1/);
  });

  describe('a peer of the output layer', () => {
    interface Given {
      readonly labels: Int32Array;
      readonly reference: Float64Array;
    }
    interface Gradients {
      readonly loss: number;
      readonly gradHidden: Uint16Array;
      readonly gradWeight: Float32Array;
    }
    interface Layer {
      readonly given: (fraction: number) => Given;
    }
    interface Outcome {
      readonly problem?: string;
      readonly exhausted?: boolean;
      readonly ratio?: { readonly value: number };
      readonly ours?: { readonly memory: number };
      readonly extraBytes?: number | null;
    }
    interface Subject {
      readonly dirAlignLoss: (
        method: string,
        beta: number,
      ) => { readonly fromHidden: (batch: object, run?: object) => Gradients };
    }
    let layer: Layer;
    let subject: Subject;
    let measure: (
      name: string,
      options?: { withoutReference?: boolean; fraction?: number },
    ) => Promise<Outcome>;

    /** A device whose memory is the host's: enough for a layer, and for the CPU to compute it. */
    function hostDevice() {
      const memory: Uint8Array<ArrayBuffer>[] = [];
      // Buffers lie 2^32 apart.
      const at = (ptr: bigint) =>
        (memory[Number(ptr >> 32n)] as Uint8Array<ArrayBuffer>).subarray(Number(ptr & 0xffffffffn));
      const bytesOf = (view: ArrayBufferView) =>
        new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      return {
        ...{ index: 0, subject, stream: { handle: 1n, synchronize: () => undefined } },
        native: {
          cuda: {
            copyOnDevice: (_: number, __: bigint, to: bigint, from: bigint, bytes: number) => {
              at(to).set(at(from).subarray(0, bytes));
            },
          },
        },
        alloc: (byteLength: number) => {
          const bytes = new Uint8Array(byteLength);
          memory.push(bytes);
          return {
            ...{ byteLength, ptr: BigInt(memory.length - 1) << 32n },
            copyFrom: (array: ArrayBufferView) => {
              bytes.set(bytesOf(array));
            },
            copyTo: (array: ArrayBufferView, { offset = 0 } = {}) => {
              bytesOf(array).set(bytes.subarray(offset, offset + array.byteLength));
            },
            tensor: (dtype: string) =>
              dtype === 'float32' ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer),
          };
        },
        wallTime: (work: () => void) => {
          work();
          return 1;
        },
      };
    }

    beforeAll(async () => {
      subject = (await load('dist/index.js')) as Subject;
      const { makeLayer } = (await load('bench/gpu/layer.mjs')) as {
        makeLayer: (device: object, wanted: object) => Layer;
      };
      const { measureLayerPeer } = (await load('bench/gpu/peers.mjs')) as {
        measureLayerPeer: (
          device: object,
          layer: Layer,
          peer: object,
          how: object,
        ) => Promise<Outcome>;
      };
      const device = hostDevice();
      layer = makeLayer(device, { rows: 256, size: 384, vocab: 515 });
      measure = (name, { withoutReference = false, fraction = 1 } = {}) =>
        measureLayerPeer(
          device,
          layer,
          { name, version: '1', withoutReference },
          { fraction, rounds: 2 },
        );
    });
    afterEach(() => {
      vi.unstubAllEnvs();
    });

    const script = (name: string, text: string): string => {
      const file = path.join(folder, name);
      fs.writeFileSync(file, text, { mode: 0o755 });
      return file;
    };

    const decoded = (bits: number): number =>
      new Float32Array(Uint32Array.of(bits << 16).buffer)[0] as number;
    /** What a peer that is right would say, with one number altered. */
    function says(
      { withoutReference = false, fraction = 1 },
      alter: Partial<Record<string, number>> = {},
    ): object {
      const given = layer.given(fraction);
      const reference = withoutReference ? given.reference.map(() => 0) : given.reference;
      const result = subject
        .dirAlignLoss('dpo', withoutReference ? 0.01 : 0.1)
        .fromHidden({ ...given, reference });
      const numbers = {
        loss: result.loss,
        gradHidden: result.gradHidden.reduce((sum, bits) => sum + Math.abs(decoded(bits)), 0),
        gradWeight: result.gradWeight.reduce((sum, x) => sum + Math.abs(x), 0),
      };
      return Object.fromEntries(
        Object.entries(numbers).map(([name, x]) => [name, x * (alter[name] ?? 1)]),
      );
    }

    /** In place of Python: says what the environment tells it, and that each pass took 3 ms. */
    function pretend(first: object, complaint = ''): void {
      const code = `#!${process.execPath}
const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const fs = require('node:fs');
if (process.env.COMPLAINT) { console.error(process.env.COMPLAINT); process.exit(1); }
const bytes = fs.readFileSync(option('--directory') + '/reference');
const { buffer, byteOffset, byteLength } = bytes;
const reference = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
const sizeOf = (name) => fs.statSync(option('--directory') + '/' + name).size;
const sizes = ['hidden', 'weight', 'labels'].map(sizeOf).join();
const asked = [option('--hidden-size'), option('--shape'), option('--dtype'), sizes].join(' ');
if (asked !== '384 2,128,515 bfloat16 131042,131038,1024') throw new Error(asked);
const isFree = reference.every((x) => x === 0);
if (isFree !== (option('--beta') === '0.01')) throw new Error('reference and beta');
console.log(process.env.FIRST);
process.stdin.on('data', (lines) => {
  for (const _ of String(lines).trim().split('\\n')) console.log('{"ms":3}');
});
`;
      vi.stubEnv('PYTHON', script('pretended-peer.cjs', code));
      vi.stubEnv('FIRST', JSON.stringify({ ...first, extraBytes: 12 }));
      vi.stubEnv('COMPLAINT', complaint);
    }

    test.each([{}, { fraction: 0.5 }, { withoutReference: true }])(
      'that agrees is timed: %j',
      async (options) => {
        pretend(says(options));
        const outcome = await measure('pretended', options);
        expect(outcome.problem).toBeUndefined();
        expect(outcome.ratio?.value).toBe(3);
        expect(outcome.extraBytes).toBe(12);
        expect(outcome.ours?.memory).toBeGreaterThan(0);
      },
    );

    test.each(['loss', 'gradHidden', 'gradWeight'])(
      'whose %s is another is not timed',
      async (what) => {
        pretend(says({}, { [what]: 1.1 }));
        const outcome = await measure('pretended');
        expect(outcome.problem).toMatch(new RegExp(`^computes something else: ${what} [^;]*$`));
        expect(outcome.ratio).toBeUndefined();
      },
    );

    test('that runs out of memory is told apart from one that fails', async () => {
      pretend({}, 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB');
      expect(await measure('pretended')).toMatchObject({ exhausted: true });
      pretend({}, 'ImportError: no such thing');
      expect(await measure('pretended')).toMatchObject({
        exhausted: false,
        problem: 'ImportError: no such thing',
      });
    });

    const python = [process.env.PYTHON, 'python3', '/usr/bin/python3'].find(
      (each) => each !== undefined && spawnSync(each, ['-c', 'import torch']).status === 0,
    );
    test.skipIf(python === undefined)('PyTorch on the CPU computes what we compute', async () => {
      vi.stubEnv('PYTHON', script('on-the-cpu', `#!/bin/sh\nexec ${python} "$@" --device cpu\n`));
      for (const fraction of [1, 0.5]) {
        const outcome = await measure('torch-layer', { fraction });
        expect(outcome.problem).toBeUndefined();
        expect(outcome.ratio?.value).toBeGreaterThan(0);
      }
    });
  });

  test('shapes', async () => {
    const { shapeOf, parseShapes } = await plan();
    expect([64, 256, 8192].map(shapeOf)).toEqual([
      { sequences: 2, tokens: 32 },
      { sequences: 2, tokens: 128 },
      { sequences: 8, tokens: 1024 },
    ]);
    expect(parseShapes('256x7')).toEqual([{ rows: 256, vocab: 7 }]);
    for (const wrong of ['256', '100x7', '32x7', '256x0', '192x7'])
      expect(() => parseShapes(wrong)).toThrow('ROWSxVOCABULARY');
  });

  test('times that hold the host’s part are told apart from the device’s own', async () => {
    const { report } = (await load('bench/gpu/report.mjs')) as Report;
    const timed = async (enqueue: number) => {
      const one = { ...(await group(0.95, 0.5)), host: { enqueue, busy: 0.9 } };
      return report({ groups: [one], peers: [], targets: [], skipped: [], rounds: 15, seconds: 1 });
    };
    expect(await timed(0.2)).toContain(
      'the host enqueues a call in 0.200 ms, the device is kept busy for 0.900 ms.',
    );
    expect(await timed(0.95)).toContain("ITS TIMES ARE THE HOST'S, TOO");
  });
});

describe('the commands', () => {
  // No device, whatever this machine has, and no other addon than the built one.
  const { DIRALIGN_PREBUILD: emulated, ...environment } = process.env;
  const env = { ...environment, CUDA_VISIBLE_DEVICES: '' };
  const run = (script: string, ...args: string[]) =>
    spawnSync(process.execPath, [path.join(folder, script), ...args], { encoding: 'utf8', env });

  test.skipIf(isEmulated).each(['tests/device/check.mjs', 'bench/gpu.mjs'])(
    '%s: a mistake in the options',
    (script) => {
      for (const args of [
        ['--nonsense'],
        ['--scale', 'enormous'],
        ['--only', 'everything'],
        ['--minutes', 'soon'],
      ]) {
        const { status, stderr } = run(script, ...args);
        expect(status).toBe(2);
        expect(stderr).toContain('Usage:');
      }
    },
  );

  test.skipIf(isEmulated)('--pack holds what a machine with nothing but Node needs', () => {
    const file = path.join(folder, 'gpu.tgz');
    if (!fs.existsSync(path.join(folder, 'build/Release/diralign.node')))
      throw new Error('run npm run build:native first');
    const { status, stderr } = run('tests/device/check.mjs', '--pack', file, '--for', 'any');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    const elsewhere = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-unpacked-'));
    try {
      expect(spawnSync('tar', ['-xzf', file, '-C', elsewhere]).status).toBe(0);
      for (const script of ['tests/device/check.mjs', 'bench/gpu.mjs', 'tests/device/first.mjs']) {
        const {
          status: code,
          stderr: said,
          stdout: out,
        } = spawnSync(process.execPath, [path.join(elsewhere, script)], {
          encoding: 'utf8',
          env,
        });
        if (script === 'tests/device/first.mjs')
          expect(out).toMatch(/machine +failed .*\n +CUDA is not available: /);
        else expect(said).toMatch(/^CUDA is not available: /);
        expect(code).toBe(2);
      }
      const loaded = spawnSync(
        process.execPath,
        [
          '--input-type=module',
          '-e',
          "const s = await import('./tests/device/check/support.mjs'); " +
            'console.log(s.loadVectors().size)',
        ],
        { cwd: elsewhere, encoding: 'utf8' },
      );
      expect(loaded.stderr).toBe('');
      expect(loaded.stdout.trim()).toBe('14');
    } finally {
      fs.rmSync(elsewhere, { recursive: true });
    }
  });

  test.skipIf(isEmulated)(
    '--pack refuses an addon without machine code for the card that it is for',
    () => {
      const file = path.join(folder, 'refused.tgz');
      // Whatever the build has, it is not for this one.
      for (const script of ['tests/device/check.mjs', 'tests/device/first.mjs']) {
        const { status, stderr } = run(script, '--pack', file, '--for', '7.0');
        expect(stderr).toMatch(
          /^build\/Release\/diralign\.node has (no CUDA backend|machine code for .*, not for 7\.0)/,
        );
        expect(status).toBe(2);
      }
      expect(fs.existsSync(file)).toBe(false);
    },
  );

  describe.runIf(isEmulated)('on the emulation', () => {
    const runEmulated = (script: string, ...args: string[]) => {
      const file = path.join(folder, 'emulated.json');
      fs.rmSync(file, { force: true });
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [path.join(folder, script), '--json', file, ...args],
        {
          encoding: 'utf8',
          env: { ...environment, DIRALIGN_PREBUILD: emulated },
        },
      );
      const result = fs.existsSync(file)
        ? (JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>)
        : undefined;
      return { status, output: `${stdout}${stderr}`, result };
    };
    const results = () => fs.readdirSync(path.join(folder, 'bench/results'));

    test('gpu:check misses nothing and keeps nothing', () => {
      const before = results();
      const { status, output, result } = runEmulated('tests/device/check.mjs', '--scale', 'tiny');
      expect(output).toContain('This is the emulation of CUDA');
      expect(output).not.toContain('MISS');
      expect(status).toBe(0);
      expect(result).toMatchObject({ ok: true });
      expect(results()).toEqual(before);
    });

    test('gpu:check has sections side by side, and what is cut off is not passed', () => {
      const args = ['--scale', 'tiny', '--only', 'determinism,failure'];
      expect(runEmulated('tests/device/check.mjs', ...args, '--jobs', '2')).toMatchObject({
        status: 0,
        result: {
          ok: true,
          sections: [
            { section: 'determinism', status: 'ok' },
            { section: 'failure', status: 'ok', checked: 5 },
          ],
        },
      });
      const { status, output, result } = runEmulated(
        'tests/device/check.mjs',
        ...args,
        '--minutes',
        '0',
      );
      expect(status).toBe(1);
      expect(output).toContain('CUT OFF: determinism, failure');
      expect(result).toMatchObject({
        ok: false,
        sections: [{ status: 'cut off' }, { status: 'cut off' }],
      });
    });

    test('gpu:first runs its steps', () => {
      const output = path.join(folder, 'first');
      const { status, stdout } = spawnSync(
        process.execPath,
        [
          path.join(folder, 'tests/device/first.mjs'),
          '--only',
          'bench,peers',
          '--minutes',
          '1000',
          '--output',
          output,
        ],
        { encoding: 'utf8', env: { ...environment, DIRALIGN_PREBUILD: emulated } },
      );
      expect(stdout).toContain('3 of 3 steps are ok');
      expect(status).toBe(0);
      const report = JSON.parse(fs.readFileSync(path.join(output, 'first.json'), 'utf8')) as object;
      expect(report).toMatchObject({
        ok: true,
        steps: [
          { name: 'machine', status: 'ok', result: { emulated: true, code: { runs: 'own' } } },
          { name: 'bench', status: 'ok', result: { emulated: true } },
          { name: 'peers', status: 'ok' },
        ],
      });
      expect(JSON.stringify(report)).not.toMatch(/median|wall/);
    });

    test('gpu:bench runs and keeps no times', () => {
      const before = results();
      const { status, output, result } = runEmulated('bench/gpu.mjs', '--scale', 'tiny');
      expect(output).toContain('No times were kept');
      expect(status).toBe(0);
      expect(result).toMatchObject({ emulated: true, cases: 20 });
      expect(JSON.stringify(result)).not.toMatch(/median|wall|GB/);
      expect(results()).toEqual(before);
      expect(runEmulated('bench/gpu.mjs', '--quick').status).toBe(2);
    });
  });
});
