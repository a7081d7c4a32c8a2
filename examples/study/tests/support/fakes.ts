// A study whose stages are formulas: what the experiments conclude can be told beforehand.
import { createHash } from 'node:crypto';
import type {
  AlignParams,
  AlignResult,
  Evaluation,
  SftParams,
  SftResult,
} from '../../model/tasks.js';
import type { Scale, Study, Task } from '../../study.js';
import { taskKey } from '../../task-store.js';

export interface FakeModel {
  /** Quality after SFT. */
  readonly sft: (params: SftParams) => number;
  readonly align: (params: AlignParams) => {
    readonly quality: number;
    readonly kl: number;
    readonly diverged?: boolean;
  };
}

export interface FakeStudy extends Study {
  /** Every distinct task that was asked for. */
  readonly tasks: readonly Task[];
}

const evaluationOf = (quality: number): Evaluation => ({
  quality,
  perfect: quality ** 2,
  kept: 5 * quality,
  invented: 1 - quality,
  length: 12,
});

function compute({ stage, params }: Task, model: FakeModel): unknown {
  const rest = { losses: [1, 0.5], seconds: 0 };
  if (stage === 'pretrain') return { ...rest, evaluation: evaluationOf(0.3) } satisfies SftResult;
  if (stage === 'sft')
    return {
      ...rest,
      evaluation: evaluationOf(model.sft(params as unknown as SftParams)),
    } satisfies SftResult;
  if (stage !== 'align') throw new Error(`no fake stage '${stage}'`);
  const { quality, kl, diverged = false } = model.align(params as unknown as AlignParams);
  const [win, tie, lose] = [quality, (1 - quality) / 2, (1 - quality) / 2];
  return {
    ...rest,
    evaluation: evaluationOf(quality),
    win,
    tie,
    lose,
    kl,
    accuracies: [0.5, 0.9],
    diverged,
  } satisfies AlignResult;
}

/** Tasks that a task starts from must have been awaited before it. */
function requirements({ stage, params }: Task): string[] {
  const { scale, seed } = params as unknown as AlignParams;
  const pretrained = taskKey({ stage: 'pretrain', params: { scale, seed } });
  if (stage === 'sft') return [pretrained];
  if (stage !== 'align') return [];
  const { init } = params as unknown as AlignParams;
  const shares = [100, ...(init === 'base' ? [] : [init.share])];
  return [
    pretrained,
    ...shares.map((share) => taskKey({ stage: 'sft', params: { scale, seed, share } })),
  ];
}

export function fakeStudy(scale: Scale, model: FakeModel): FakeStudy {
  const tasks = new Map<string, Task>();
  const done = new Set<string>();
  return {
    scale,
    get tasks() {
      return [...tasks.values()];
    },
    async run<Result>(task: Task): Promise<Result> {
      const key = taskKey(task);
      tasks.set(key, task);
      const missing = requirements(task).find((required) => !done.has(required));
      if (missing !== undefined) throw new Error(`${key} was asked for before ${missing} was done`);
      // Results come later, and not in the order of the questions.
      await new Promise((resolve) => setTimeout(resolve, tasks.size % 3));
      done.add(key);
      return compute(task, model) as Result;
    },
  };
}

/** A small number that depends on the seed alone, so that pairs share it. */
export const seedNoise = (seed: number): number => 0.02 * Math.sin(12.9 * seed);
/** One that depends on all parameters, and on each seed anew. */
export function noise(params: object): number {
  const hash = createHash('sha256').update(JSON.stringify(params)).digest().readUInt32LE();
  return 0.01 * (hash / 2 ** 32 - 0.5);
}
