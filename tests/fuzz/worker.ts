// A process of the fuzzer: what it runs may crash it. scripts/fuzz.mjs starts it, gives it jobs one
// at a time, and reads in its trace what it was at when it died.
import { fork, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { availablePlaces } from './call.js';
import { commandLinePlans, checkCommandLine } from './command-lines.js';
import { checkFile, filePlans } from './files.js';
import { Fault } from './fault.js';
import { traceFile } from './folder.js';
import { check, takeOutcomes, twists } from './oracle.js';
import { callPlans, places, type Door, type Place } from './plan.js';
import { takeForgotten } from './resources.js';
import { isSanitized } from '../support/sanitizers.js';

/** Sent by scripts/fuzz.mjs. */
interface Job {
  readonly kind: 'calls' | 'files' | 'command-lines';
  readonly doors: readonly Door[];
  readonly backends: readonly ('cpu' | 'cuda')[];
  readonly seed: number;
  readonly runs: number;
  /** Where in the seed's values to begin. */
  readonly path?: string | undefined;
  /** In place of a seed's: one plan. */
  readonly plan?: unknown;
  /** The plan at `path` ends the process: look for a simpler one that does. */
  readonly shrinkCrash?: boolean;
  /** At most. */
  readonly milliseconds: number;
}

/** Sent back. */
interface Report {
  readonly runs: number;
  readonly failure?: { readonly path: string; readonly plan: unknown; readonly message: string };
  /** What came of the calls of this job. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Resident, in bytes. */
  readonly memory: number;
}

interface Kind {
  readonly plans: fc.Arbitrary<unknown>;
  readonly check: (plan: never) => Promise<void>;
}

function kindOf({ kind, doors, backends }: Job): Kind {
  if (kind === 'files') return { plans: filePlans, check: checkFile };
  if (kind === 'command-lines') return { plans: commandLinePlans, check: checkCommandLine };
  const reached = availablePlaces();
  const wanted: readonly Place[] = places.filter(
    (place) => reached.includes(place) && backends.includes(place === 'host' ? 'cpu' : 'cuda'),
  );
  if (wanted.length === 0) throw new Error(`no backend of ${backends.join(', ')} is available`);
  const names = twists.map(({ name }) => name);
  return { plans: callPlans({ doors, places: wanted, twists: names }), check };
}

/** What a call has no arrays for cannot be allocated, and the machine lives on. */
function limitMemory(): void {
  // The sanitizers take terabytes and have a limit of their own.
  if (process.platform === 'linux' && !isSanitized)
    spawnSync('prlimit', ['--data=16000000000', '--pid', String(process.pid)]);
}
limitMemory();

const trace = fs.openSync(traceFile, 'w');
function remember(run: number, plan: unknown): void {
  fs.writeSync(trace, `${JSON.stringify({ run, plan })}\n`, 0);
}

/** What Node itself found wrong, leaks of listeners among it. */
const warnings: string[] = [];
process.on('warning', ({ name, message }) => {
  if (name !== 'ExperimentalWarning') warnings.push(`${name}: ${message}`);
});

async function guarded(checkPlan: Kind['check'], plan: unknown): Promise<void> {
  takeForgotten(); // by a plan that failed
  await checkPlan(plan as never);
  const [forgotten] = takeForgotten();
  if (forgotten !== undefined) throw new Fault(`${forgotten} was not given back`);
  const [warning] = warnings.splice(0);
  if (warning !== undefined) throw new Error(`a warning of the process: ${warning}`);
}

/** Whether a process of its own dies of the plan. */
async function isFatal(job: Job, plan: unknown): Promise<boolean> {
  const child = fork(fileURLToPath(import.meta.url), { stdio: 'ignore' });
  const answered = new Promise<boolean>((resolve) => {
    child.once('message', () => {
      resolve(false);
    });
    child.once('exit', () => {
      resolve(true);
    });
  });
  child.send({ ...job, shrinkCrash: false, path: undefined, plan } satisfies Job);
  const fatal = await answered;
  child.kill('SIGKILL');
  return fatal;
}

/** A fault says all there is to say; what else was thrown is looked for by its stack. */
function wordsOf(error: unknown): string {
  if (error instanceof Fault) return error.message;
  return error instanceof Error ? String(error.stack) : String(error);
}

async function work(job: Job): Promise<Report> {
  const { plans, check: checkPlan } = kindOf(job);
  let runs = 0;
  const property = job.shrinkCrash
    ? async (plan: unknown) => {
        if (await isFatal(job, plan)) throw new Error('the process ends');
      }
    : async (plan: unknown) => {
        remember(runs++, plan);
        await guarded(checkPlan, plan);
      };
  const values = job.plan === undefined ? plans : fc.constant(job.plan);
  const details = await fc.check(fc.asyncProperty(values, property), {
    seed: job.seed,
    numRuns: job.plan === undefined ? job.runs : 1,
    ...(job.path !== undefined && { path: job.path }),
    plugins: [fc.interruptAfterTimeLimit(job.milliseconds)],
  });
  const { failed, counterexample, counterexamplePath, errorInstance, numRuns } = details;
  return {
    runs: numRuns,
    ...(failed && {
      failure: {
        path: counterexamplePath ?? '',
        plan: (counterexample as readonly [unknown] | null)?.[0],
        message: wordsOf(errorInstance),
      },
    }),
    outcomes: takeOutcomes(),
    memory: process.memoryUsage().rss,
  };
}

process.on('message', (job: Job) => {
  void work(job).then((report) => process.send?.(report));
});
