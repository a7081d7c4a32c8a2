#!/usr/bin/env node
// Looks for calls, files and command lines that crash the process, write where they should not,
// give a wrong number, or fail without a code: npm run fuzz -- [options]. Without a number of
// anything it tries all three for 60 seconds.
//   --calls N, --files N, --command-lines N   so many of them
//   --seconds N     for so long; with numbers, at most so long
//   --seed S        the first seed; the default is a fresh one, which every run prints
//   --path P        one failure again, of the seed that it was found with; with the doors and
//                   backends of then
//   --plan JSON     one plan, as failures print it, with --kind calls, files or command-lines
//   --doors A,B     of logits, hidden, logps, tokens, backward
//   --backend A,B   of cpu, cuda; the default is what there is
//   --emulated      on the addon whose CUDA backend is emulated, which it builds first
//   --sanitize      the same, under AddressSanitizer and UndefinedBehaviorSanitizer
//   --failures N    goes on until so many were found; the default is 1
// Ends with 1 where it found something: its seed, its path, and the simplest plan that shows it.
import { fork } from 'node:child_process';
import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { clearInterval, setInterval } from 'node:timers';
import { parseArgs } from 'node:util';
import { buildEmulated, root } from './emulated.mjs';

/**
 * So many to a round. A round has one seed, and is what is tried again where a crash does not show
 * by itself.
 */
const rounds = { calls: 250, files: 250, 'command-lines': 5 };
/** A process that begins nothing for so long hangs, however busy the machine is. */
const patience = 600_000;

const text = { type: 'string' };
const flag = { type: 'boolean', default: false };
const { values: options } = parseArgs({
  options: {
    ...{ calls: text, files: text, 'command-lines': text, seconds: text, seed: text, path: text },
    ...{ plan: text, kind: { ...text, default: 'calls' }, failures: { ...text, default: '1' } },
    ...{
      doors: { ...text, default: 'logits,hidden,logps,tokens,backward' },
      backend: { ...text, default: 'cpu,cuda' },
    },
    ...{ emulated: flag, sanitize: flag },
  },
});
function number(name, otherwise) {
  const value = Number(options[name] ?? otherwise);
  if (Number.isNaN(value)) throw new TypeError(`--${name}: ${options[name]} is not a number`);
  return value;
}
const kinds = Object.keys(rounds);
const counted = kinds.filter((kind) => options[kind] !== undefined);
/** Still to do, by kind. */
const left = Object.fromEntries(
  (counted.length > 0 ? counted : kinds).map((kind) => [kind, number(kind, Infinity)]),
);
const seed = number('seed', randomInt(2 ** 31));
const mostFailures = number('failures');

const environment =
  options.emulated || options.sanitize ? buildEmulated({ sanitize: options.sanitize }) : {};
if (options.sanitize) {
  // An impossible allocation fails, as it does without the sanitizer; a report has a status of its
  // own.
  environment.ASAN_OPTIONS +=
    ':exitcode=99:allocator_may_return_null=1:max_allocation_size_mb=4096';
  environment.UBSAN_OPTIONS += ':exitcode=99';
}
// From here on: an addon that had to be built has taken none of it.
const deadline = performance.now() + 1000 * number('seconds', counted.length > 0 ? 2e6 : 60);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-fuzz-'));
process.on('exit', () => {
  fs.rmSync(folder, { recursive: true, force: true });
});
const trace = path.join(folder, 'trace');

// ----------------------------------------------------------------------------------------------
// The process that may die

