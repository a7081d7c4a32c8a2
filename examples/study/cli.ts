/** `npm run study`: options, what is run, and how it ends. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { duration, Progress } from './progress.js';
import { StudyStopped, TaskRunner } from './runner.js';
import { packageVersion, stageVersions, type StageModules } from './stages.js';
import type { Experiment, Scale, Section } from './study.js';
import { TaskStore } from './task-store.js';

/** What there is to run. */
export interface Catalogue {
  /** @param seeds - evaluation seeds of the language model, if not the scale's own number */
  readonly experiments: (seeds: number | undefined) => readonly Experiment[];
  readonly modules: StageModules;
}

interface Options {
  readonly scale: Scale;
  readonly only: readonly string[] | undefined;
  readonly out: string;
  readonly workers: number;
  readonly fresh: boolean;
  readonly seeds: number | undefined;
}

class UsageError extends Error {}

const exitCodes = { failed: 1, usage: 2, interrupted: 130 } as const;

function usage(ids: readonly string[]): string {
  return `npm run study -- [options]

Repeats the experiments of arXiv 2502.01237 on a small language model and writes a report.

  --quick        every part in a short form, in minutes
  --only IDS     some of ${ids.join(', ')} (with commas)
  --out DIR      where results and report go (study-results)
  --workers N    processes at once (one per processor: ${os.availableParallelism()})
  --seeds N      seeds behind each interval of the language model's experiments, at least 2
  --fresh        forget earlier results in DIR
  --help         this text

Results are kept in DIR/tasks as they come: the same command goes on where an earlier one ended.`;
}

/** @returns the exit code: 0, 1 if something failed, 2 for wrong arguments, 130 if interrupted */
export async function runStudy(args: readonly string[], catalogue: Catalogue): Promise<number> {
  const ids = catalogue.experiments(undefined).map(({ id }) => id);
  try {
    const options = parseOptions(args, ids);
    if (options === 'help') {
      console.log(usage(ids));
      return 0;
    }
    return await withLock(options.out, () => study(options, args, catalogue));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\nnpm run study -- --help lists the options.`);
    return exitCodes.usage;
  }
}

function parseOptions(args: readonly string[], ids: readonly string[]): Options | 'help' {
  const { values } = readArguments(args);
  if (values.help) return 'help';
  const only = values.only?.split(',').map((id) => id.trim());
  const unknown = only?.find((id) => !ids.includes(id));
  if (unknown !== undefined)
    throw new UsageError(`no experiment is called '${unknown}'; there are ${ids.join(', ')}`);
  return {
    scale: values.quick ? 'quick' : 'full',
    only,
    out: path.resolve(values.out),
    workers:
      values.workers === undefined
        ? os.availableParallelism()
        : count('--workers', values.workers, 1),
    fresh: values.fresh,
    seeds: values.seeds === undefined ? undefined : count('--seeds', values.seeds, 2),
  };
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        out: { type: 'string', default: 'study-results' },
        workers: { type: 'string' },
        seeds: { type: 'string' },
        fresh: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function count(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least)
    throw new UsageError(`${name} takes a whole number of at least ${least}, got '${text}'`);
  return value;
}

/** Two studies in one folder would empty each other's directories. */
async function withLock<Result>(directory: string, action: () => Promise<Result>): Promise<Result> {
  fs.mkdirSync(directory, { recursive: true });
  const file = path.join(directory, 'running');
  const owner = fs.existsSync(file) ? Number(fs.readFileSync(file, 'utf8')) : undefined;
  if (owner !== undefined && isAlive(owner)) {
    throw new UsageError(
      `process ${owner} is running a study in ${directory}: wait for it, or choose another --out`,
    );
  }
  fs.writeFileSync(file, String(process.pid));
  try {
    return await action();
  } finally {
    fs.rmSync(file, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function study(
  options: Options,
  args: readonly string[],
  { experiments, modules }: Catalogue,
): Promise<number> {
  const { scale, only, out, workers, fresh, seeds } = options;
  const tasks = path.join(out, 'tasks');
  if (fresh) fs.rmSync(tasks, { recursive: true, force: true });
  const start = Date.now();
  const runner = new TaskRunner({
    store: new TaskStore(tasks),
    modules,
    versions: await stageVersions(modules),
    workers,
  });
  const progress = new Progress({ stream: process.stderr, workers, status: () => runner.status() });
  const elapsed = (): string => duration((Date.now() - start) / 1000);

  const interruption = new AbortController();
  const interrupt = (): void => {
    interruption.abort();
    runner.stop();
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);

  const run = async (experiment: Experiment): Promise<Section> => {
    try {
      const section = await experiment.run({ scale, run: (task) => runner.run(task) });
      progress.log(`${experiment.id}: done after ${elapsed()}`);
      return section;
    } catch (error) {
      // Of a failed task it is said once, at the end.
      if (!(error instanceof StudyStopped) && error !== runner.failure)
        progress.log(`${experiment.id} failed: ${describe(error)}`);
      throw error;
    }
  };
  const chosen = experiments(seeds).filter(({ id }) => only?.includes(id) ?? true);
  const results = await Promise.allSettled(chosen.map(run));
  await runner.settled();
  progress.stop();
  process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  const status = runner.status();
  runner.stop();

  const sections = results.flatMap((result) =>
    result.status === 'fulfilled' ? [result.value] : [],
  );
  if (sections.length < chosen.length) {
    if (runner.failure) console.error(`A task failed: ${runner.failure.message}`);
    console.error(
      `${interruption.signal.aborted ? 'Interrupted' : 'Ended'} after ${elapsed()} with ` +
        `${status.done} of ${status.known} tasks done. They are kept: ` +
        'the same command goes on from here.',
    );
    return interruption.signal.aborted ? exitCodes.interrupted : exitCodes.failed;
  }
  const computation = runner.records.reduce((sum, { seconds }) => sum + seconds, 0);
  // The libraries that draw it take a second to load.
  const { writeReport } = await import('./report/write.js');
  const written = await writeReport(out, sections, {
    command: ['npm run study', ...(args.length > 0 ? ['--', ...args] : [])].join(' '),
    scale,
    date: new Date().toISOString().slice(0, 10),
    diralign: packageVersion,
    node: process.version,
    processor: os.cpus()[0]?.model.trim() ?? 'unknown',
    workers,
    duration: elapsed(),
    computation: duration(computation),
    tasks: status.done,
    seeds: seedsOf(runner),
  });
  for (const file of written) console.log(path.relative(process.cwd(), file));
  return 0;
}

/** Per stage, from the parameters of its tasks. */
function seedsOf(runner: TaskRunner): string {
  const seeds = new Map<string, Set<number>>();
  for (const { stage, params } of runner.records) {
    const seed =
      params !== null && typeof params === 'object' && 'seed' in params ? params.seed : undefined;
    if (typeof seed === 'number') seeds.set(stage, (seeds.get(stage) ?? new Set()).add(seed));
  }
  return [...seeds]
    .map(([stage, values]) => `${stage} ${[...values].sort((a, b) => a - b).join(', ')}`)
    .join('; ');
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
