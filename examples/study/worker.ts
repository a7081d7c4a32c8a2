/** A process that computes tasks, one at a time, for a {@link TaskRunner}. */
import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { StageModule } from './stages.js';
import type { StageContext, Task } from './study.js';
import { taskDirectory } from './task-store.js';

/** What a worker is asked for. */
export interface Job {
  readonly task: Task;
  /** URL of the module that has the task's stage. */
  readonly module: string;
  /** Where all tasks keep their files; that of this task exists and is empty. */
  readonly root: string;
}

/** What it says. The last message of a job is `done` or `failed`. */
export type Report =
  | { readonly kind: 'progress'; readonly share: number }
  | { readonly kind: 'done'; readonly result: unknown; readonly seconds: number }
  | { readonly kind: 'failed'; readonly stack: string };

function contextOf({ task, root }: Job): StageContext {
  return {
    directory: taskDirectory(root, task),
    directoryOf: (other) => {
      const directory = taskDirectory(root, other);
      if (fs.existsSync(directory)) return directory;
      throw new Error(
        `${other.stage} ${JSON.stringify(other.params)} has kept no files: ` +
          'the experiment must await it first',
      );
    },
    progress: (share) => {
      report({ kind: 'progress', share });
    },
  };
}

async function compute(job: Job): Promise<Report> {
  try {
    const { stages } = (await import(job.module)) as Partial<StageModule>;
    const stage = stages?.[job.task.stage];
    if (!stage) throw new Error(`${job.module} exports no stage '${job.task.stage}'`);
    const start = performance.now();
    const result = await stage(job.task.params, contextOf(job));
    if (result === undefined) throw new Error('the stage returned nothing');
    return { kind: 'done', result, seconds: (performance.now() - start) / 1000 };
  } catch (error) {
    return {
      kind: 'failed',
      stack: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }
}

function report(message: Report): void {
  process.send?.(message);
}

if (!process.send) throw new Error('worker.ts is started by a study: npm run study');
process.on('message', (job: Job) => void compute(job).then(report));
// Nobody is left to hear the result.
process.on('disconnect', () => process.exit());
// A terminal sends it to every process; the study decides what ends, and when.
process.on('SIGINT', () => undefined);