let worker;
/** The end of what it wrote to standard error. */
let words;
function startWorker() {
  words = '';
  worker = fork(path.join(root, 'tests/fuzz/worker.ts'), {
    cwd: root,
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, ...environment, FUZZ_FOLDER: folder },
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  worker.stderr.setEncoding('utf8').on('data', (data) => {
    words = (words + data).slice(-20_000);
  });
}

/** What comes of a job: `report`, or how the process ended that was at it. */
function dispatch(job) {
  if (worker === undefined || worker.exitCode !== null || worker.signalCode !== null) startWorker();
  const current = worker;
  const begun = Date.now();
  return new Promise((resolve) => {
    const watch = setInterval(() => {
      const last = Math.max(begun, fs.statSync(trace, { throwIfNoEntry: false })?.mtimeMs ?? 0);
      if (Date.now() - last > patience) current.kill('SIGKILL');
    }, 1000);
    const settle = (outcome) => {
      clearInterval(watch);
      for (const event of ['message', 'close']) current.removeAllListeners(event);
      resolve(outcome);
    };
    current.once('message', (report) => settle({ report }));
    current.once('close', (status, signal) => settle({ ended: signal ?? `status ${status}` }));
    current.send({ doors: options.doors.split(','), backends: options.backend.split(','), ...job });
  });
}

// ----------------------------------------------------------------------------------------------
// What was found

const flags = [
  ...(options.doors === 'logits,hidden,logps,tokens,backward' ? [] : [`--doors ${options.doors}`]),
  ...(options.backend === 'cpu,cuda' ? [] : [`--backend ${options.backend}`]),
  ...(options.sanitize ? ['--sanitize'] : options.emulated ? ['--emulated'] : []),
]
  .map((one) => ` ${one}`)
  .join('');

let failures = 0;
function report({ kind, seed: own }, { message, path: at, plan }) {
  failures++;
  const again = `npm run fuzz --${flags}`;
  console.log(`\nFOUND in ${kind}: ${message}`);
  console.log(`  again: ${again} --${kind} 1 --seed ${own} --path ${at}`);
  console.log(
    `  its plan: ${again} --kind ${kind} --plan '${JSON.stringify(plan).replaceAll("'", "'\\''")}'`,
  );
}

/** A process ended: what it was at, in its simplest form where that ends a process by itself. */
async function reportCrash(job, ended) {
  if (!fs.existsSync(trace)) throw new Error(`the process did not start: ${ended}\n${words}`);
  const { run, plan } = JSON.parse(fs.readFileSync(trace, 'utf8').split('\n')[0]);
  const said = words;
  const { report: shrunk } = await dispatch({
    ...job,
    path: String(run),
    runs: 1,
    shrinkCrash: true,
    milliseconds: 60_000,
  });
  const alone = shrunk?.failure
    ? ''
    : `; not by this plan alone: try the round again, --${job.kind} ${job.runs} --seed ${job.seed}`;
  const how = ended === 'SIGKILL' ? 'SIGKILL: it hung, or memory ran out' : ended;
  const { path: at = String(run), plan: simplest = plan } = shrunk?.failure ?? {};
  report(job, {
    message: `the process ended by ${how}${alone}\n${said}`,
    path: at,
    plan: simplest,
  });
}

const done = Object.fromEntries(kinds.map((kind) => [kind, 0]));
const outcomes = {};
const megabytes = [];
async function runRound(kind, round) {
  const runs = Math.min(rounds[kind], left[kind]);
  const milliseconds = Math.min(Math.max(1, deadline - performance.now()), 2 ** 31 - 1);
  const job = { kind, runs, seed: (seed + round) % 2 ** 31, path: options.path, milliseconds };
  const { report: found, ended } = await dispatch(job);
  left[kind] -= runs;
  if (ended !== undefined) {
    await reportCrash(job, ended);
    return;
  }
  done[kind] += found.runs;
  for (const [name, n] of Object.entries(found.outcomes))
    outcomes[name] = (outcomes[name] ?? 0) + n;
  megabytes.push(Math.round(found.memory / 2 ** 20));
  if (found.failure) report(job, found.failure);
}

async function runPlan() {
  const job = {
    kind: options.kind,
    plan: JSON.parse(options.plan),
    seed,
    runs: 1,
    milliseconds: patience,
  };
  const { report: found, ended } = await dispatch(job);
  console.log(
    ended === undefined
      ? (found.failure?.message ?? 'nothing is wrong')
      : `the process ended by ${ended}\n${words}`,
  );
  failures = ended === undefined && !found.failure ? 0 : 1;
}

async function runRounds() {
  console.log(`fuzz: seed ${seed}${flags}`);
  const isOver = () => failures >= mostFailures || performance.now() > deadline;
  for (let round = 0; !isOver() && Object.values(left).some((n) => n > 0); round++) {
    for (const kind of Object.keys(left))
      if (left[kind] > 0 && !isOver()) await runRound(kind, round);
    if (options.path !== undefined) break;
  }
  // Early, once everything was allocated that is kept, and in the end.
  const memory = [megabytes[Math.floor(megabytes.length / 5)], megabytes.at(-1)];
  const seconds = Math.round(performance.now() / 1000);
  console.log(
    JSON.stringify({
      version: process.version,
      seed,
      ...done,
      outcomes,
      megabytes: memory,
      seconds,
      failures,
    }),
  );
}

await (options.plan === undefined ? runRounds() : runPlan());
worker?.kill();
process.exitCode = failures > 0 ? 1 : 0;
