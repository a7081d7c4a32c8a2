// The study's runner, its store and its command line, with stages of the tests' own.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { runStudy } from '../cli.js';
import { duration, progressLine } from '../progress.js';
import { StudyStopped, TaskFailure, TaskRunner } from '../runner.js';
import { stageModules, stageVersions, type StageModules } from '../stages.js';
import type { Task } from '../study.js';
import { canonicalJson, taskDirectory, taskKey, TaskStore } from '../task-store.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-study-'));
const module = new URL('support/stages.ts', import.meta.url);
const names = ['square', 'slow', 'patient', 'keeps', 'reads', 'throws', 'dies', 'nothing'];
const modules: StageModules = Object.fromEntries(
  [...names, 'missing'].map((name) => [name, module]),
);
const versions = Object.fromEntries(Object.keys(modules).map((name) => [name, 'one']));

const runners: TaskRunner[] = [];
afterEach(() => {
  for (const runner of runners.splice(0)) runner.stop();
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

/** A folder of a test, with a log of what was computed. */
function workplace(): {
  directory: string;
  log: string;
  computed: () => string[];
  task: (stage: string, n?: number) => Task;
} {
  const directory = fs.mkdtempSync(path.join(folder, 'run-'));
  const log = path.join(directory, 'log');
  return {
    directory,
    log,
    computed: () => (fs.existsSync(log) ? fs.readFileSync(log, 'utf8').trimEnd().split('\n') : []),
    task: (stage, n = 1) => ({ stage, params: { n, log } }),
  };
}

function runnerIn(
  directory: string,
  options: { workers?: number; versions?: Readonly<Record<string, string>> } = {},
): TaskRunner {
  const store = new TaskStore(path.join(directory, 'tasks'));
  const runner = new TaskRunner({ store, modules, versions, workers: 2, ...options });
  runners.push(runner);
  return runner;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe('the key of a task', () => {
  test('does not depend on the order of its parameters, nor on what is undefined', () => {
    expect(canonicalJson({ b: [1, { d: null, c: 'x' }], a: true, e: undefined })).toBe(
      '{"a":true,"b":[1,{"c":"x","d":null}]}',
    );
    expect(taskKey({ stage: 's', params: { a: 1, b: 2 } })).toBe(
      taskKey({ stage: 's', params: { b: 2, a: 1, c: undefined } }),
    );
  });

  test('depends on everything else', () => {
    const tasks: Task[] = [
      ...[{ a: 1 }, { a: 2 }, { a: '1' }, { b: 1 }, { a: [1] }, { a: { a: 1 } }, {}].map(
        (params) => ({ stage: 's', params }),
      ),
      { stage: 't', params: { a: 1 } },
    ];
    expect(new Set(tasks.map(taskKey)).size).toBe(tasks.length);
    expect(taskKey(tasks[0] as Task)).toMatch(/^s-[0-9a-f]{24}$/);
  });

  test('numbers that JSON cannot hold are refused', () => {
    expect(() => taskKey({ stage: 's', params: { beta: NaN } })).toThrow(/NaN has no place/);
    expect(() => taskKey({ stage: 's', params: [Infinity] })).toThrow(/Infinity/);
  });
});

describe('the runner', () => {
  test('computes a task once, however often it is asked for', async () => {
    const { directory, computed, task } = workplace();
    const runner = runnerIn(directory);
    const results = await Promise.all([1, 2, 1, 2, 1].map((n) => runner.run(task('square', n))));
    expect(results).toEqual([1, 4, 1, 4, 1].map((square) => ({ square })));
    expect(await runner.run(task('square', 2))).toEqual({ square: 4 });
    expect(computed().filter((line) => line.endsWith('begins'))).toHaveLength(2);
    expect(runner.status()).toMatchObject({ done: 2, known: 2, reused: 0, running: [] });
  });

  test('computes as many at once as there are workers', async () => {
    const { directory, computed, task } = workplace();
    const runner = runnerIn(directory, { workers: 2 });
    const all = Promise.all([1, 2, 3].map((n) => runner.run(task('patient', n))));
    await until(() => computed().length === 2);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(computed()).toHaveLength(2);
    expect(runner.status()).toMatchObject({
      done: 0,
      known: 3,
      running: [{ stage: 'patient' }, { stage: 'patient' }],
    });
    fs.writeFileSync(path.join(directory, 'go'), '');
    expect(await all).toEqual([1, 2, 3]);
  });

  test('a later run takes results from the store', async () => {
    const { directory, computed, task } = workplace();
    await runnerIn(directory).run(task('square', 3));
    const runner = runnerIn(directory);
    expect(await runner.run(task('square', 3))).toEqual({ square: 9 });
    expect(runner.status()).toMatchObject({ done: 1, reused: 1 });
    expect(computed().filter((line) => line.endsWith('begins'))).toHaveLength(1);
  });

  test('a result says what it is of, and holds no temporary file', async () => {
    const { directory, task } = workplace();
    const before = performance.now();
    await runnerIn(directory).run(task('slow', 3));
    const elapsed = (performance.now() - before) / 1000;
    const files = fs.readdirSync(path.join(directory, 'tasks'));
    expect(files).toEqual([`${taskKey(task('slow', 3))}.json`]);
    const record = JSON.parse(
      fs.readFileSync(path.join(directory, 'tasks', files[0] as string), 'utf8'),
    ) as Record<string, unknown>;
    expect(record).toMatchObject({ ...task('slow', 3), version: 'one', files: [], result: 3 });
    // The stage sleeps for 0.4 of them.
    expect(record.seconds).toBeGreaterThan(0.39);
    expect(record.seconds).toBeLessThanOrEqual(elapsed);
  });

  test('a result that cannot be written is used all the same, with a warning', async () => {
    const { directory, computed, task } = workplace();
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const full = vi.spyOn(fs, 'renameSync').mockImplementation(() => {
      throw new Error('ENOSPC: no space left on device');
    });
    const runner = runnerIn(directory);
    expect(await runner.run(task('square', 3))).toEqual({ square: 9 });
    expect(await runner.run(task('square', 4))).toEqual({ square: 16 });
    expect(runner.failure).toBeUndefined();
    expect(warned.mock.calls.map(([message]) => String(message))).toEqual(
      [3, 4].map(
        (n) =>
          expect.stringContaining(
            `${taskKey(task('square', n))}.json cannot be written: ENOSPC`,
          ) as string,
      ),
    );
    full.mockRestore();
    warned.mockRestore();
    expect(await runnerIn(directory).run(task('square', 3))).toEqual({ square: 9 });
    expect(computed().filter((line) => line === 'square 3 begins')).toHaveLength(2);
  });

  test('results of another version are computed again', async () => {
    const { directory, computed, task } = workplace();
    await runnerIn(directory).run(task('square'));
    await runnerIn(directory, { versions: { ...versions, square: 'two' } }).run(task('square'));
    expect(computed().filter((line) => line.endsWith('begins'))).toHaveLength(2);
  });

  test('a damaged result is an error that says what to do', async () => {
    const { directory, task } = workplace();
    await runnerIn(directory).run(task('square'));
    fs.writeFileSync(
      `${taskDirectory(path.join(directory, 'tasks'), task('square'))}.json`,
      '{"stage":',
    );
    await expect(runnerIn(directory).run(task('square'))).rejects.toThrow(/is damaged: delete it/);
  });

  test('a task finds what an earlier one kept; its own folder is empty at the start', async () => {
    const { directory, computed, task } = workplace();
    const runner = runnerIn(directory);
    expect(await runner.run(task('keeps', 5))).toEqual(['kept.txt']);
    expect(await runner.run(task('reads', 5))).toBe('kept 5');
    // Without its files a result is worth nothing.
    const kept = taskDirectory(path.join(directory, 'tasks'), task('keeps', 5));
    fs.rmSync(path.join(kept, 'kept.txt'));
    fs.writeFileSync(path.join(kept, 'left over'), '');
    expect(await runnerIn(directory).run(task('keeps', 5))).toEqual(['kept.txt']);
    expect(computed().filter((line) => line === 'keeps 5 begins')).toHaveLength(2);
  });

  test('a task that was not awaited has no files to read', async () => {
    const { directory, task } = workplace();
    await expect(runnerIn(directory).run(task('reads'))).rejects.toThrow(
      /keeps .* has kept no files: the experiment must await it first/,
    );
  });

  test.each([
    ['throws', /RangeError: no luck with 1\n\s+at .*stages\.ts/],
    ['dies', /the process ended with code 7\nlast words/],
    ['nothing', /the stage returned nothing/],
    ['missing', /stages\.ts exports no stage 'missing'/],
  ])('%s: the failure has the task and the reason', async (stage, reason) => {
    const { directory, task } = workplace();
    const runner = runnerIn(directory);
    const failure = await runner.run(task(stage)).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(TaskFailure);
    expect((failure as TaskFailure).task).toEqual(task(stage));
    expect((failure as TaskFailure).message).toMatch(reason);
    expect((failure as TaskFailure).message).toContain(`${stage} {"n":1`);
    expect(runner.failure).toBe(failure);
  });

  test('after a failure what is running is kept, and what is waiting is given up', async () => {
    const { directory, computed, task } = workplace();
    const runner = runnerIn(directory, { workers: 2 });
    const patient = runner.run(task('patient', 1));
    await until(() => computed().length === 1);
    const failed = runner.run(task('dies'));
    const waiting = [2, 3].map((n) => runner.run(task('slow', n)));
    await expect(failed).rejects.toBeInstanceOf(TaskFailure);
    for (const each of waiting) await expect(each).rejects.toBeInstanceOf(StudyStopped);
    await expect(runner.run(task('slow', 4))).rejects.toBeInstanceOf(StudyStopped);
    fs.writeFileSync(path.join(directory, 'go'), '');
    expect(await patient).toBe(1);
    await runner.settled();
    expect(computed()).toEqual(['patient 1 begins', 'dies 1 begins', 'patient 1 ends']);
    // The next run has the first, and computes the others.
    const next = runnerIn(directory);
    expect(await Promise.all([next.run(task('patient', 1)), next.run(task('slow', 2))])).toEqual([
      1, 2,
    ]);
    expect(next.status().reused).toBe(1);
  });

  test('stop ends its processes, and what was running is computed by the next run', async () => {
    const { directory, computed, task } = workplace();
    const runner = runnerIn(directory);
    const patient = runner.run(task('patient'));
    await until(() => computed().length === 1);
    runner.stop();
    await expect(patient).rejects.toBeInstanceOf(StudyStopped);
    expect(runner.failure).toBeUndefined();
    fs.writeFileSync(path.join(directory, 'go'), '');
    expect(await runnerIn(directory).run(task('patient'))).toBe(1);
    expect(computed()).toEqual(['patient 1 begins', 'patient 1 begins', 'patient 1 ends']);
  });

  test('no workers, and stages that nobody has, are refused', async () => {
    const { directory, task } = workplace();
    expect(() => runnerIn(directory, { workers: 0 })).toThrow(
      /workers must be a positive integer, got 0/,
    );
    await expect(runnerIn(directory).run(task('dance'))).rejects.toThrow(
      /no stage is called 'dance'/,
    );
  });
});

describe('versions of stages', () => {
  function moduleWith(files: Readonly<Record<string, string>>): StageModules {
    const directory = fs.mkdtempSync(path.join(folder, 'module-'));
    for (const [name, text] of Object.entries(files))
      fs.writeFileSync(path.join(directory, name), text);
    return { stage: pathToFileURL(path.join(directory, 'stages.ts')) };
  }
  const versionOf = async (files: Readonly<Record<string, string>>): Promise<string> => {
    const found = await stageVersions(moduleWith(files));
    return found.stage as string;
  };
  const stages =
    "import { two } from './two.js'; import fs from 'node:fs'; export const stages = { stage: " +
    "() => fs.existsSync('x') ? two : 0 };";

  test('what does not run does not count', async () => {
    const version = await versionOf({ 'stages.ts': stages, 'two.ts': 'export const two = 2;' });
    expect(version).toMatch(/^[0-9a-f]{16}$/);
    const same = {
      'stages.ts': `/** Says. */\n${stages}`,
      'two.ts': 'export interface Two {}\nexport const two: number  =  2;\nexport const three = 3;',
    };
    expect(await versionOf(same)).toBe(version);
  });

  test('what runs counts, in the module and in what it imports', async () => {
    const version = await versionOf({ 'stages.ts': stages, 'two.ts': 'export const two = 2;' });
    expect(await versionOf({ 'stages.ts': stages, 'two.ts': 'export const two = 3;' })).not.toBe(
      version,
    );
    expect(
      await versionOf({
        'stages.ts': stages.replace(': 0', ': 1'),
        'two.ts': 'export const two = 2;',
      }),
    ).not.toBe(version);
  });

  test('every stage of the study has one', async () => {
    const found = await stageVersions(stageModules);
    expect(Object.keys(found)).toEqual(Object.keys(stageModules));
    expect(found.align).toBe(found.pretrain);
    expect(found.align).not.toBe(found['ranking-bias']);
  });
});

describe('progress', () => {
  const status = {
    done: 3,
    reused: 1,
    known: 12,
    running: [
      { stage: 'align', share: 0.426 },
      { stage: 'sft', share: 0 },
    ],
    remaining: 130,
  };

  test('a line has what is done, how long it took, what is left and what is running', () => {
    expect(progressLine(status, 61.4, 2)).toBe(
      '[######..................] 3 of 12 tasks, 1 from before | 1 min 01 s | at least 1 min ' +
        '05 s left | align 42 %, sft',
    );
  });

  test('before the first result nobody knows how much is left', () => {
    const line = progressLine(
      { done: 0, reused: 0, known: 0, running: [], remaining: undefined },
      0,
      2,
    );
    expect(line).toBe(`[${'.'.repeat(24)}] 0 of 0 tasks | 0 s`);
  });

  test.each([
    [0.4, '0 s'],
    [59.6, '1 min 00 s'],
    [3599, '59 min 59 s'],
    [3725, '1 h 02 min'],
  ])('%s s is %s', (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });
});

describe('npm run study', () => {
  interface Ended {
    readonly code: number | null;
    readonly out: string;
    readonly err: string;
  }

  /** support/main.ts: the command line with an experiment of the tests' own. */
  function study(
    args: readonly string[],
    during?: (end: (signal: NodeJS.Signals) => void) => Promise<void>,
  ): Promise<Ended> {
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', 'examples/study/tests/support/main.ts', ...args],
      { cwd: root },
    );
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
    return new Promise((resolve, reject) => {
      child.on('close', (code) => {
        resolve({ code, out, err });
      });
      during?.((signal) => child.kill(signal)).catch(reject);
    });
  }

  /** In this process, for what ends before anything is run. */
  async function refused(args: readonly string[]): Promise<Ended> {
    const lines = { log: [] as string[], error: [] as string[] };
    const spies = (['log', 'error'] as const).map((name) =>
      vi.spyOn(console, name).mockImplementation((text: string) => void lines[name].push(text)),
    );
    const experiments = ['squares', 'failing'].map((id) => ({
      id,
      title: id,
      run: () => Promise.reject(new Error('not to be run')),
    }));
    const code = await runStudy(args, { experiments: () => experiments, modules });
    for (const spy of spies) spy.mockRestore();
    return { code, out: lines.log.join('\n'), err: lines.error.join('\n') };
  }

  test('--help lists options and experiments', async () => {
    const { code, out } = await refused(['--help']);
    expect(code).toBe(0);
    for (const text of [
      '--quick',
      '--only',
      '--out',
      '--workers',
      '--seeds',
      '--fresh',
      'squares, failing',
    ])
      expect(out).toContain(text);
  });

  test.each([
    [['--only', 'squares,dance'], "no experiment is called 'dance'; there are squares, failing"],
    [['--workers', 'many'], "--workers takes a whole number of at least 1, got 'many'"],
    [['--seeds', '1'], "--seeds takes a whole number of at least 2, got '1'"],
    [['--slow'], "Unknown option '--slow'"],
    [['extra'], "Unexpected argument 'extra'"],
  ])('%j is refused with exit code 2', async (args, message) => {
    const { code, err } = await refused(args);
    expect(err).toContain(message);
    expect(err).toContain('--help');
    expect(code).toBe(2);
  });

  test('killed at any moment, it goes on from there to the undisturbed results', async () => {
    const { directory, log, computed } = workplace();
    const args = (out: string, workers: number) => [
      '--quick',
      '--only',
      'squares',
      '--out',
      out,
      '--workers',
      String(workers),
    ];
    process.env.DIRALIGN_TEST_LOG = log;
    const first = path.join(directory, 'first');
    await study(args(first, 2), async (end) => {
      await until(() => computed().filter((line) => line.endsWith('ends')).length >= 2);
      end('SIGKILL');
    });
    const before = computed().filter((line) => line.endsWith('ends')).length;
    expect(before).toBeLessThan(8);
    const kept = fs
      .readdirSync(path.join(first, 'tasks'))
      .filter((name) => name.endsWith('.json')).length;
    const resumed = await study(args(first, 2));
    expect(resumed.code).toBe(0);
    expect(kept).toBeGreaterThanOrEqual(1);
    expect(resumed.out).toContain('report.html');

    const second = path.join(directory, 'second');
    expect((await study(args(second, 1))).code).toBe(0);
    interface Results {
      readonly sections: unknown;
      readonly tasks: number;
    }
    const [one, two] = [first, second].map(
      (out) => JSON.parse(fs.readFileSync(path.join(out, 'results.json'), 'utf8')) as Results,
    ) as [Results, Results];
    expect(one.sections).toEqual(two.sections);
    expect(one.tasks).toBe(8);
  });

  test('SIGINT ends it with 130, and says how to go on', async () => {
    const { directory, log, computed } = workplace();
    process.env.DIRALIGN_TEST_LOG = log;
    const { code, err } = await study(
      ['--only', 'squares', '--out', directory, '--workers', '1'],
      async (end) => {
        await until(() => computed().some((line) => line.endsWith('ends')));
        end('SIGINT');
      },
    );
    expect(err).toMatch(/Interrupted after .* with \d of 8 tasks done\. /);
    expect(err).toContain('tasks done. They are kept: the same command goes on from here.');
    expect(code).toBe(130);
    expect(fs.existsSync(path.join(directory, 'running'))).toBe(false);
  });

  test('a task that fails is reported with its stack, once, and the exit code is 1', async () => {
    const { directory, log } = workplace();
    process.env.DIRALIGN_TEST_LOG = log;
    const { code, err } = await study(['--only', 'failing', '--out', directory]);
    expect(err.match(/no luck with 4/g)).toHaveLength(1);
    expect(err).toMatch(/A task failed: throws \{.*\n.*RangeError: no luck with 4\n\s+at /);
    expect(code).toBe(1);
    expect(fs.existsSync(path.join(directory, 'report.html'))).toBe(false);
  });

  test('two in one folder would spoil each other', async () => {
    const { directory } = workplace();
    fs.writeFileSync(path.join(directory, 'running'), String(process.pid));
    const { code, err } = await refused(['--only', 'squares', '--out', directory]);
    expect(err).toContain(`process ${process.pid} is running a study in ${directory}`);
    expect(code).toBe(2);
  });
});
