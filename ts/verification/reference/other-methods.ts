/** The methods of single sequences, and those of groups of candidates. */
import { Dual, logSumExp, sigmoid, softplus, total } from './dual.js';
import { baseline } from './fields.js';
import { type Candidate, groups, type Method, scored, type Side, unpaired } from './method.js';
import { at, sum } from './numbers.js';

const ofRatios = { normalize: false, reference: true } as const;
const withFeedback = {
  ...ofRatios,
  arity: 'single',
  options: { ...scored, desirableWeight: 1, undesirableWeight: 1 },
} as const;
const ofGroups = { ...ofRatios, arity: 'group' } as const;

export const singleMethods = {
  // Its loss is the likelihood term itself: see `likelihoodTerm`.
  sft: {
    arity: 'single',
    normalize: true,
    reference: false,
    options: { sftReduction: 'sequence' },
    loss: undefined,
  },

  // dW (1 - sg(u - beta z)) where desirable, uW (1 - sg(beta z - u)) where not; 1 - sg(x) = sg(-x)
  kto: {
    ...withFeedback,
    needs: ['desirable', 'kl'],
    loss: unpaired(sigmoid, (beta, { kl = NaN }) => beta * baseline(kl)),
  },

  // dW (1 - sg(u)) where desirable, uW sg(u) where not
  apo_zero_unpaired: {
    ...withFeedback,
    needs: ['desirable'],
    loss: unpaired(sigmoid, () => 0),
  },

  // dW sp(-(u - shift)) where desirable, uW sp(u - shift) where not
  bco: {
    ...withFeedback,
    needs: ['desirable'],
    takes: ['shift'],
    loss: unpaired(softplus, (_, { shift = 0 }) => shift),
  },
} satisfies Readonly<Record<string, Method>>;

/**
 * -log softmax(u)_k, by the differences from the largest: those between others have lost digits. A
 * pair's is sp(-beta h), to the bit.
 */
function surprise(beta: number, candidates: readonly Side[], k: number): Dual {
  const ratios = candidates.map(({ ratio }) => ratio);
  const largest = ratios.reduce((best, x) => (x.value > best.value ? x : best));
  const above = (x: Dual): Dual => (x === largest ? new Dual(0) : x.minus(largest).times(beta));
  const [all, own] = [logSumExp(ratios.map(above)), at(ratios, k)];
  return own === largest ? all : all.minus(above(own));
}

/** y = softmax(rewards / temperature). */
function targets(candidates: readonly Candidate[], temperature: number): number[] {
  const largest = candidates.reduce((best, { reward }) => Math.max(best, reward), -Infinity);
  const exponentials = candidates.map(({ reward }) => Math.exp((reward - largest) / temperature));
  const all = sum(exponentials.length, (k) => at(exponentials, k));
  return exponentials.map((e) => e / all);
}

export const groupMethods = {
  // -sum over k < K of log softmax(u_k, ..., u_K)_k, best first
  plackett_luce: {
    ...ofGroups,
    options: { referenceFree: false },
    needs: ['groups', 'ranks'],
    loss: (beta) =>
      groups((candidates) => {
        const best = candidates.toSorted((a, b) => a.rank - b.rank);
        return total(best.slice(1).map((_, k) => surprise(beta, best.slice(k), 0)));
      }),
  },

  // -sum_k y_k log softmax(u)_k
  info_nca: {
    ...ofGroups,
    options: { referenceFree: false, rewardTemperature: 1 },
    needs: ['groups', 'rewards'],
    loss: (beta, { rewardTemperature }) =>
      groups((candidates) => {
        const y = targets(candidates, rewardTemperature);
        return total(candidates.map((_, k) => surprise(beta, candidates, k).times(at(y, k))));
      }),
  },

  // sum_k (y_k sp(-u_k) + sp(u_k) / K)
  nca_listwise: {
    ...ofGroups,
    options: { referenceFree: false, rewardTemperature: 1 },
    needs: ['groups', 'rewards'],
    loss: (beta, { rewardTemperature }) =>
      groups((candidates) => {
        const y = targets(candidates, rewardTemperature);
        return total(
          candidates.map(({ ratio }, k) => {
            const u = ratio.times(beta);
            const all = softplus(u).times(1 / candidates.length);
            return softplus(u.negated()).times(at(y, k)).plus(all);
          }),
        );
      }),
  },
} satisfies Readonly<Record<string, Method>>;
