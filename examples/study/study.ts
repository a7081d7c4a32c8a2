/**
 * What an experiment is given and what it makes. The runner, the report and every experiment meet
 * here, and only here.
 */
import type { TopLevelSpec } from 'vega-lite';

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

/** `quick` shows every part in minutes; `full` is what its figures are quoted from. */
export type Scale = 'quick' | 'full';

/**
 * One computation: of the stage of this name, in a process of its own. The same task is computed
 * once, in this run or an earlier one.
 */
export interface Task<Params extends Json = Json> {
  readonly stage: string;
  /** All that the result depends on, seeds included. */
  readonly params: Params;
}

/** What a stage computes with. */
export interface StageContext {
  /**
   * Where this task keeps what is too large for its result, a checkpoint for instance. Exists, and
   * is empty.
   */
  readonly directory: string;
  /** Where an earlier task kept the same. The experiment has awaited that task. */
  directoryOf(task: Task): string;
  /** For the progress bar: the share that is done, 0 to 1. */
  progress(share: number): void;
}

/** Runs in a worker process. The result goes through JSON. */
export type Stage<Params extends Json = Json, Result = unknown> = (
  params: Params,
  context: StageContext,
) => Result | Promise<Result>;

export interface Study {
  readonly scale: Scale;
  /**
   * The result of a task; many may be awaited at once, and as many as there are processors are
   * computed at once.
   */
  run<Result>(task: Task): Promise<Result>;
}

export interface Table {
  readonly caption: string;
  readonly columns: readonly string[];
  /** Text, or numbers that are already rounded. */
  readonly rows: readonly (readonly (string | number)[])[];
}

export interface Chart {
  readonly caption: string;
  /** Data inside; drawn by vega-lite when the report is written. */
  readonly spec: TopLevelSpec;
}

/** Whether the data carry a claim. `unclear`: the confidence interval includes both answers. */
export type Outcome = 'reproduced' | 'not reproduced' | 'unclear';

export interface Finding {
  /** What the paper says, in one sentence. */
  readonly claim: string;
  readonly outcome: Outcome;
  /** What was measured, with its interval. */
  readonly evidence: string;
}

/** A part of the report. */
export interface Section {
  readonly id: string;
  readonly title: string;
  /** Paragraphs: what was done, so that a reader can judge the findings. */
  readonly text: readonly string[];
  readonly findings: readonly Finding[];
  readonly tables: readonly Table[];
  readonly charts: readonly Chart[];
  /** All numbers behind the tables and charts, for the JSON. */
  readonly data: Json;
}

export interface Experiment {
  readonly id: string;
  readonly title: string;
  run(study: Study): Promise<Section>;
}
