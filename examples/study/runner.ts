/** Tasks on every processor, each computed once. */
import { fork, type ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { StageModules } from './stages.js';
import type { Task } from './study.js';
import { taskKey, TaskStore, type TaskRecord } from './task-store.js';
import type { Job, Report } from './worker.js';

export interface RunnerOptions {
  readonly store: TaskStore;
  readonly modules: StageModules;
  /** Of each stage; results of other versions are computed again. */
  readonly versions: Readonly<Record<string, string>>;
  /** Processes at once. */
  readonly workers: number;
}

/** A moment of a run. */
export interface RunnerStatus {
  readonly done: number;
  /** Those of `done` that an earlier run computed. */
  readonly reused: number;
  /** All that were asked for; experiments ask for more as results come. */
  readonly known: number;
  readonly running: readonly { readonly stage: string; readonly share: number }[];
  /**
   * Computation that is left in what is known, in seconds of one process; undefined before the
   * first result.
   */
  readonly remaining: number | undefined;
}

/** A stage threw, or its process ended. */
export class TaskFailure extends Error {
  override readonly name = 'TaskFailure';
  constructor(
    readonly task: Task,
    /** The stage's stack, or what became of its process. */
    readonly reason: string,
  ) {
    super(`${task.stage} ${JSON.stringify(task.params)}\n${reason}`);
  }
}

/** A task that was not computed because the study ends. */
export class StudyStopped extends Error {
  override readonly name = 'StudyStopped';
}

interface Entry {
  readonly task: Task;
  readonly resolve: (record: TaskRecord) => void;
  readonly reject: (error: Error) => void;
}

export class TaskRunner {
  readonly #options: RunnerOptions;
  /** Every task that was asked for, by key. */
  readonly #tasks = new Map<string, Promise<TaskRecord>>();
  readonly #records: TaskRecord[] = [];
  readonly #waiting: Entry[] = [];
  readonly #running = new Map<Worker, Entry>();
  readonly #idle: Worker[] = [];
  #reused = 0;
  #stopped = false;
  #failure: TaskFailure | undefined;

  constructor(options: RunnerOptions) {
    if (!Number.isInteger(options.workers) || options.workers < 1) {
      throw new RangeError(`workers must be a positive integer, got ${options.workers}`);
    }
    this.#options = options;
  }

  /** The first that failed; what was waiting then was given up. */
  get failure(): TaskFailure | undefined {
    return this.#failure;
  }

  /** Records of all tasks that are done. */
  get records(): readonly TaskRecord[] {
    return this.#records;
  }

  /** @throws TaskFailure; StudyStopped if another task failed before this one began */
  run<Result>(task: Task): Promise<Result> {
    const key = taskKey(task);
    const record = this.#tasks.get(key) ?? this.#obtain(task);
    this.#tasks.set(key, record);
    const result = record.then((found) => found.result as Result);
    // An experiment may await it late, or, after a failure elsewhere, never.
    result.catch(() => undefined);
    return result;
  }

  status(): RunnerStatus {
    const running = [...this.#running].map(([worker, { task }]) => ({
      stage: task.stage,
      share: worker.share,
    }));
    const waiting = this.#waiting.map(({ task }) => ({ stage: task.stage, share: 0 }));
    const done = this.#records.length;
    return {
      done,
      reused: this.#reused,
      known: this.#tasks.size,
      running,
      remaining: this.#remaining([...running, ...waiting]),
    };
  }

  /** Ends when no task is running. */
  async settled(): Promise<void> {
    while (this.#running.size > 0)
      await Promise.allSettled([...this.#running.keys()].map(({ job }) => job));
  }

  /**
   * Ends all processes at once. Tasks that are not done are rejected, and computed again by the
   * next run.
   */
  stop(): void {
    this.#stopped = true;
    this.#giveUp('the study was stopped');
    for (const worker of [...this.#idle, ...this.#running.keys()]) worker.end();
  }

  async #obtain(task: Task): Promise<TaskRecord> {
    const { store, modules } = this.#options;
    if (!modules[task.stage])
      throw new Error(`no stage is called '${task.stage}': ${Object.keys(modules).join(', ')}`);
    const stored = store.read(task, this.#version(task));
    if (stored) {
      this.#records.push(stored);
      this.#reused++;
      return stored;
    }
    if (this.#stopped || this.#failure) throw new StudyStopped('the study has ended');
    return new Promise((resolve, reject) => {
      this.#waiting.push({ task, resolve, reject });
      this.#start();
    });
  }

  #version({ stage }: Task): string {
    return this.#options.versions[stage] as string;
  }

  #start(): void {
    while (this.#waiting.length > 0 && this.#running.size < this.#options.workers) {
      const worker = this.#idleWorker() ?? new Worker();
      const entry = this.#waiting.shift() as Entry;
      this.#running.set(worker, entry);
      void this.#compute(worker, entry);
    }
  }

  #idleWorker(): Worker | undefined {
    let worker = this.#idle.pop();
    while (worker && !worker.alive) worker = this.#idle.pop();
    return worker;
  }

  async #compute(worker: Worker, { task, resolve, reject }: Entry): Promise<void> {
    const { store, modules } = this.#options;
    try {
      store.prepare(task);
      const job = { task, module: (modules[task.stage] as URL).href, root: store.root };
      const record = store.write(task, {
        version: this.#version(task),
        ...(await worker.compute(job)),
      });
      this.#records.push(record);
      resolve(record);
    } catch (error) {
      const failure = new TaskFailure(task, error instanceof Error ? error.message : String(error));
      reject(this.#stopped ? new StudyStopped('the study was stopped') : failure);
      if (!this.#stopped) this.#failure ??= failure;
      this.#giveUp('another task failed');
    }
    this.#running.delete(worker);
    if (this.#stopped) worker.end();
    else if (worker.alive) this.#idle.push(worker);
    this.#start();
  }

  #giveUp(reason: string): void {
    for (const { reject } of this.#waiting.splice(0)) reject(new StudyStopped(reason));
  }

  /** From the mean time of each stage; of a stage that was never computed, that of all. */
  #remaining(
    tasks: readonly { readonly stage: string; readonly share: number }[],
  ): number | undefined {
    if (this.#records.length === 0) return undefined;
    const times = new Map<string, { seconds: number; count: number }>();
    let total = 0;
    for (const { stage, seconds } of this.#records) {
      const time = times.get(stage) ?? { seconds: 0, count: 0 };
      times.set(stage, { seconds: time.seconds + seconds, count: time.count + 1 });
      total += seconds;
    }
    const overall = { seconds: total, count: this.#records.length };
    return tasks.reduce((sum, { stage, share }) => {
      const { seconds, count } = times.get(stage) ?? overall;
      return sum + (1 - share) * (seconds / count);
    }, 0);
  }
}

const workerModule = fileURLToPath(new URL('worker.ts', import.meta.url));
const tsconfig = fileURLToPath(new URL('../../tsconfig.json', import.meta.url));
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
/** Characters of what a process wrote to stderr, for the message if it ends. */
const stderrKept = 4000;

interface Computed {
  readonly result: unknown;
  readonly seconds: number;
}

/** A process that runs worker.ts. */
class Worker {
  readonly #process: ChildProcess;
  #stderr = '';
  #share = 0;
  #job: Promise<unknown> = Promise.resolve();
  #pending:
    | { readonly resolve: (computed: Computed) => void; readonly reject: (error: Error) => void }
    | undefined;

  constructor() {
    // The package is imported by its name, which tsconfig.json maps to its sources.
    const env = { ...process.env, TSX_TSCONFIG_PATH: tsconfig };
    this.#process = fork(workerModule, {
      execArgv: ['--import', tsx],
      env,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-stderrKept);
    });
    this.#process.on('message', (report: Report) => {
      if (report.kind === 'progress') this.#share = report.share;
      else if (report.kind === 'done') this.#pending?.resolve(report);
      else this.#pending?.reject(new Error(report.stack));
    });
    // `close` comes after the last of stderr; `exit` may come before it.
    this.#process.on('close', (code, signal) => {
      const how = signal ?? `code ${code ?? 'unknown'}`;
      this.#pending?.reject(new Error(`the process ended with ${how}\n${this.#stderr}`.trimEnd()));
    });
    this.#process.on('error', (error) => this.#pending?.reject(error));
  }

  get alive(): boolean {
    return (
      this.#process.exitCode === null &&
      this.#process.signalCode === null &&
      this.#process.connected
    );
  }

  /** Of the current job, 0 to 1. */
  get share(): number {
    return this.#share;
  }

  /** The current job or the last. */
  get job(): Promise<unknown> {
    return this.#job;
  }

  end(): void {
    this.#process.kill('SIGKILL');
  }

  compute(job: Job): Promise<Computed> {
    this.#share = 0;
    const computed = new Promise<Computed>((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#process.send(job);
    });
    this.#job = computed;
    return computed;
  }
}
