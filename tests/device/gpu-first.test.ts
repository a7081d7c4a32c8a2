// `npm run gpu:first`: its order, its time and what it leaves when it is cut off; what it reads
// from ncu; and which builds may be measured.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-first-test-'));
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});
const load = async <T>(file: string): Promise<T> =>
  (await import(pathToFileURL(path.join(root, file)).href)) as T;

interface Outcome {
  readonly status: string;
  readonly says?: readonly string[];
  readonly result?: unknown;
  readonly stops?: boolean;
}
interface Context {
  readonly seconds: number;
  readonly log: (text: string) => void;
  readonly results: Readonly<Record<string, unknown>>;
}
interface Step {
  readonly name: string;
  readonly title: string;
  readonly seconds: number;
  readonly run: (context: Context) => Promise<Outcome>;
}
interface Report {
  readonly ok: boolean;
  readonly stopped?: string;
  readonly seconds: number;
  readonly steps: readonly {
    readonly name: string;
    readonly status: string;
    readonly result?: unknown;
    readonly says?: string[];
  }[];
}
interface How {
  readonly end: number;
  readonly now?: () => number;
  readonly log: (text: string) => void;
  readonly keep: (report: Report) => void;
}
interface Run {
  readonly runSteps: (steps: readonly Step[], how: How) => Promise<Report>;
  readonly runCommand: (
    command: readonly string[],
    how: { seconds: number; log: (text: string) => void },
  ) => Promise<{ status: string; output: string }>;
  readonly summary: (report: Report) => string[];
}
let run: Run;
beforeAll(async () => {
  run = await load<Run>('tests/device/first/run.mjs');
});

describe('the steps', () => {
  test('the most valuable answers come first, peers last', async () => {
    const { steps } = await load<{ steps: readonly Step[] }>('tests/device/first/steps.mjs');
    expect(steps.map(({ name }) => name)).toEqual([
      'machine',
      'tiny',
      'bench',
      'ncu',
      'check',
      'sanitizer',
      'peers',
    ]);
    // Whatever hangs before them, the first four have their turn within eight minutes.
    const until = steps.slice(0, 3).reduce((sum, { seconds }) => sum + seconds, 0);
    expect(until).toBeLessThan(300);
  });

  /** Steps on a clock of their own: each takes as long as it is said to, or as it is let. */
  function clocked(
    lasting: Readonly<Record<string, number>>,
    outcomes: Readonly<Record<string, Partial<Outcome>>> = {},
  ) {
    let time = 0;
    const given: [string, number][] = [];
    const steps = Object.entries(lasting).map(([name, seconds]) => ({
      ...{ name, title: `what ${name} does`, seconds: 100 },
      run: (context: Context) => {
        given.push([name, context.seconds]);
        const isCut = seconds > context.seconds;
        time += 1000 * Math.min(seconds, context.seconds);
        context.log(`${name} speaks\n`);
        return Promise.resolve({
          status: isCut ? 'cut off' : 'ok',
          result: { of: name },
          ...outcomes[name],
        });
      },
    }));
    const kept: Report[] = [];
    const said: string[] = [];
    const start = (end: number) =>
      run.runSteps(steps, {
        ...{ end: 1000 * end, now: () => time },
        log: (text) => said.push(text),
        keep: (report) => kept.push(structuredClone(report)),
      });
    return { start, given, kept, said };
  }
  const statuses = ({ steps }: Report) => steps.map(({ status }) => status);

  test('run in their order, and what is known is kept after each', async () => {
    const { start, kept, said } = clocked({ a: 10, b: 20, c: 5 });
    const report = await start(480);
    expect(report).toMatchObject({ ok: true, seconds: 35 });
    expect(statuses(report)).toEqual(['ok', 'ok', 'ok']);
    const states = kept.map((each) => statuses(each).join());
    for (const state of [
      'not started,not started,not started',
      'ok,running,not started',
      'ok,ok,running',
    ])
      expect(states).toContain(state);
    expect(said.join('')).toMatch(/=== a:[^]*a speaks[^]*=== b:[^]*b speaks[^]*=== c:/);
  });

  test('nothing starts when the time is over, what runs has the rest, all is told', async () => {
    const { start, given, kept } = clocked({ a: 10, b: 60, c: 5 });
    const report = await start(30);
    expect(given).toEqual([
      ['a', 30],
      ['b', 20],
    ]);
    expect(statuses(report)).toEqual(['ok', 'cut off', 'not started']);
    expect(report.ok).toBe(false);
    expect(report.steps[0]?.result).toEqual({ of: 'a' });
    expect(report.steps[1]?.result).toEqual({ of: 'b' });
    expect(statuses(kept.at(-1) as Report)).toEqual(statuses(report));
    const text = run.summary(report).join('\n');
    expect(text).toMatch(
      /^a {2}ok[^]*\nb {2}cut off[^]*\nc {2}not started\n1 of 3 steps are ok after 30 s$/,
    );
  });

  test('a step has its own share only: one which hangs leaves the others their time', async () => {
    const { start, given } = clocked({ a: 1000, b: 5 });
    const report = await start(480);
    expect(given).toEqual([
      ['a', 100],
      ['b', 100],
    ]);
    expect(statuses(report)).toEqual(['cut off', 'ok']);
  });

  test('a step that throws or misses does not end the run; one without a device does', async () => {
    const thrown = clocked({ a: 1, b: 1, c: 1 }, { b: { status: 'missed', says: ['7 misses'] } });
    expect(statuses(await thrown.start(480))).toEqual(['ok', 'missed', 'ok']);
    const { start } = clocked({ a: 1, b: 1 }, { a: { status: 'failed', stops: true } });
    const report = await start(480);
    expect(statuses(report)).toEqual(['failed', 'not started']);
    expect(report.stopped).toBe('a: failed');
    const throwing = {
      name: 'a',
      title: 'a',
      seconds: 1,
      run: () => Promise.reject(new Error('no such thing')),
    };
    const how = { end: Infinity, log: () => undefined, keep: () => undefined };
    expect((await run.runSteps([throwing], how)).steps[0]).toMatchObject({
      status: 'failed',
      says: ['no such thing'],
    });
  });
});

