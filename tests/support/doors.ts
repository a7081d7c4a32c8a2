// Every way into the computation, with a small batch for each: what holds of callers' objects holds
// at all of them.
import {
  dirAlignLoss,
  logpsBackward,
  mixLosses,
  sequenceLogps,
  tokenLogps,
} from '../../ts/index.js';

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

/** Fields of every kind that pairs have. */
const ofPairs = (): Given => ({
  weights: Float64Array.of(0.5, 1.5),
  margins: Float32Array.of(-0.5, 0.25),
  preferences: Float64Array.of(0.75, 0.9),
  denominator: 3,
});
const ofRows = (): Given => ({
  tokenWeights: Float64Array.from({ length: S * T }, (_, i) => 0.5 + (i % 3) / 2),
  logitScale: 0.75,
  logitSoftcap: 4,
  temperature: 1.5,
});
const ofSequences = (): Given => ({
  desirable: Uint8Array.of(1, 0, 0, 1),
  kl: 0.25,
  shift: -0.5,
  weights: Float64Array.of(0.5, 1.5, 1, 2),
});
const ofGroups = (): Given => ({
  groups: Int32Array.of(0, 1, S),
  ranks: Int32Array.of(5, 2, -1, 0),
  rewards: Float32Array.of(0.5, 1, -2, 0),
});
const logps = (): Given => ({
  logps: Float64Array.of(-2, -3, -4, -5),
  counts: Int32Array.of(2, 3, 4, 5),
  reference: Float64Array.of(-3, -4, -5, -3.5),
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

const mixed = (...methods: string[]) =>
  mixLosses(
    methods.map((method) => ({
      weight: 0.5,
      objective: dirAlignLoss({ method, beta: 0.1 } as never),
    })),
  );
const unpaired = mixed('kto', 'bco');
const listwise = mixed('plackett_luce', 'info_nca');
const perRow = (): Given => ({ rows: Float64Array.from(wave(S * T)), entropy: wave(S * T) });
/** The batch is the derivatives. */
const derivatives = (): Given => ({
  ...perRow(),
  forward: tokenLogps(scored(ofLogits()) as never),
});

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
  door('fromLogps', logps, fromLogps, ['gradientScale']),
  door(
    'logits with fields',
    () => ({ ...ofLogits(), ...ofPairs(), ...ofRows() }),
    dpo,
    lossOptions,
    ['gradLogits'],
  ),
  door(
    'hidden with fields, async',
    () => ({ ...ofHidden(), ...ofPairs(), ...ofRows() }),
    hiddenLater,
    [...hiddenOptions, 'signal'],
    layerGradients,
  ),
  door(
    'a mixture of unpaired losses',
    () => ({ ...rows(), logits: wave(S * T * V), ...ofSequences() }),
    unpaired,
    lossOptions,
    ['gradLogits'],
  ),
  door(
    'a mixture of losses of groups, hidden',
    () => ({ ...ofHidden(), ...ofGroups() }),
    listwise.fromHidden,
    hiddenOptions,
    layerGradients,
  ),
  door('fromLogps with fields', () => ({ ...logps(), ...ofPairs() }), fromLogps, ['gradientScale']),
  door(
    'fromLogps of groups',
    () => ({ ...logps(), counts: Float64Array.of(2, 3.5, 0.25, 5), ...ofGroups() }),
    ((batch: never, run: never) => listwise.fromLogps(batch, run)) as Call,
    ['gradientScale'],
  ),
  door(
    'logpsBackward',
    () => scored(ofLogits()),
    ((batch: never, run: never) => logpsBackward(batch, perRow(), run)) as Call,
    lossOptions.filter((name) => name !== 'metrics'),
    ['gradLogits'],
  ),
  door(
    'logpsBackward of hidden, async',
    () => ({ ...scored(ofHidden()), ...ofRows() }),
    ((batch: never, run: never) =>
      logpsBackward.async(batch, { sequences: Float64Array.of(1, -1, 0, 2) }, run)) as Call,
    [...hiddenOptions.filter((name) => name !== 'metrics'), 'signal'],
    layerGradients,
  ),
  door(
    'derivatives of logpsBackward',
    derivatives,
    ((given: never, run: never) => logpsBackward(scored(ofLogits()) as never, given, run)) as Call,
    lossOptions.filter((name) => name !== 'metrics'),
    ['gradLogits'],
  ),
];

/** The names of the arrays of a batch. */
export const arrayNames = (batch: Given): string[] =>
  Object.keys(batch).filter((name) => ArrayBuffer.isView(batch[name]));
