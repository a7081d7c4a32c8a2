// Runs the steps of `gpu:first` one after another, each in its time, and writes what is known after
// each: whatever the run is cut off at, what came before is there.
import { spawn } from 'node:child_process';
import { clearTimeout, setTimeout } from 'node:timers';

/** How a command's end reads. Exit codes are those of gpu:check and gpu:bench. */
const statusOf = { 0: 'ok', 1: 'missed', 2: 'failed' };

/** Milliseconds between asking a process to end and ending it. */
const patience = 3000;

const running = new Set();
const endGroup = (child, signal) => {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended.
  }
};
/** For when this process is ended itself: what it has started is in groups of their own. */
export function endAll() {
  for (const child of running) endGroup(child, 'SIGKILL');
}

/**
 * Runs a command and all that it starts, for so many seconds at most.
 * @param log is given what it says as it comes
 * @returns `status`: ok, missed, failed, or 'cut off' where its time was over; and what it said
 */
export function runCommand([file, ...args], { seconds, log, env = {} }) {
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...process.env, ...env },
    });
    running.add(child);
    let output = '';
    let isCut = false;
    const take = (data) => {
      output = `${output}${data}`.slice(-(2 ** 24));
      log(String(data));
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    let timer = setTimeout(() => {
      isCut = true;
      endGroup(child, 'SIGTERM');
      timer = setTimeout(() => endGroup(child, 'SIGKILL'), patience);
    }, 1000 * seconds);
    const end = (status) => {
      clearTimeout(timer);
      running.delete(child);
      // What the process has left behind would compute on.
      if (child.pid !== undefined) endGroup(child, 'SIGKILL');
      resolve({ status, output });
    };
    child.on('error', ({ message }) => {
      take(`${file}: ${message}\n`);
      end('failed');
    });
    child.on('close', (code) => end(isCut ? 'cut off' : (statusOf[code] ?? 'failed')));
  });
}

/**
 * @param {{ name: string, title: string, seconds: number, run(context: object): Promise<object>
 *   }[]} steps the most valuable first;
 *   `seconds`: the most that one may take, so that one which hangs does not keep the others from
 *   their answers
 * @param {object} how
 *   `end`: when nothing new is started and what runs is ended, by `now()` in milliseconds;
 *   `log(text)`; `keep(report)` is given the whole report before the first step and after each
 * @returns the report
 */
export async function runSteps(
  steps,
  { end, now = () => performance.now(), log, keep, about = {} },
) {
  const begin = now();
  const at = () => (now() - begin) / 1000;
  const report = {
    command: 'gpu:first',
    ...about,
    seconds: 0,
    ok: false,
    steps: steps.map(({ name, title }) => ({ name, title, status: 'not started' })),
  };
  keep(report);
  const results = {};
  for (const [i, step] of steps.entries()) {
    const left = (end - now()) / 1000;
    if (left <= 0 || report.stopped) continue;
    const from = at();
    log(`\n=== ${step.name}: ${step.title} (at ${from.toFixed(0)} s)\n`);
    report.steps[i] = { ...report.steps[i], status: 'running', from };
    keep(report);
    let outcome;
    try {
      outcome = await step.run({ seconds: Math.min(step.seconds, left), log, results });
    } catch (error) {
      outcome = { status: 'failed', says: [error.message] };
    }
    const { status, says = [], result, stops } = outcome;
    results[step.name] = result;
    report.steps[i] = { ...report.steps[i], status, seconds: at() - from, says, result };
    report.seconds = at();
    if (stops) report.stopped = `${step.name}: ${status}`;
    log(`--- ${step.name}: ${status} after ${(at() - from).toFixed(1)} s\n`);
    for (const line of says) log(`    ${line}\n`);
    keep(report);
  }
  report.ok = report.steps.every(({ status }) => status === 'ok');
  keep(report);
  return report;
}

/** The report in a few lines, for the end of a log. */
export function summary({ steps, seconds, stopped }) {
  const width = Math.max(...steps.map(({ name }) => name.length));
  return [
    ...steps.flatMap(({ name, status, from, seconds: took, says = [] }) => [
      `${name.padEnd(width)}  ${status}` +
        (from === undefined ? '' : ` (from ${from.toFixed(0)} s, ${took?.toFixed(0) ?? '?'} s)`),
      ...says.map((line) => `${' '.repeat(width)}    ${line}`),
    ]),
    `${steps.filter(({ status }) => status === 'ok').length} of ${steps.length} steps are ok ` +
      `after ${seconds.toFixed(0)} s` +
      (stopped === undefined ? '' : `; stopped by ${stopped}`),
  ];
}
