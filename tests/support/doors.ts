// Every way into the computation, with a small batch for each: what holds of callers' objects holds
// at all of them.
import { dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';

export type Given = Record<string, unknown>;

export interface Door {
  readonly name: string;
  /** A fresh batch, all of whose arrays are its own. */
  readonly batch: () => Given;
  readonly call: (batch: unknown, run?: unknown) => unknown;
  /** Names of the options that it takes. */
  readonly options: readonly string[];
  /** Names of its results that are as long as an array of the caller's, of the caller's kind. */
  readonly gradients: readonly string[];
}

const [S, T, V, H] = [4, 3, 5, 2];
const wave = (n: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(1 + i));

const rows = (): Given => ({
  shape: [S, T, V],
  labels: Int32Array.from({ length: S * T }, (_, i) => (i % 4 === 3 ? -100 : i % V)),
  reference: Float64Array.of(-3, -4, -5, -3.5),
});
const packed = (): Given => ({
  ...rows(),
  shape: [S * T, V],
  offsets: Int32Array.of(0, 2, 6, 9, S * T),
});
const ofLogits = (): Given => ({ ...rows(), logits: wave(S * T * V), sftLabels: rows().labels });
const ofHidden = (): Given => ({
  ...rows(),
  hidden: wave(S * T * H),
  weight: wave(V * H),
  bias: wave(V),
});

/** Without what only a loss looks at. */
const scored = (batch: Given): Given => ({ ...batch, reference: undefined, sftLabels: undefined });

type Call = (batch: never, run?: never) => unknown;

/** A method that uses whatever a batch may have. */
const dpo = dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.5 });
const { async: dpoLater, fromLogps } = dpo as unknown as Record<'async' | 'fromLogps', Call>;
const door = (
  name: string,
  batch: () => Given,
  call: Call,
  options: string[],
  gradients: string[] = [],
): Door => ({
  name,
  batch,
  call: call as (batch: unknown, run?: unknown) => unknown,
  options,
  gradients,
});

const hiddenLater = (dpo.fromHidden as unknown as Record<'async', Call>).async;

const lossOptions = [
  'gradient',
  'inPlace',
  'out',
  'gradientScale',
  'metrics',
  'backend',
  'threads',
];
const hiddenOptions = [
  'gradient',
  'out',
  'accumulate',
  'gradientScale',
  'metrics',
  'memory',
  'backend',
  'threads',
];
const layerGradients = ['gradHidden', 'gradWeight', 'gradBias'];
const logpsOptions = ['backend', 'threads', 'memory'];

export const doors: readonly Door[] = [
  door('logits', ofLogits, dpo, lossOptions, ['gradLogits']),
  door('packed logits', () => ({ ...packed(), logits: wave(S * T * V) }), dpo, lossOptions, [
    'gradLogits',
  ]),
  door('logits, async', ofLogits, dpoLater, [...lossOptions, 'signal'], ['gradLogits']),
  door('hidden', ofHidden, dpo.fromHidden, hiddenOptions, layerGradients),
  door('hidden, async', ofHidden, hiddenLater, [...hiddenOptions, 'signal'], layerGradients),
  door('sequenceLogps', () => scored(ofLogits()), sequenceLogps, logpsOptions),
  door('sequenceLogps of hidden', () => scored(ofHidden()), sequenceLogps, logpsOptions),
  door('tokenLogps', () => scored(ofLogits()), tokenLogps, logpsOptions),
  door(
    'fromLogps',
    () => ({
      logps: Float64Array.of(-2, -3, -4, -5),
      counts: Int32Array.of(2, 3, 4, 5),
      reference: Float64Array.of(-3, -4, -5, -3.5),
    }),
    fromLogps,
    ['gradientScale'],
  ),
];

/** The names of the arrays of a batch. */
export const arrayNames = (batch: Given): string[] =>
  Object.keys(batch).filter((name) => ArrayBuffer.isView(batch[name]));
