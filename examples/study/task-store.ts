/** Results of tasks on disk: what a study resumes from. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Json, Task } from './study.js';

/** `tasks/<stage>-<hash>.json`: a result with what it is of. */
export interface TaskRecord {
  readonly stage: string;
  readonly params: Json;
  /** Of the stage's code: a record of another version is computed again. */
  readonly version: string;
  /** Time it took to compute, in seconds. */
  readonly seconds: number;
  /** Names of what the task keeps beside its result. */
  readonly files: readonly string[];
  readonly result: unknown;
}

/** Equal values have equal text, in whatever order their keys were written. */
export function canonicalJson(value: Json): string {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new RangeError(`${value} has no place in the parameters of a task`);
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const entries = Object.entries(value as Readonly<Record<string, Json | undefined>>)
    .filter((entry): entry is [string, Json] => entry[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`);
  return `{${entries.join(',')}}`;
}

/** The same for equal tasks, and a file name. */
export function taskKey({ stage, params }: Task): string {
  const hash = createHash('sha256').update(canonicalJson({ stage, params }));
  return `${stage}-${hash.digest('hex').slice(0, 24)}`;
}

/** Where a task keeps its files. */
export function taskDirectory(root: string, task: Task): string {
  return path.join(root, taskKey(task));
}

export class TaskStore {
  /** @param root - a folder of this store's own; it is made when the first result comes */
  constructor(readonly root: string) {}

  /** Undefined if the task was not computed by this version, or what it kept is gone. */
  read(task: Task, version: string): TaskRecord | undefined {
    const file = this.#file(task);
    if (!fs.existsSync(file)) return undefined;
    const record = parseRecord(file);
    if (record.version !== version) return undefined;
    const kept = record.files.every((name) =>
      fs.existsSync(path.join(taskDirectory(this.root, task), name)),
    );
    return kept ? record : undefined;
  }

  /**
   * An empty folder for the files of a task that is about to be computed; what an earlier attempt
   * left is removed.
   */
  prepare(task: Task): string {
    const directory = taskDirectory(this.root, task);
    fs.rmSync(this.#file(task), { force: true });
    fs.rmSync(directory, { recursive: true, force: true });
    fs.mkdirSync(directory, { recursive: true });
    return directory;
  }

  /**
   * All or nothing: a study that is killed leaves no half result. Where it cannot be written, the
   * study goes on with the record, and a warning says that the next run will not have it.
   */
  write(task: Task, computed: Pick<TaskRecord, 'version' | 'seconds' | 'result'>): TaskRecord {
    const directory = taskDirectory(this.root, task);
    const { version, seconds, result } = computed;
    const record: TaskRecord = {
      stage: task.stage,
      params: task.params,
      version,
      seconds,
      files: [],
      result,
    };
    const file = this.#file(task);
    try {
      const files = fs.readdirSync(directory).sort();
      if (files.length === 0) fs.rmdirSync(directory);
      fs.writeFileSync(
        `${file}.partial`,
        `${JSON.stringify({ ...record, files }, undefined, 1)}\n`,
      );
      fs.renameSync(`${file}.partial`, file);
      return { ...record, files };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      process.emitWarning(
        `${file} cannot be written: ${reason}. Its result is used; the next run computes it again.`,
        'StudyWarning',
      );
      return record;
    }
  }

  #file(task: Task): string {
    return `${taskDirectory(this.root, task)}.json`;
  }
}

function parseRecord(file: string): TaskRecord {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as TaskRecord;
  } catch (cause) {
    throw new Error(`${file} is damaged: delete it, and the task is computed again`, { cause });
  }
}