describe('a command', () => {
  const node = (code: string, seconds = 1000, log: (text: string) => void = () => undefined) =>
    run.runCommand([process.execPath, '-e', code], { seconds, log });

  test.each([
    [0, 'ok'],
    [1, 'missed'],
    [2, 'failed'],
    [3, 'failed'],
  ])('exit code %i is %s', async (code, status) => {
    expect((await node(`console.log('x'); process.exit(${code})`)).status).toBe(status);
  });

  test('that cannot be started has failed', async () => {
    const { status, output } = await run.runCommand([path.join(folder, 'nothing')], {
      seconds: 1000,
      log: () => undefined,
    });
    expect(status).toBe('failed');
    expect(output).toContain('ENOENT');
  });

  test('whose time is over is ended with all it started, and what it said is kept', async () => {
    // The child tells of itself before it hangs, and only then is its time over: no clock decides.
    const file = path.join(folder, 'grandchild');
    const grandchild =
      `require('fs').writeFileSync(${JSON.stringify(file)}, String(process.pid)); ` +
      'setInterval(() => {}, 1e6)';
    const code = `const { spawn } = require('child_process');
      process.on('SIGTERM', () => {});
      spawn(process.execPath, ['-e', ${JSON.stringify(grandchild)}], { stdio: 'inherit' });
      const wait = setInterval(() => {
        if (!require('fs').existsSync(${JSON.stringify(file)})) return;
        console.log('both run');
        clearInterval(wait);
        setInterval(() => {}, 1e6);
      }, 10);`;
    let seconds = 5;
    let ended: { status: string; output: string };
    do {
      fs.rmSync(file, { force: true });
      ended = await node(code, seconds);
      seconds *= 4;
    } while (!ended.output.includes('both run') && seconds < 1000);
    expect(ended).toEqual({ status: 'cut off', output: 'both run\n' });
    const pid = Number(fs.readFileSync(file, 'utf8'));
    const isGone = () => {
      try {
        // A zombie of a process that is not ours to wait for still takes signals.
        return fs.readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
      } catch {
        return true;
      }
    };
    while (!isGone()) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});

describe('gpu:first', () => {
  const first = (...args: string[]) =>
    spawnSync(process.execPath, [path.join(root, 'tests/device/first.mjs'), ...args], {
      encoding: 'utf8',
      env: { ...process.env, CUDA_VISIBLE_DEVICES: '' },
    });

  test('--help names the steps and their time', () => {
    const { status, stdout } = first('--help');
    expect(status).toBe(0);
    for (const part of ['--minutes', '--only', '--pack', 'machine', 'sanitizer', 'default 8'])
      expect(stdout).toContain(part);
  });

  test.each([
    ['--nonsense'],
    ['--only', 'everything'],
    ['--minutes', 'x'],
    ['--minutes', '-1'],
    ['--minutes', ''],
  ])('a mistake in the options: %s %s', (...args) => {
    const { status, stderr } = first(...args);
    expect(status).toBe(2);
    expect(stderr).toContain('Usage:');
  });

  test('without time it starts nothing, and says so in both files', () => {
    const output = path.join(folder, 'none');
    const { status, stdout } = first('--minutes', '0', '--output', output);
    expect(status).toBe(1);
    expect(stdout).toContain('0 of 7 steps are ok');
    const report = JSON.parse(fs.readFileSync(path.join(output, 'first.json'), 'utf8')) as Report;
    expect(report.steps.every((step) => step.status === 'not started')).toBe(true);
    expect(fs.readFileSync(path.join(output, 'first.log'), 'utf8')).toBe(stdout);
    expect(fs.readdirSync(output).sort()).toEqual(['first.json', 'first.log']);
  });
});

describe('which code a device runs', () => {
  interface Code {
    readonly codeFor: (
      status: { architectures: string; ptx: string },
      capability: string,
    ) => string;
    readonly unfit: (
      code: { runs: string; architectures: string },
      device: { computeCapability: string },
    ) => string | undefined;
  }
  const all = { architectures: '75,80,86,89,90,100,120', ptx: '80,120' };
  test.each([
    [all, '9.0', 'own'],
    [all, '90', 'own'],
    [all, '10.0', 'own'],
    [all, '8.7', 'compatible'],
    [all, '10.3', 'compatible'],
    [all, '12.1', 'compatible'],
    [all, '11.0', 'translated'],
    [all, '13.0', 'translated'],
    [all, '7.0', 'none'],
    // A minor version of machine code goes up, not down.
    [{ architectures: '86', ptx: '' }, '8.0', 'none'],
    [{ architectures: '', ptx: '75' }, '9.0', 'translated'],
    [{ architectures: '120', ptx: '120' }, '9.0', 'none'],
    [{ architectures: '90a', ptx: '' }, '9.0', 'own'],
    [{ architectures: 'emulation', ptx: '' }, '9.0', 'own'],
  ])('%j on %s: %s', async (status, capability, expected) => {
    const { codeFor } = await load<Code>('scripts/device/code.mjs');
    expect(codeFor(status, capability)).toBe(expected);
  });

  test('nothing is measured but a device’s own', async () => {
    const { unfit } = await load<Code>('scripts/device/code.mjs');
    const device = { computeCapability: '9.0' };
    expect(unfit({ runs: 'own', architectures: '90' }, device)).toBeUndefined();
    for (const runs of ['compatible', 'translated', 'none'])
      expect(unfit({ runs, architectures: '' }, device)).toMatch(
        /no architecture.*9\.0.*--cuda 9\.0/,
      );
  });

  test.each([
    [{ compiled: true, architectures: '75,90', ptx: '' }, '90', undefined],
    [{ compiled: true, architectures: '75,90', ptx: '' }, '9.0', undefined],
    // What the dev preset of CMake builds.
    [
      { compiled: true, architectures: '', ptx: '75' },
      '90',
      /no architecture, not for 90 \(PTX for 75\).*--cuda 90/,
    ],
    [
      { compiled: true, architectures: '80', ptx: '80' },
      '8.6',
      /machine code for 80, not for 8\.6/,
    ],
    [{ compiled: false, architectures: '', ptx: '' }, '90', /has no CUDA backend/],
    [{ compiled: true, architectures: 'emulation', ptx: '' }, '90', /is the emulation/],
    [{ compiled: true, architectures: '90', ptx: '' }, 'hopper', /expected a compute capability/],
    [{ compiled: false, architectures: '', ptx: '' }, 'any', undefined],
  ])('%j packed for %s', async (status, target, problem) => {
    const { notFor } = await load<{
      notFor: (status: object, target: string) => string | undefined;
    }>('tests/device/luggage.mjs');
    const said = notFor(status, target);
    if (problem === undefined) expect(said).toBeUndefined();
    else expect(said).toMatch(problem);
  });
});

describe('ncu', () => {
  interface Ncu {
    readonly parseNcu: (csv: string) => Record<string, unknown>[];
    readonly ncuLines: (launches: readonly object[], labels: readonly object[]) => string[];
  }
  const names = [
    ...[
      'ID',
      'Kernel Name',
      'gpu__time_duration.sum',
      'dram__bytes_read.sum',
      'dram__bytes_write.sum',
    ],
    ...[
      'gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed',
      'launch__registers_per_thread',
      'launch__grid_size',
    ],
    ...['smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio'],
    ...['smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio'],
    ...[
      'smsp__average_warps_issue_stalled_barrier_not_issued_per_issue_active.ratio',
      'lts__t_sector_hit_rate.pct',
    ],
  ];
  const units = [
    '',
    '',
    'ns',
    'byte',
    'byte',
    '%',
    'register/thread',
    '',
    'inst',
    'inst',
    'inst',
    '%',
  ];
  const quoted = (cell: string) => `"${cell.replaceAll('"', '""')}"`;
  const csv = (rows: readonly (readonly string[])[]) =>
    `==PROF== Connected\n${rows.map((row) => row.map(quoted).join(',')).join('\n')}\n`;
  const kernel = 'void loss_kernel<Bfloat16, (Pass)0>(const Plan) "x"';
  const launch = [
    '0',
    kernel,
    '512,345',
    '2,101,346,304',
    '8192',
    '93.5',
    '64',
    '528',
    '9.25',
    '0.5',
    '7',
    'n/a',
  ];

  test('its figures are read from the raw page, whatever cells hold commas', async () => {
    const { parseNcu } = await load<Ncu>('tests/device/first/ncu.mjs');
    expect(parseNcu(csv([names, units, launch, launch]))).toHaveLength(2);
    const [figures] = parseNcu(csv([names, units, launch]));
    expect(figures).toEqual({
      ...{ kernel, dramPercent: 93.5, registers: 64, blocks: 528 },
      milliseconds: expect.closeTo(0.512345, 12) as number,
      readGB: expect.closeTo(2.101346304, 12) as number,
      writtenGB: expect.closeTo(8192e-9, 15) as number,
      stalls: { long_scoreboard: 9.25, barrier: 0.5 },
    });
    expect(Object.keys(figures?.stalls as object)).toEqual(['long_scoreboard', 'barrier']);
  });

  test('other units than asked for are refused, and nothing is read from nothing', async () => {
    const { parseNcu } = await load<Ncu>('tests/device/first/ncu.mjs');
    expect(() => parseNcu(csv([names, units.with(2, 'us'), launch]))).toThrow(
      'gpu__time_duration.sum is in us',
    );
    expect(parseNcu('==ERROR== nothing was profiled\n')).toEqual([]);
  });

  test('a line for each launch puts what was moved beside the least', async () => {
    const { parseNcu, ncuLines } = await load<Ncu>('tests/device/first/ncu.mjs');
    const label = {
      mode: 'forward',
      rows: 8192,
      vocab: 128256,
      floorRead: 2101346304,
      floorWritten: 0,
    };
    const [line] = ncuLines(parseNcu(csv([names, units, launch])), [label]);
    const start =
      'forward 8192 x 128256: 0.512 ms; DRAM 93.5 %; ' +
      'read 2.10, written 0.00 GB (floor 2.10 and 0.00)';
    expect(line?.slice(0, start.length)).toBe(start);
    expect(line).toContain('waits: long_scoreboard 9.3, barrier 0.5');
  });
});
