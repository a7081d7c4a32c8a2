/** The examples of KTO's baseline. */
import { isDeepStrictEqual } from 'node:util';
import { rangeError, typeError } from '../errors.js';
import { describe, isArray, readElements } from '../given.js';
import { readExample, readExamples } from './examples.js';
import type { Message } from './records.js';
import { integersOf, type TokenIds } from './token-ids.js';

/** A prompt and a completion: token ids, text or messages. */
export interface Completed {
  /** What was answered. */
  readonly prompt: TokenIds | string | readonly Message[];
  /** What another prompt gets. */
  readonly completion: TokenIds | string | readonly Message[];
}

/** What is equal where completions are, whichever array holds their ids. */
function comparable(name: string, value: unknown): unknown {
  if (typeof value === 'string') return value;
  const given = integersOf(name, value);
  if (given === undefined) {
    throw typeError(
      'ERR_DIRALIGN_LABEL',
      `${name}: expected token ids, text or messages, not ${describe(value)}`,
    );
  }
  const elements: unknown = isArray(given) ? given : Array.from(given as ArrayLike<unknown>);
  if (!isArray(elements) || typeof elements[0] !== 'bigint') return elements;
  return (readElements(elements, 2 ** 32) as unknown[]).map((id) =>
    typeof id === 'bigint' ? Number(id) : id,
  );
}

/**
 * KTO's baseline: each prompt with the completion of the next example, the last with the first's,
 * and its `completionMask` where there is one. Other fields stay as they are. Where the next has
 * the same completion, it is the next that has another one. The log-probabilities of these
 * completions, by the policy and by the reference, are the `kl` of a batch.
 *
 *     const batch = collateUnpaired(examples, options);
 *     const baseline = collateUnpaired(mismatched(examples), options);
 *
 * An example has token ids, before they are collated, or text or messages, before they are
 * tokenised. Examples of one prompt get each other's answers where they are side by side: shuffle.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_SHAPE for fewer than two examples, or where all have
 *   the same completion; ERR_DIRALIGN_LABEL for what has no prompt and completion
 */
export function mismatched<Example extends Completed>(examples: readonly Example[]): Example[] {
  const given = readExamples(examples, 'examples', (name, value) => {
    const example = readExample(name, value, ['prompt', 'completion']);
    comparable(`${name}.prompt`, example.prompt);
    return { example, compared: comparable(`${name}.completion`, example.completion) };
  });
  const count = given.length;
  const after = (i: number): number => (i + 1) % count;
  // Whether the example after has another completion: each two neighbours are compared once.
  const changes = given.map(
    ({ compared }, i) => !isDeepStrictEqual(compared, given[after(i)]?.compared),
  );
  const last = changes.lastIndexOf(true);
  if (last < 0) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `examples: ${count === 1 ? 'has one' : `all ${count} have the same completion`}; ` +
        'expected at least two completions, to put another after each prompt',
    );
  }
  // From the last change backwards, around: in a run of equal completions, all get the one after.
  const sources = new Array<number>(count);
  for (let back = 0, source = after(last); back < count; back++) {
    const i = (last - back + count) % count;
    if (changes[i]) source = after(i);
    sources[i] = source;
  }
  return given.map(({ example }, i) => {
    const source = given[sources[i] as number]?.example ?? example;
    const isMasked = [example, source].some((one) => Object.hasOwn(one, 'completionMask'));
    return {
      ...example,
      completion: source.completion,
      ...(isMasked && { completionMask: source.completionMask }),
    };
  }) as unknown as Example[];
}
