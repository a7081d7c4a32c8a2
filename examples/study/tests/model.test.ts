// The language model of the study: that its gradients, its attention, its sampling and its training
// are what they are said to be.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { dirAlignLoss } from 'diralign';
import { tfDirAlignLoss } from 'diralign/tfjs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startBackend, threads } from '../model/backend.js';
import {
  exampleBatch,
  longestSummary,
  pairBatch,
  positionCount,
  type Batch,
} from '../model/batch.js';
import { compare, estimateKl, evaluationOf, sampleHeldOut } from '../model/evaluation.js';
import { adam, norm, schedule } from '../model/optimizer.js';
import { drawToken, sampleSummaries } from '../model/sampling.js';
import { batchSize, modelShape, sizes } from '../model/settings.js';
import { stages } from '../model/stages.js';
import {
  alignTask,
  pretrainTask,
  sftTask,
  type AlignParams,
  type AlignResult,
  type SftResult,
} from '../model/tasks.js';
import { matricesFrom } from '../model/transformer.js';
import {
  batchLogits,
  completionLogps,
  lossAndGradient,
  train,
  type BatchLoss,
} from '../model/training.js';
import {
  initialWeights,
  loadWeights,
  matricesOf,
  saveWeights,
  viewsOf,
  type ModelShape,
} from '../model/weights.js';
import {
  carelessSummaries,
  demonstrations,
  heldOutRecords,
  preferences,
  type Example,
} from '../records/data.js';
import { randomFor } from '../records/random.js';
import { summaryEnd, summaryStart, vocabulary } from '../records/vocabulary.js';
import { mean } from '../statistics.js';
import type { StageContext, Task } from '../study.js';

// The stages as they are, over less: sizes are all that is replaced.
vi.mock('../model/settings.js', async (importOriginal) => {
  const settings = await importOriginal<typeof import('../model/settings.js')>();
  const tiny = { pretrainSteps: 60, demonstrations: 640, preferences: 480, prompts: 48 };
  return {
    ...settings,
    modelShape: { ...settings.modelShape, width: 24 },
    sizes: { quick: tiny, full: tiny },
  };
});

const shape: ModelShape = { layers: 2, heads: 2, width: 8, positions: positionCount };
const words = vocabulary.length;
const weights = initialWeights(shape, randomFor(1, 'weights'));
const pairs = preferences(1, 4);
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-study-'));

beforeAll(startBackend);
afterAll(() => {
  fs.rmSync(directory, { recursive: true });
});

function logitsFor(batch: Batch): Float32Array {
  const logits = batchLogits(matricesFrom(shape, weights), shape, batch);
  return logits.dataSync<'float32'>();
}

/** Rows of logits of completion i. */
function rowsOf(batch: Batch, logits: Float32Array, i: number): Float32Array {
  return logits.slice(
    (batch.offsets[i] as number) * words,
    (batch.offsets[i + 1] as number) * words,
  );
}

function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative: number,
): void {
  expect(actual.length).toBe(expected.length);
  const size = Math.max(...Array.from(expected, Math.abs));
  expect(size).toBeGreaterThan(0);
  const worst = Math.max(
    ...Array.from(expected, (value, i) => Math.abs((actual[i] as number) - value)),
  );
  expect(worst).toBeLessThan(relative * size);
}

