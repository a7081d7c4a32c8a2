import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  makeBatch,
  roundedToBfloat16,
  toBfloat16,
  toFloat16,
  withPrompt,
} from '../../ts/bench/data.js';
import { htmlReport } from '../../ts/bench/html.js';
import { onnxLogProbabilities } from '../../ts/bench/onnx-model.js';
import { nodePeers, type Peer } from '../../ts/bench/peers.js';
import { markdownReport, ratioText, tablesOf, textReport } from '../../ts/bench/report.js';
import { interleave, ratio, spread } from '../../ts/bench/rounds.js';
import { runBench, type BenchResult } from '../../ts/bench/run.js';
import { native } from '../../ts/native/interface.js';
import { ranksReport, type RanksResult } from '../../ts/bench/ranks.js';
import { benchCommand } from '../../ts/cli/bench.js';
import { launchers } from '../support/launchers.js';
import { decodeBfloat16, decodeFloat16 } from '../../ts/verification/reference.js';

const folder = mkdtempSync(path.join(os.tmpdir(), 'diralign-bench-test-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** The command, run here: what it printed on the standard output. */
async function bench(...args: string[]): Promise<string> {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  try {
    expect(await benchCommand.run(args)).toBe(0);
    return write.mock.calls.map(([text]) => text as string).join('');
  } finally {
    write.mockRestore();
  }
}

const [javaScript] = nodePeers([]) as [Peer];

describe('diralign bench', () => {
  it.runIf(launchers.length > 0)(
    '--ranks: a call and its kernels, over ranks and rows',
    async () => {
      const { command = '' } = launchers[0] ?? {};
      const common = ['--ranks', '2', '--shape', '1,8,1500', '--rounds', '3', '--mpirun', command];
      const { rows, engine } = JSON.parse(await bench(...common, '--json')) as RanksResult;
      expect(engine).not.toBe('');
      expect(rows.map(({ ranks, rows: n }) => [ranks, n])).toEqual([
        [1, 4],
        [1, 16],
        [2, 4],
        [2, 16],
      ]);
      for (const { call, kernels, exchange, waiting, speedUp } of rows) {
        expect(call.median).toBeGreaterThan(0);
        expect(kernels.median).toBeGreaterThan(0);
        for (const spread of [exchange, waiting]) expect(spread.q1).toBeLessThanOrEqual(spread.q3);
        expect(speedUp).toBeGreaterThan(0);
      }
      expect(ranksReport({ vocab: 1500, threads: 1, rounds: 3, engine, rows })).toContain(
        'exchange, ms',
      );
    },
  );
  it('--ranks: what does not go together, and a launcher that is not there', async () => {
    for (const [args, words] of [
      [['--ranks', '2', '--sweep'], '--sweep is not for --ranks'],
      [['--mpirun', 'mpirun'], '--mpirun is for --ranks'],
      [['--ranks', '0'], "--ranks: '0'"],
    ] as const)
      await expect(benchCommand.run([...args])).rejects.toMatchObject({
        name: 'UsageError',
        message: expect.stringContaining(words) as string,
      });
    await expect(benchCommand.run(['--ranks', '2', '--mpirun', 'no-mpirun'])).rejects.toMatchObject(
      {
        code: 'ERR_DIRALIGN_ENGINE',
        message: "mpirun: 'no-mpirun' cannot be started",
      },
    );
  });
  it('gives every figure, as JSON and as a page', async () => {
    const page = path.join(folder, 'bench.html');
    const text = await bench(
      '--shape',
      '1,4,500',
      '--rounds',
      '2',
      '--json',
      '--sweep',
      '--peers',
      'js',
      '--html',
      page,
    );
    const result = JSON.parse(text) as BenchResult;
    expect(result.setting).toMatchObject({
      method: 'dpo',
      pairs: 1,
      tokens: 4,
      vocab: 500,
      rows: 8,
      rounds: 2,
    });
    expect(Object.values(result.machine).every((value) => value !== '' && value !== 0)).toBe(true);
    expect(result.loops.map(({ name }) => name)).toEqual(['loop-read', 'loop-scale', 'loop-copy']);
    expect(result.modes.map(({ name }) => name)).toEqual(
      (
        'forward forward@0.5 forward-bf16 forward-f16 in-place in-place@0.5 factored ' +
        'factored@0.5 out out@0.5 out-bf16 fresh lent logps'
      ).split(' '),
    );
    for (const {
      name,
      ms,
      nanosecondsPerLogit,
      gigabytesPerSecond,
      floorMs,
      share,
      loss,
      fraction,
    } of result.modes) {
      expect(ms.n).toBe(2);
      expect(ms.min).toBeLessThanOrEqual(ms.median);
      for (const value of [ms.min, nanosecondsPerLogit, gigabytesPerSecond, floorMs, share])
        expect(value).toBeGreaterThan(0);
      expect(fraction).toBe(name.endsWith('@0.5') ? 0.5 : 1);
      if (name !== 'logps') expect(loss).toBeGreaterThan(0);
    }
    expect(result.ratios).toHaveLength(14);
    for (const { value, q1, q3 } of [...result.ratios, ...result.peers.map((peer) => peer.ratio)]) {
      for (const each of [value, q1, q3]) expect(Number.isFinite(each) && each > 0).toBe(true);
    }
    expect(result.peers).toMatchObject([{ name: 'js', against: 'out', work: 'loss and gradient' }]);
    expect(result.calls.length).toBeGreaterThan(3);
    if (process.platform === 'linux') {
      expect(result.memory.map(({ mode }) => mode)).toEqual([
        'forward',
        'in-place',
        'factored',
        'fresh',
      ]);
    }
    expect(result.sweep?.overVocab).toHaveLength(2);
    expect(result.sweep?.overRows.map(({ rows }) => rows)).toEqual([2, 4, 8]);

    expectPage(readFileSync(page, 'utf8'));
    expect(textReport(result)).toContain('in place / (read + scale)');
    expect(markdownReport(result)).toContain('| gradient in place | float32 |');
  });

  it('measures other instruction sets on request, each in a process of its own', async () => {
    const few = ['--shape', '1,2,100', '--rounds', '1', '--peers', 'none', '--fraction', '1'];
    const text = await bench(...few, '--modes', 'out,fresh', '--isa', 'all', '--json');
    const result = JSON.parse(text) as BenchResult;
    const { isa, isas } = native().cpuInfo();
    expect(result.machine.isa).toBe(isa);
    expect(result.others?.map(({ machine }) => machine.isa)).toEqual(
      isas.filter((name) => name !== isa),
    );
    for (const other of result.others ?? []) {
      expect(other.setting).toEqual(result.setting);
      expect(other.ratios.map(({ name }) => name)).toEqual(result.ratios.map(({ name }) => name));
      expect(textReport(result)).toContain(other.machine.isa);
    }
    expectPage(htmlReport(result));
    await expect(bench(...few, '--isa', 'avx3')).rejects.toThrow(/--isa: 'avx3' is not one of/);
  });

  it('measures only what is asked for', async () => {
    const args = [
      '--shape',
      '1,2,100',
      '--rounds',
      '1',
      '--modes',
      'in-place,forward',
      '--peers',
      'none',
      '--fraction',
      '1',
    ];
    const result = JSON.parse(await bench(...args, '--threads', '1', '--json')) as BenchResult;
    expect(result.modes.map(({ name }) => name)).toEqual(['forward', 'in-place']);
    expect(result).toMatchObject({ peers: [], missingPeers: [], setting: { threads: 1 } });
    expect(result.sweep).toBeUndefined();
    expectPage(htmlReport(result));
  });

  it.each([
    ['--shape', '1,2', /pairs,tokens,vocabulary/],
    ['--shape', '1,2,1', /at least 2/],
    ['--rounds', '0', /from 1 to 10000/],
    ['--threads', 'two', /threads/],
    ['--fraction', '0', /share of the rows/],
    ['--modes', 'inplace', /did you mean 'in-place'/],
    ['--peers', 'numpy', /js, tfjs-wasm, onnx/],
  ])('refuses %s %s', async (option, value, message) => {
    await expect(benchCommand.run([option, value])).rejects.toThrow(message);
  });
});

describe('peers', () => {
  const options = {
    shape: [1, 2, 100],
    threads: 1,
    rounds: 1,
    modes: [],
    fractions: [1],
    sweep: false,
  } as const;
  const wrong = (change: (result: { loss: number; gradientSum: number }) => object): Peer => ({
    ...javaScript,
    name: 'wrong',
    load: async (batch, threads) => {
      const right = await javaScript.load(batch, threads);
      if (!right) throw new Error('plain JavaScript is always there');
      return { ...right, result: async () => change((await right.result()) as never) as never };
    },
  });

  it.each([
    [
      'another loss',
      wrong(({ loss, gradientSum }) => ({ loss: loss * 1.001, gradientSum })),
      /wrong: its loss is/,
    ],
    [
      'half of the gradient',
      wrong(({ loss, gradientSum }) => ({ loss, gradientSum: gradientSum / 2 })),
      /wrong: its gradient/,
    ],
    [
      'no gradient',
      wrong(({ loss }) => ({ loss })),
      /wrong: its gradient \(sum of sizes\) is undefined/,
    ],
    ['NaN', wrong(({ gradientSum }) => ({ loss: NaN, gradientSum })), /wrong: its loss is NaN/],
  ])('fails a run with a peer that computes %s', async (_, peer, message) => {
    await expect(runBench({ ...options, peers: [peer] })).rejects.toThrow(message);
  });

  it('names those that are missing, and how to get them', async () => {
    const result = await runBench({ ...options, peers: nodePeers([folder]) });
    expect(result.peers.map(({ name }) => name)).toEqual(['js']);
    expect(result.missingPeers.map(({ name }) => name)).toEqual(['tfjs-wasm', 'onnx']);
    expect(
      result.missingPeers.every(({ install }) => install.includes('npm install --no-save')),
    ).toBe(true);
    expect(result.modes.map(({ name }) => name)).toEqual(['out']);
  });
});

describe('rounds', () => {
  it('run every case once, slow ones less often, in orders that change', async () => {
    const ran: string[] = [];
    const timed = (name: string, most?: number) => ({
      name,
      run: () => ran.push(name),
      ...(most !== undefined && { most }),
    });
    const times = await interleave([timed('a'), timed('b'), timed('c', 3)], 6, () => undefined);
    expect(times.get('a')?.filter((ms) => ms !== undefined)).toHaveLength(6);
    expect(times.get('c')?.map((ms) => ms !== undefined)).toEqual([
      true,
      false,
      true,
      false,
      true,
      false,
    ]);
    const full = ran.join('').match(/[ab]c?[ab]|c[ab]{2}|[ab]{2}c/g);
    expect(new Set(full).size).toBeGreaterThan(2);
  });

  it('have medians, quartiles and ratios', () => {
    expect(spread([3, undefined, 1, 2, 5, 4])).toEqual({ median: 3, min: 1, q1: 2, q3: 4, n: 5 });
    const times = new Map([
      ['a', [2, 6, 4]],
      ['b', [1, 2, undefined]],
      ['c', [1, 1, 1]],
    ]);
    expect(ratio(times, 'a', ['b', 'c'])).toEqual({ value: 4 / 2.5, q1: 1.25, q3: 1.75, n: 2 });
    // A time of a round in which the other did not run is not compared.
    expect(ratio(new Map([...times, ['a', [2, 6, 400]]]), 'a', ['b', 'c']).value).toBe(4 / 2.5);
    expect(() => spread([undefined])).toThrow('has not run');
  });
});

describe('conclusions', () => {
  let json = '';
  beforeAll(async () => {
    json = await bench(
      ...'--shape 1,4,500 --rounds 1 --sweep --json --modes out,forward --peers js'.split(' '),
    );
  }, 60_000);
  /** The result of a run, as if of so many rounds. */
  const result = (rounds: number) =>
    JSON.parse(json, (key, value: unknown) => (key === 'n' ? rounds : value)) as BenchResult;
  /** Cells by table and title of the column. */
  function column(found: BenchResult, title: string, head: string): string[] {
    const table = tablesOf(found).find((each) => each.title === title);
    return (table?.rows ?? []).map((row) => row[table?.head.indexOf(head) ?? -1] as string);
  }

  it.each([
    [8, false],
    [9, true],
  ])('of %s rounds: %s', (rounds, concluded) => {
    const found = result(rounds);
    const conclusions = [
      ...column(found, 'Modes', 'of bandwidth').slice(3),
      ...column(found, 'Ratios', 'of medians'),
      ...column(found, 'Peers', 'times slower'),
    ];
    expect(conclusions.length).toBeGreaterThan(4);
    for (const cell of conclusions) expect(cell).toMatch(concluded ? /^\d/ : /^$/);
    // Quartiles are there all the same.
    for (const [title, head] of [
      ['Modes', 'quartiles'],
      ['Ratios', 'quartiles over rounds'],
      ['Peers', 'quartiles'],
      ['Linearity, nanoseconds per logit', 'quartiles'],
    ] as const)
      for (const cell of column(found, title, head)) expect(cell).toMatch(/^\S+ - \S+$/);
    for (const report of [textReport(found), markdownReport(found), htmlReport(found)])
      expect(report.includes('fewer than 9 rounds there are quartiles, and no conclusion')).toBe(
        !concluded,
      );
    const page = htmlReport(found);
    expect(page.includes('>no conclusion<')).toBe(!concluded);
    // A bracket of three lines for each mode and peer, and one with two ends for each point of two
    // lines.
    expect(page.match(/class="whisker"/g)).toHaveLength(
      3 * (found.modes.length + found.peers.length),
    );
    const points = [...(found.sweep?.overVocab ?? []), ...(found.sweep?.overRows ?? [])].length;
    expect(page.match(/h6[M"]/g)).toHaveLength(4 * points);
    expect(ratioText({ value: 2, q1: 1, q3: 3, n: rounds })).toBe(
      `${concluded ? '2.00' : 'no conclusion'} (1.00 - 3.00)`,
    );
  });

  it('slow peers run in enough rounds for one', async () => {
    const options = {
      shape: [1, 2, 100],
      threads: 1,
      modes: ['out'],
      fractions: [1],
      sweep: false,
    } as const;
    const { peers } = await runBench({ ...options, rounds: 10, peers: [javaScript] });
    expect(peers.map(({ ms, ratio: { n } }) => [ms.n, n])).toEqual([[9, 9]]);
  });
});

describe('the batch', () => {
  it('is the same every time, with logits like those of a model', () => {
    const { logits, labels, reference, shape } = makeBatch(2, 8, 1000);
    expect(makeBatch(2, 8, 1000)).toEqual({ logits, labels, reference, shape });
    const mean = logits.reduce((sum, x) => sum + x, 0) / logits.length;
    const deviation = Math.sqrt(
      logits.reduce((sum, x) => sum + (x - mean) ** 2, 0) / logits.length,
    );
    expect(deviation).toBeGreaterThan(2);
    expect(deviation).toBeLessThan(3.5);
  });

  it('has its first tokens ignored as a prompt is', () => {
    const batch = makeBatch(1, 4, 50);
    expect([...withPrompt(batch, 0.5)].map((label) => label < 0)).toEqual([
      true,
      true,
      false,
      false,
      true,
      true,
      false,
      false,
    ]);
  });

  it('is rounded to 16 bits as IEEE 754 says', () => {
    const values = Float32Array.of(
      0,
      -0,
      1,
      -1.5,
      65504,
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
      2 ** -14,
      2 ** -24,
      3 * 2 ** -25,
      -1e-6,
      0.1,
    );
    expect([...toFloat16(values)].map(decodeFloat16)).toEqual([
      0,
      -0,
      1,
      -1.5,
      65504,
      1,
      1 + 2 ** -9,
      2 ** -14,
      2 ** -24,
      2 ** -23,
      -17 * 2 ** -24,
      0.0999755859375,
    ]);
    const others = Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, -3.1415927410125732);
    expect([...toBfloat16(others)].map(decodeBfloat16)).toEqual([1, 1 + 2 ** -6, -3.140625]);
    expect([...roundedToBfloat16(others)]).toEqual([1, 1 + 2 ** -6, -3.140625]);
  });
});

it('the ONNX model names its operators, inputs and output', () => {
  const text = Buffer.from(onnxLogProbabilities()).toString('latin1');
  for (const name of ['LogSoftmax', 'GatherElements', 'axis', 'logits', 'labels', 'logps'])
    expect(text).toContain(name);
});

it('a fresh process tells its extra memory', { skip: process.platform !== 'linux' }, async () => {
  const child = path.resolve('dist/bench/memory-child.js');
  const measure = async (mode: string): Promise<{ extraMiB: number; logitsMiB: number }> => {
    const request = JSON.stringify({ mode, shape: [1, 64, 16000], threads: 2 });
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', child, request]);
    return JSON.parse(stdout) as { extraMiB: number; logitsMiB: number };
  };
  // Of several: the threads of the engine may take or give back memory during the call.
  const runs = async (mode: string) =>
    [await measure(mode), await measure(mode), await measure(mode)].map(
      (run) => run.extraMiB / run.logitsMiB,
    );
  // Nothing but O(rows) in place; a whole second array where one is asked for.
  expect(Math.min(...(await runs('in-place')))).toBeLessThan(1 / 8);
  expect(Math.max(...(await runs('fresh')))).toBeGreaterThan(0.9);
});

/** Well formed (void elements aside), with charts, and nothing that would need a network. */
function expectPage(html: string): void {
  expect(html).toMatch(/^<!doctype html>\n<html lang="en">/);
  expect(html).not.toMatch(/<script|<link|<img|@import|url\(|https?:|\ssrc=|\shref=/);
  expect(html).not.toMatch(/NaN|Infinity|undefined/);
  expect(html).toContain('<svg');
  const open: string[] = [];
  for (const [, closing, name = '', attributes = ''] of html.matchAll(
    /<(\/?)([a-z0-9]+)((?:\s+[\w-]+="[^"<>]*")*)\s*\/?>/g,
  )) {
    if (['meta', 'br'].includes(name)) continue;
    if (closing) expect(open.pop()).toBe(name);
    else if (!html.includes(`<${name}${attributes}/>`)) open.push(name);
  }
  expect(open).toEqual([]);
  // Every angle bracket belongs to a tag or the doctype.
  expect(
    html.replace(/<!doctype html>|<\/?[a-z0-9]+(?:\s+[\w-]+="[^"<>]*")*\s*\/?>/g, ''),
  ).not.toMatch(/[<>]/);
}
