/**
 * Pretraining, SFT and alignment as the study's stages: from the parameters of a task to its
 * result, checkpoints in its directory.
 */
import path from 'node:path';
import { dirAlignLoss, type ObjectiveCalls } from 'diralign';
import { cachedReference, fingerprint, mismatched, type PreferencePair } from 'diralign/data';
import { tensorBoardLogger } from 'diralign/logging';
import { tfDirAlignLoss } from 'diralign/tfjs';
import { carelessSummaries, demonstrations, preferences, type Example } from '../records/data.js';
import { randomFor, shuffled } from '../records/random.js';
import type { StageContext, Task } from '../study.js';
import { startBackend, threads } from './backend.js';
import { exampleBatch, pairBatch, unpairedBatch, type Batch } from './batch.js';
import { compare, estimateKl, evaluationOf, sampleHeldOut } from './evaluation.js';
import { batchSize, modelShape, pretrainLearningRate, sftLearningRate, sizes } from './settings.js';
import {
  pretrainTask,
  sftTask,
  type AlignParams,
  type AlignResult,
  type PretrainParams,
  type SftParams,
  type SftResult,
} from './tasks.js';
import { completionLogps, train, type BatchLoss, type Trained, type Training } from './training.js';
import { initialWeights, loadWeights, saveWeights } from './weights.js';

type Metrics = Readonly<Record<string, number | undefined>>;

export async function pretrain(params: PretrainParams, context: StageContext): Promise<SftResult> {
  const weights = initialWeights(modelShape, randomFor(params.seed, 'weights'));
  const source = carelessSummaries(params.seed);
  const examples = Array.from(
    { length: sizes[params.scale].pretrainSteps * batchSize },
    () => source.next().value,
  );
  return trainOnExamples(weights, examples, pretrainLearningRate, params, context);
}

export async function sft(params: SftParams, context: StageContext): Promise<SftResult> {
  const weights = loadWeights(
    checkpoint(context.directoryOf(pretrainTask(baseOf(params)))),
    modelShape,
  );
  const all = demonstrations(params.seed, sizes[params.scale].demonstrations);
  const examples = all.slice(0, Math.ceil((all.length * params.share) / 100));
  return trainOnExamples(weights, examples, sftLearningRate, params, context);
}

export async function align(params: AlignParams, context: StageContext): Promise<AlignResult> {
  const start = performance.now();
  await startBackend();
  const initial = context.directoryOf(initTask(params));
  const weights = loadWeights(checkpoint(initial), modelShape);
  const pairs = preferences(params.seed, sizes[params.scale].preferences);
  const metrics: Metrics[] = [];
  const data =
    params.method === 'kto'
      ? unpairedData(pairs, weights, params, metrics)
      : await pairedData(pairs, initial, weights, params, metrics);
  const { losses, diverged } = await trainLogged(
    weights,
    { learningRate: params.learningRate, ...data },
    context,
    metrics,
  );
  saveWeights(checkpoint(context.directory), modelShape, weights);

  const opponent = loadWeights(
    checkpoint(context.directoryOf(sftTask({ ...baseOf(params), share: 100 }))),
    modelShape,
  );
  const sampled = sampleHeldOut(weights, params);
  return {
    evaluation: evaluationOf(sampled),
    ...compare(sampled, sampleHeldOut(opponent, params, 'sampling of the opponent')),
    kl: estimateKl(weights, opponent, sampled),
    losses,
    accuracies: metrics.slice(0, losses.length).map((each) => each['rewards/accuracies'] ?? NaN),
    diverged,
    seconds: secondsSince(start),
  };
}

export const stages = { pretrain, sft, align };

// ----------------------------------------------------------------------------------------------

function checkpoint(directory: string): string {
  return path.join(directory, 'model.safetensors');
}

function baseOf({ scale, seed }: PretrainParams): PretrainParams {
  return { scale, seed };
}

function initTask(params: AlignParams): Task {
  return params.init === 'base'
    ? pretrainTask(baseOf(params))
    : sftTask({ ...baseOf(params), share: params.init.share });
}

function secondsSince(start: number): number {
  return (performance.now() - start) / 1000;
}

function inBatches<T>(values: readonly T[], size = batchSize): T[][] {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) =>
    values.slice(i * size, (i + 1) * size),
  );
}

/**
 * Training that leaves the numbers of each step beside its checkpoint: `tensorboard --logdir
 * study-results/tasks`.
 */
async function trainLogged(
  weights: Float32Array,
  training: Training,
  context: StageContext,
  metrics: readonly Metrics[] = [],
): Promise<Trained> {
  const logger = tensorBoardLogger(context.directory);
  const onStep = (step: number, loss: number): void => {
    logger.log(step, { loss, ...metrics[step] });
    context.progress((step + 1) / training.batches.length);
  };
  const trained = train(weights, modelShape, { ...training, onStep });
  await logger.close();
  return trained;
}

