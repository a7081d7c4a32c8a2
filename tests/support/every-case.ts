// Every reference case, for suites that go through all of them in several ways and show that they
// did.
import { exact } from './cases.js';
import { loadVectors, type VectorCase, type VectorInput } from './vectors.js';

/**
 * 1482 cases exist. These are the 1447 of logits; the 35 of the fused output layer are those of
 * hidden.test.ts and cuda-hidden.test.ts.
 */
export const total = 1447;

const vectors = loadVectors();
export const inputs = Array.from(vectors.keys(), (input) => [input.name, input] as const);
export const isRobustnessOnly = (c: VectorCase): boolean => c.robustnessOnly;

/** The cases that each way was tried on. */
export class Coverage {
  private readonly ways = new Map<string, Set<string>>();

  /** Those of an input that are to be tried, counted as such. */
  cases(
    input: VectorInput,
    way: string,
    which: (c: VectorCase) => boolean = exact,
  ): readonly VectorCase[] {
    const found = (vectors.get(input) ?? []).filter(which);
    const ids = this.ways.get(way) ?? new Set();
    for (const c of found) ids.add(c.id);
    this.ways.set(way, ids);
    return found;
  }
  size(way: string): number {
    return this.ways.get(way)?.size ?? 0;
  }
  log(): void {
    for (const [way, ids] of this.ways) console.log(`${way}: ${String(ids.size)} cases`);
  }
}

/** The inputs that have such cases. */
export function inputsWith(which: (c: VectorCase) => boolean): typeof inputs {
  return inputs.filter(([, input]) => vectors.get(input)?.some(which));
}
