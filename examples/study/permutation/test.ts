/** The exact permutation test of pairwise against pointwise methods. */

export interface PermutationTest {
  /** Mean of the pairwise methods minus mean of the others. */
  readonly difference: number;
  /** The same of every split into groups of these sizes, the observed one included. */
  readonly differences: readonly number[];
  /** Splits whose difference is at least the observed one. */
  readonly atLeast: number;
  /** One-sided: atLeast over the number of splits. */
  readonly p: number;
}

/** Sums in another order differ in their last digits; printed figures differ by far more. */
const tie = 1e-12;

/**
 * Whether the pairwise methods score higher than a split by chance would make them: all ways to
 * choose as many methods are compared, 70 for four of eight.
 *
 * @param values a figure per method, higher is better.
 * @param pairwise the methods of the first group; each has a figure.
 * @throws RangeError where a group is empty, a method has no figure or is named twice, or a figure
 *   is not finite.
 */
export function permutationTest(
  values: Readonly<Record<string, number>>,
  pairwise: readonly string[],
): PermutationTest {
  check(values, pairwise);
  const figures = Object.values(values);
  const total = sum(figures);
  const others = figures.length - pairwise.length;
  const differenceOf = (group: readonly number[]): number =>
    sum(group) / group.length - (total - sum(group)) / others;
  const difference = differenceOf(pairwise.map((method) => values[method] as number));
  const differences = subsets(figures, pairwise.length).map(differenceOf);
  const slack = tie * sum(figures.map(Math.abs));
  const atLeast = differences.filter((d) => d >= difference - slack).length;
  return { difference, differences, atLeast, p: atLeast / differences.length };
}

function check(values: Readonly<Record<string, number>>, pairwise: readonly string[]): void {
  for (const [method, value] of Object.entries(values)) {
    if (!Number.isFinite(value))
      throw new RangeError(`the figure of ${method}, ${value}, is not finite`);
  }
  for (const method of pairwise) {
    if (!Object.hasOwn(values, method))
      throw new RangeError(`${method} is named as pairwise but has no figure`);
  }
  if (new Set(pairwise).size < pairwise.length)
    throw new RangeError(`a pairwise method is named twice: ${pairwise.join(', ')}`);
  if (pairwise.length === 0 || pairwise.length === Object.keys(values).length) {
    throw new RangeError('the test needs at least one method in each group');
  }
}

function subsets<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  if (size === 0) return [[]];
  return items.flatMap((item, i) =>
    subsets(items.slice(i + 1), size - 1).map((rest) => [item, ...rest]),
  );
}

const sum = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0);