/** One epoch, an evaluation and a checkpoint. */
async function trainOnExamples(
  weights: Float32Array,
  examples: readonly Example[],
  learningRate: number,
  params: PretrainParams,
  context: StageContext,
): Promise<SftResult> {
  const start = performance.now();
  await startBackend();
  const likelihood = tfDirAlignLoss(dirAlignLoss('sft'));
  const loss: BatchLoss = (logits, { labels, offsets }) =>
    likelihood(logits, { labels, offsets }, { threads });
  const batches = inBatches(examples).map(exampleBatch);
  const trained = await trainLogged(weights, { learningRate, batches, loss: () => loss }, context);
  if (trained.diverged)
    throw new Error(`Training on examples at a learning rate of ${learningRate} diverged.`);
  saveWeights(checkpoint(context.directory), modelShape, weights);
  const evaluation = evaluationOf(sampleHeldOut(weights, params));
  return { evaluation, losses: trained.losses, seconds: secondsSince(start) };
}

type Data = Pick<Training, 'batches' | 'loss'>;

async function pairedData(
  pairs: readonly PreferencePair<readonly number[]>[],
  initial: string,
  weights: Float32Array,
  params: AlignParams,
  metrics: Metrics[],
): Promise<Data> {
  const batches = inBatches(pairs).map(pairBatch);
  const references = needsReference(params)
    ? await referenceLogps(initial, weights, batches, params)
    : undefined;
  const objective = objectiveOf(params);
  const loss = (step: number): BatchLoss =>
    pairLoss(objective, references?.[step], (found) => metrics.push(found));
  return { batches, loss };
}

/**
 * The completions of the pairs as single examples in an order of their own, as many a step as there
 * are in a batch of pairs. The baseline is of completions that are not their prompts', under the
 * weights of the step and under those that it all starts from.
 */
function unpairedData(
  pairs: readonly PreferencePair<readonly number[]>[],
  weights: Float32Array,
  { seed, beta }: AlignParams,
  metrics: Metrics[],
): Data {
  const examples = shuffled(
    randomFor(seed, 'order of single examples'),
    pairs.flatMap(({ prompt, chosen, rejected }) => [
      { prompt, completion: chosen, desirable: true },
      { prompt, completion: rejected, desirable: false },
    ]),
  );
  const initial = weights.slice();
  const steps = inBatches(examples, 2 * batchSize).map((some) => ({
    batch: unpairedBatch(some),
    others: unpairedBatch(mismatched(some)),
  }));
  const kto = tfDirAlignLoss(dirAlignLoss('kto', beta));
  const loss = (step: number): BatchLoss => {
    const { batch, others } = steps[step] as (typeof steps)[number];
    const logpsOf = (of: Float32Array, some: Batch) => completionLogps(of, modelShape, some);
    const reference = logpsOf(initial, batch);
    const kl = { logps: logpsOf(weights, others), reference: logpsOf(initial, others) };
    return (logits, { labels, offsets }) =>
      kto(
        logits,
        { labels, offsets, reference, kl, desirable: batch.desirable },
        {
          threads,
          onResult: (result) => {
            metrics.push(result.metrics);
          },
        },
      );
  };
  return { batches: steps.map(({ batch }) => batch), loss };
}

/** Each method as it is by default, which is its original normalisation. */
function objectiveOf({ method, beta, lambda }: AlignParams): ObjectiveCalls {
  if (method === 'kto') throw new Error('kto is of single examples');
  if (lambda === 0) return dirAlignLoss(method, beta);
  if (method !== 'orpo' && method !== 'asft')
    throw new Error(`${method} has no likelihood term: lambda must be 0, not ${lambda}.`);
  return dirAlignLoss({ method, beta, sftWeight: lambda });
}

function needsReference({ method }: AlignParams): boolean {
  return method !== 'simpo' && method !== 'orpo' && method !== 'asft';
}

/**
 * By batch: what the model that the policy starts from says of the preferences. Kept beside its
 * checkpoint, for the runs to come.
 */
async function referenceLogps(
  directory: string,
  weights: Float32Array,
  batches: readonly Batch[],
  { seed }: PretrainParams,
): Promise<Float64Array[]> {
  const data = await fingerprint(
    { file: checkpoint(directory) },
    'preferences',
    seed,
    batches.length,
    batchSize,
  );
  const { logps } = await cachedReference(
    path.join(directory, 'reference.safetensors'),
    { fingerprint: data },
    () => {
      const found = batches.flatMap((batch) =>
        Array.from(completionLogps(weights, modelShape, batch)),
      );
      const counts = batches.flatMap(({ offsets }) =>
        Array.from(offsets.subarray(1), (end, i) => end - (offsets[i] as number)),
      );
      return { logps: Float64Array.from(found), counts: Int32Array.from(counts) };
    },
  );
  let end = 0;
  return batches.map(({ offsets }) => logps.subarray(end, (end += offsets.length - 1)));
}

function pairLoss(
  objective: ObjectiveCalls,
  reference: Float64Array | undefined,
  onMetrics: (metrics: Metrics) => void,
): BatchLoss {
  const loss = tfDirAlignLoss(objective);
  return (logits, { labels, offsets }) =>
    loss(
      logits,
      { labels, offsets, ...(reference && { reference }) },
      {
        threads,
        onResult: ({ metrics }) => {
          onMetrics(metrics);
        },
      },
    );
}
