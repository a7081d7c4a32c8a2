/** What `diralign verify` checks: batches in their forms, and the objectives on each. */
import fs from 'node:fs';
import path from 'node:path';
import type { HiddenBatch, LogitsBatch } from '../batch/types.js';
import { isLikelihood } from '../catalogue.js';
import { dtypes, type Dtype } from '../dtype.js';
import { sequenceLogps } from '../logps.js';
import { isIndex, readBatch, readSafetensors, shardsOfIndex } from '../safetensors.js';
import {
  allConfigs,
  converted,
  convertedHidden,
  mixtures,
  packed,
  syntheticHiddenBatches,
  type NamedBatch,
} from '../verification/cases.js';
import { backwardCases, type BackwardCase } from '../verification/backward.js';
import {
  alignmentsOf,
  configsOf,
  isMix,
  objectiveOf,
  type LossConfig,
} from '../verification/objectives.js';
import { withFields } from '../verification/verification.js';
import { batchFor, lackOf, sequencesOf } from './batch-fields.js';
import { CommandError } from './command.js';
import type { ExpectedValues } from './expected-values.js';
import { shortPath } from './package.js';

/** A batch in one of its forms, and what is to be checked on it. */
export interface Plan {
  readonly suite: string;
  readonly batch: LogitsBatch;
  readonly configs: readonly LossConfig[];
  /** Of `logpsBackward`. */
  readonly backward: readonly BackwardCase[];
  readonly isSmooth: (config: LossConfig) => boolean;
  readonly expected?: ExpectedValues | undefined;
  /** Elements of the logits, and for how many passes: the work ahead. */
  readonly work: number;
}

/** The same for hidden states. */
export interface HiddenPlan {
  readonly suite: string;
  readonly hidden: HiddenBatch;
  readonly configs: readonly LossConfig[];
  readonly backward: readonly BackwardCase[];
  readonly work: number;
}

/** Which methods are asked for; undefined for all of them and every other door, too. */
export type Chosen = ReadonlySet<string> | undefined;

/** A mixture is of the methods that it is made of. */
const isChosen = (chosen: Chosen, config: LossConfig): boolean =>
  chosen === undefined || configsOf(config).every(({ method }) => chosen.has(method));

function configsFor(
  chosen: Chosen,
  { isChecked }: Pick<NamedBatch, 'isChecked'>,
): readonly LossConfig[] {
  return [...allConfigs(), ...mixtures].filter(
    (config) => isChosen(chosen, config) && isChecked(config),
  );
}

/** Batches of more logits than this are taken as they are, in their own dtype and layout. */
const smallBatch = 2 ** 18;

/** Of more than this, each method in its default setting only. */
const largeBatch = 2 ** 20;

export function makePlans(named: NamedBatch, chosen: Chosen, expected?: ExpectedValues): Plan[] {
  const { name, batch, isSmooth } = named;
  const given = batch.dtype ?? 'float32';
  const elements = batch.logits.length;
  let configs = configsFor(chosen, named);
  if (elements > largeBatch) {
    const seen = new Set<string>();
    configs = configs.filter((config) => {
      if (isMix(config)) return true;
      const isFirst = !seen.has(config.method);
      seen.add(config.method);
      return isFirst;
    });
  }
  const plan = (dtype: Dtype, layout: string, form: LogitsBatch): Plan => {
    const isGiven = dtype === given && form.shape === batch.shape;
    return {
      suite: `${name}, ${dtype}, ${layout}`,
      batch: form,
      configs,
      backward: chosen ? [] : backwardCases(form),
      isSmooth: isGiven ? isSmooth : () => false,
      expected:
        isGiven && expected
          ? { ...expected, cases: expected.cases.filter(({ call }) => isChosen(chosen, call)) }
          : undefined,
      work: (elements + 2000) * (configs.length + 4),
    };
  };
  const layout = batch.shape.length === 2 ? 'packed' : 'padded';
  if (elements > smallBatch) return [plan(given, layout, batch)];
  return dtypes.flatMap((dtype) => {
    const form = converted(batch, dtype);
    const own = plan(dtype, layout, form);
    return layout === 'packed' ? [own] : [own, plan(dtype, 'packed', packed(form))];
  });
}

/**
 * What a check of a configuration is given of a batch: the fields that it takes. Where the batch
 * has no groups, a check has some of its own, which weights and ranks of the batch are not of.
 */
export function checkedBatch(config: LossConfig, batch: LogitsBatch): LogitsBatch {
  const own = batchFor(objectiveOf(config), batch);
  const isGrouped = alignmentsOf(config).some(({ arity }) => arity === 'group');
  return isGrouped && !batch.groups ? without(own, ['weights', 'ranks']) : own;
}

function without(batch: LogitsBatch, names: readonly (keyof LogitsBatch)[]): LogitsBatch {
  return { ...batch, ...Object.fromEntries(names.map((name) => [name, undefined])) };
}

export function makeHiddenPlans(chosen: Chosen): HiddenPlan[] {
  return syntheticHiddenBatches().flatMap((named) => {
    const { name, batch } = named;
    const configs = configsFor(chosen, named);
    const { hidden, weight, labels } = batch;
    const work =
      ((4 * labels.length * weight.length) / (hidden.length || 1) + 2000) * (configs.length + 4);
    return dtypes.map((dtype) => ({
      suite: `${name}, ${dtype}`,
      hidden: dtype === 'float32' ? batch : convertedHidden(batch, dtype),
      configs,
      backward: chosen ? [] : backwardCases(batch),
      work,
    }));
  });
}

/** FILEs, and the batches of DIRs. */
export function listFiles(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const isDirectory = fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() ?? false;
    if (!isDirectory) return [name];
    const entries = fs
      .readdirSync(name)
      .sort()
      .map((entry) => path.join(name, entry));
    const indexes = entries.filter((entry) => isIndex(entry) && entry.includes('.safetensors.'));
    const shards = new Set(indexes.flatMap(shardsOfIndex).map(({ file }) => file));
    const files = entries.filter((file) => file.endsWith('.safetensors') && !shards.has(file));
    // A folder may hold other tensors, too; what is named must be a batch.
    const batches = [...files, ...indexes].filter((file) =>
      readSafetensors(file, []).has('logits'),
    );
    if (batches.length === 0)
      throw new CommandError(
        `${name}: holds no *.safetensors with logits; name a file or another folder`,
      );
    return batches;
  });
}

export function fileBatch(file: string): NamedBatch {
  const batch = readBatch(file);
  // A call checks the batch: the reference implementation believes its shape, and allocates by it.
  const { logits, dtype, shape, offsets, labels } = batch;
  const { tokenWeights, logitScale, logitSoftcap, temperature } = batch;
  const rows = { tokenWeights, logitScale, logitSoftcap, temperature };
  sequenceLogps({ logits, dtype, shape, offsets, labels, ...rows });
  const sequences = sequencesOf(batch);
  return {
    name: shortPath(file),
    batch,
    // Differences take a few hundred losses for every sequence.
    isSmooth: () => sequences <= 64,
    isChecked: (config) => {
      const isLikelihoodAlone = alignmentsOf(config).every(isLikelihood);
      if (isLikelihoodAlone && batch.sftLabels) return false;
      // A check makes up needed fields that are not there, but no reference.
      const own = withFields(config, checkedBatch(config, batch), sequences);
      return lackOf(objectiveOf(config), own) === undefined;
    },
  };
}