describe('the model', () => {
  const dpo = dirAlignLoss('dpo', 0.5);
  const reference = Float64Array.from({ length: 2 * pairs.length }, (_, i) => -10 - i);
  const loss: BatchLoss = (logits, { labels, offsets }) =>
    tfDirAlignLoss(dpo)(logits, { labels, offsets, reference }, { threads });

  test.each(matricesOf(shape).map(({ name }) => name))(
    'has the gradient of its loss in %s',
    (name) => {
      // Larger weights than training begins with: what attention does shows in the loss.
      const weights = initialWeights(shape, randomFor(1, 'weights')).map((weight) => 1.5 * weight);
      const batch = pairBatch(pairs);
      const { gradient } = lossAndGradient(weights, shape, batch, loss);
      const part = viewsOf(shape, gradient).get(name) as Float32Array;
      // By the loss in float64, of which only the log-probabilities are from float32 logits.
      const lossAt = (moved: Float32Array): number => {
        const logps = completionLogps(moved, shape, batch);
        return dpo.fromLogps({ logps, counts: new Int32Array(logps.length).fill(1), reference })
          .loss;
      };
      // Along the gradient the derivative is its norm; a direction over a random half of it finds
      // what that could hide.
      const random = randomFor(2, 'weights');
      for (const direction of [part.slice(), part.map((g) => (random() < 0.5 ? 0 : g))]) {
        const length = norm(direction);
        expect(length).toBeGreaterThan(0);
        const at = (step: number): number => {
          const moved = weights.slice();
          const view = viewsOf(shape, moved).get(name) as Float32Array;
          direction.forEach((d, i) => (view[i] = (view[i] as number) + (step * d) / length));
          return lossAt(moved);
        };
        const step = 0.01;
        const slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
        const expected = direction.reduce(
          (sum, d, i) => sum + (d * (part[i] as number)) / length,
          0,
        );
        expect(Math.abs(slope / expected - 1)).toBeLessThan(0.01);
      }
    },
  );

  test('sees no word that comes later', () => {
    const [example] = demonstrations(1, 1) as [Example];
    const changed = {
      ...example,
      completion: example.completion.map((token, i) => (i === 2 ? (token + 7) % 40 : token)),
    };
    const [a, b] = [example, changed].map((given) => logitsFor(exampleBatch([given]))) as [
      Float32Array,
      Float32Array,
    ];
    // Rows 0 to 2 come before word 2 is read.
    expect(b.slice(0, 3 * words)).toEqual(a.slice(0, 3 * words));
    expect(b.slice(3 * words, 4 * words)).not.toEqual(a.slice(3 * words, 4 * words));
  });

  test('sees every word of the prompt, and where it is', () => {
    const completion = [1, summaryEnd];
    const a = logitsFor(exampleBatch([{ prompt: [3, 9, 14], completion }]));
    for (const prompt of [
      [4, 9, 14],
      [3, 9, 15],
      [9, 3, 14],
    ]) {
      expect(logitsFor(exampleBatch([{ prompt, completion }]))).not.toEqual(a);
    }
  });

  test('is the same for completions that share a prompt’s rows as for each after its own', () => {
    const batch = pairBatch(pairs);
    const logits = logitsFor(batch);
    (['chosen', 'rejected'] as const).forEach((key, half) => {
      pairs.forEach((pair, i) => {
        const alone = logitsFor(
          exampleBatch([{ prompt: [...pair.prompt], completion: [...pair[key]] }]),
        );
        // A collated completion has one row more: that of its end, which scores nothing.
        expectClose(
          rowsOf(batch, logits, half * pairs.length + i).subarray(0, alone.length),
          alone,
          1e-5,
        );
      });
    });
  });

  test('keeps its weights in a file, and refuses those of another shape', () => {
    const file = path.join(directory, 'weights.safetensors');
    saveWeights(file, shape, weights);
    expect(loadWeights(file, shape)).toEqual(weights);
    expect(() => loadWeights(file, { ...shape, width: 16 })).toThrow(
      /embedding is not \d+ float32 numbers/,
    );
  });

  test('leaves no tensor behind', () => {
    const before = tf.memory().numTensors;
    lossAndGradient(weights, shape, pairBatch(pairs), loss);
    completionLogps(weights, shape, pairBatch(pairs));
    sampleSummaries(weights, shape, [[1, 2]], randomFor(1, 'sampling'));
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('sampling', () => {
  test('with kept keys and values draws what a model that reads everything anew draws', () => {
    const prompts = heldOutRecords(1, 12).map(({ tokens }) => tokens);
    const random = randomFor(3, 'sampling');
    const summaries = prompts.map((): number[] => []);
    for (let t = 0; t < longestSummary; t++) {
      const open = summaries.filter((summary) => summary.at(-1) !== summaryEnd);
      const batch = exampleBatch(
        open.map((summary) => ({
          prompt: prompts[summaries.indexOf(summary)] as readonly number[],
          completion: [...summary, summaryEnd],
        })),
      );
      const logits = logitsFor(batch);
      open.forEach((summary, i) => {
        const row = (batch.offsets[i + 1] as number) - 1;
        summary.push(drawToken(logits, row * words, (row + 1) * words, random));
      });
    }
    const sampled = sampleSummaries(weights, shape, prompts, randomFor(3, 'sampling'));
    expect(sampled).toEqual(summaries);
    expect(new Set(sampled.map(({ length }) => length)).size).toBeGreaterThan(1);
  });

  test('draws words as often as their softmax says', () => {
    const logits = Float32Array.from([9, 0, Math.log(2), Math.log(5), 9]);
    const random = randomFor(4, 'sampling');
    const counts = [0, 0, 0];
    const draws = 8000;
    for (let i = 0; i < draws; i++) {
      const token = drawToken(logits, 1, 4, random);
      counts[token] = (counts[token] as number) + 1;
    }
    [1 / 8, 2 / 8, 5 / 8].forEach((p, token) => {
      // Five standard errors.
      expect(Math.abs((counts[token] as number) / draws - p)).toBeLessThan(
        5 * Math.sqrt((p * (1 - p)) / draws),
      );
    });
  });
});

describe('training', () => {
  test('warms up and then goes down to nothing, both linearly', () => {
    const rates = Array.from({ length: 100 }, (_, step) => schedule(step, 100));
    expect(rates.slice(0, 3)).toEqual([1 / 3, 2 / 3, 1]);
    expect(Math.max(...rates)).toBe(1);
    const steps = rates.slice(4).map((rate, i) => (rates[i + 3] as number) - rate);
    for (const step of steps) expect(step).toBeCloseTo(steps[0] as number, 10);
    expect(rates.at(-1)).toBeGreaterThan(0);
    expect(rates.at(-1)).toBeLessThan(0.03);
  });

  test('takes Adam’s steps: at first of the learning rate, whatever the gradient’s size', () => {
    const vector = new Float32Array(3);
    adam(vector)(Float32Array.from([0.3, -0.2, 0]), 0.01);
    expectClose(vector, [-0.01, 0.01, 0], 1e-5);
  });

  test('clips gradients to the norm of the paper', () => {
    const after = (second: number): Float32Array => {
      const vector = new Float32Array(2);
      const update = adam(vector);
      update(Float32Array.from([1, 1]), 0.01);
      update(Float32Array.from([second, 0]), 0.01);
      return vector;
    };
    expect(after(200)).toEqual(after(2));
    expect(after(2)).not.toEqual(after(1));
  });

  test('ends where a number is not finite, with the weights before it', () => {
    const vector = weights.slice();
    const batches = [pairBatch(pairs), pairBatch(pairs), pairBatch(pairs)];
    const afterOne = weights.slice();
    const likelihood = tfDirAlignLoss(dirAlignLoss('sft'));
    const loss =
      (factor: number): BatchLoss =>
      (logits, { labels, offsets }) =>
        tf.mul<tf.Scalar>(likelihood(logits, { labels, offsets }, { threads }), factor);
    const options = { learningRate: 0.01, batches };
    const trained = train(vector, shape, {
      ...options,
      loss: (step) => loss(step === 1 ? NaN : 1),
    });
    expect(trained.diverged).toBe(true);
    expect(trained.losses).toHaveLength(1);
    const first = lossAndGradient(afterOne, shape, pairBatch(pairs), loss(1));
    adam(afterOne)(first.gradient, options.learningRate * schedule(0, 3));
    expect(vector).toEqual(afterOne);
  });
});

describe('evaluation', () => {
  const params = { scale: 'quick', seed: 1 } as const;

  test('finds no divergence of a model from itself, and one from another', () => {
    const own = initialWeights(modelShape, randomFor(1, 'weights'));
    const other = initialWeights(modelShape, randomFor(2, 'weights'));
    const sampled = sampleHeldOut(own, params);
    expect(estimateKl(own, own, sampled)).toBe(0);
    expect(estimateKl(own, other, sampled)).toBeGreaterThan(0.5);
  });

  test('compares summaries of the same records by their scores', () => {
    const records = heldOutRecords(1, 4);
    const sampledOf = (scores: readonly number[]) => ({
      ...{ records, summaries: records.map(() => [summaryStart]) },
      verdicts: scores.map((score) => ({ score, kept: 2 * score, invented: 1 })),
    });
    const ours = sampledOf([1, 0.5, 0.5, 0.25]);
    expect(compare(ours, sampledOf([0.5, 0.5, 1, 0]))).toEqual({ win: 0.5, tie: 0.25, lose: 0.25 });
    expect(evaluationOf(ours)).toEqual({
      quality: 0.5625,
      perfect: 0.25,
      kept: 1.125,
      invented: 1,
      length: 1,
    });
  });
});

describe('the stages', () => {
  const seed = 1;
  const scale = 'quick';
  const directories = new Map<string, string>();
  const directoryOf = ({ stage, params }: Task): string => {
    const key = JSON.stringify([stage, params]);
    const known = directories.get(key) ?? fs.mkdtempSync(path.join(directory, 'task-'));
    directories.set(key, known);
    return known;
  };
  const contextOf = (task: Task): StageContext => ({
    directory: directoryOf(task),
    directoryOf,
    progress: () => undefined,
  });
  const alignment = {
    scale,
    seed,
    init: { share: 100 },
    method: 'dpo',
    beta: 0.3,
    learningRate: 3e-3,
    lambda: 0,
  } as const;
  const align = (params: AlignParams): Promise<AlignResult> =>
    stages.align(params, contextOf(alignTask(params)));
  let base: SftResult;
  let sft: SftResult;

  beforeAll(async () => {
    base = await stages.pretrain({ scale, seed }, contextOf(pretrainTask({ scale, seed })));
    const params = { scale, seed, share: 100 } as const;
    sft = await stages.sft(params, contextOf(sftTask(params)));
  });

  test('pretraining and SFT lower the loss', () => {
    expect(base.losses).toHaveLength(sizes.quick.pretrainSteps);
    expect(sft.losses).toHaveLength(sizes.quick.demonstrations / batchSize);
    expect(mean(base.losses.slice(-5))).toBeLessThan(0.8 * mean(base.losses.slice(0, 5)));
    expect(mean(sft.losses.slice(-5))).toBeLessThan(mean(sft.losses.slice(0, 5)) - 0.03);
  });

  test('a share of the demonstrations is that many steps', async () => {
    const params = { scale, seed, share: 25 } as const;
    const { losses } = await stages.sft(params, contextOf(sftTask(params)));
    expect(losses).toHaveLength(sizes.quick.demonstrations / 4 / batchSize);
    expect(losses[0]).toBe(sft.losses[0]);
  });

  test('alignment ranks more preferences right, and gives the same result again', async () => {
    const before = performance.now();
    const first = await align(alignment);
    const elapsed = (performance.now() - before) / 1000;
    expect(mean(first.accuracies.slice(-5))).toBeGreaterThan(
      mean(first.accuracies.slice(0, 3)) + 0.05,
    );
    expect(first.losses[0]).toBeCloseTo(Math.log(2), 5); // a policy that is its reference
    expect(first.diverged).toBe(false);
    expect(first.win + first.tie + first.lose).toBeCloseTo(1, 10);
    expect(await align(alignment)).toMatchObject({
      ...first,
      seconds: expect.any(Number) as number,
    });
    expect(first.seconds).toBeGreaterThan(0);
    expect(first.seconds).toBeLessThanOrEqual(elapsed);
  });

  test('every training leaves its loss and metrics for TensorBoard', async () => {
    const params = { ...alignment, beta: 0.2 };
    await align(params);
    const events = (task: Task): string =>
      fs
        .readdirSync(directoryOf(task))
        .filter((name) => name.startsWith('events.out.tfevents.'))
        .map((name) => fs.readFileSync(path.join(directoryOf(task), name), 'latin1'))
        .join('');
    const steps = (text: string, tag: string): number => text.split(tag).length - 1;
    expect(steps(events(pretrainTask({ scale, seed })), '\n\x04loss\x15')).toBe(
      sizes.quick.pretrainSteps,
    );
    expect(steps(events(alignTask(params)), '\n\x0frewards/margins\x15')).toBe(
      sizes.quick.preferences / batchSize,
    );
  });

  test('from the base model, with the likelihood term, the loss has that term in it', async () => {
    const oneStage = { ...alignment, init: 'base', method: 'orpo', beta: 1 } as const;
    const [without, with1] = [
      await align({ ...oneStage, lambda: 0 }),
      await align({ ...oneStage, lambda: 1 }),
    ];
    const batch = pairBatch(preferences(seed, batchSize));
    const initial = loadWeights(
      path.join(directoryOf(pretrainTask({ scale, seed })), 'model.safetensors'),
      modelShape,
    );
    const logps = completionLogps(initial, modelShape, batch);
    const chosen = Array.from({ length: batchSize }, (_, i) => {
      const scored = batch.labels
        .slice(batch.offsets[i], batch.offsets[i + 1])
        .filter((label) => label >= 0).length;
      return -(logps[i] as number) / scored;
    });
    expect((with1.losses[0] as number) - (without.losses[0] as number)).toBeCloseTo(
      mean(chosen),
      4,
    );
    expect(with1.losses.at(-1)).not.toBe(without.losses.at(-1));
  });

  test('a likelihood term is refused where the method has none', async () => {
    await expect(align({ ...alignment, lambda: 1 })).rejects.toThrow(/dpo has no likelihood term/);
  });

  test('pretraining data does not depend on how much of it is read', () => {
    const read = (count: number): Example[] => {
      const source = carelessSummaries(seed);
      return Array.from({ length: count }, () => source.next().value);
    };
    expect(read(9).slice(0, 4)).toEqual(read(4));
  });
});
