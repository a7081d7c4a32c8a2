/** What is verified of losses: an objective, or a mixture of several. */
import { findMethod, isLikelihood, type Method, type MethodInfo } from '../catalogue.js';
import { mixLosses } from '../mix-losses.js';
import { dirAlignLoss, type ObjectiveCalls } from '../objective.js';
import {
  referenceFromLogps,
  referenceLoss,
  referenceMix,
  type ReferenceBatch,
  type ReferenceConfig,
  type ReferenceLogpsBatch,
  type ReferenceTerm,
} from './reference.js';

/** The settings of an objective, or those of a mixture with their weights. */
export type LossConfig = ReferenceConfig | readonly ReferenceTerm[];

export function isMix(config: LossConfig): config is readonly ReferenceTerm[] {
  return Array.isArray(config);
}

/** Its objectives, without their weights. */
export function configsOf(config: LossConfig): readonly ReferenceConfig[] {
  return isMix(config) ? config.map((term) => term.config) : [config];
}

/** Whether an objective is a likelihood and nothing else. */
export function isLikelihoodAlone({ method }: ReferenceConfig): boolean {
  const found = findMethod(method);
  return found !== undefined && isLikelihood(found.info);
}

/** What the catalogue has of its objectives; a likelihood beside others is a term of those. */
export function alignmentsOf(config: LossConfig): readonly MethodInfo[] {
  const all = configsOf(config).flatMap(({ method }) => findMethod(method)?.info ?? []);
  const aligning = all.filter((info) => !isLikelihood(info));
  return aligning.length > 0 ? aligning : all;
}

/** Whether the loss has a likelihood term that may have labels of its own. */
export function hasLikelihoodTerm(config: LossConfig): boolean {
  return configsOf(config).some(
    (one) => (one.sftWeight ?? 0) !== 0 || (isMix(config) && isLikelihoodAlone(one)),
  );
}

/** Whether a likelihood of it is a mean over tokens, so that there is a sum to divide. */
export function averagesTokens(config: LossConfig): boolean {
  return configsOf(config).some(
    (one) => one.sftReduction === 'token' && (isLikelihoodAlone(one) || (one.sftWeight ?? 0) !== 0),
  );
}

const built = new WeakMap<LossConfig, ObjectiveCalls>();

/** The package's own objective, built once: differences call it some hundred times. */
export function objectiveOf(config: LossConfig): ObjectiveCalls {
  let objective = built.get(config);
  if (!objective) {
    objective = isMix(config)
      ? mixLosses(
          config.map(({ weight, config: own }) => ({ weight, objective: objectiveOf(own) })),
        )
      : dirAlignLoss(config as { method: Method; beta: number });
    built.set(config, objective);
  }
  return objective;
}

/** `dpo, beta 0.1, sftWeight 0.5`; of a mixture, its terms with ` + ` between. */
export function nameOf(config: LossConfig): string {
  if (isMix(config))
    return config.map((term) => `${term.weight} ${nameOf(term.config)}`).join(' + ');
  return Object.entries(config)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => (name === 'method' ? String(value) : `${name} ${String(value)}`))
    .join(', ');
}

/** In float64, from log-probabilities. */
export function lossOfLogps(config: LossConfig, batch: ReferenceLogpsBatch) {
  return isMix(config) ? referenceMix(config, batch) : referenceFromLogps(config, batch);
}

/** In float64, from logits. */
export function lossOfLogits(config: LossConfig, batch: ReferenceBatch) {
  return isMix(config) ? referenceMix(config, batch) : referenceLoss(config, batch);
}
