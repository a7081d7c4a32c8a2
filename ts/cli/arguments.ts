import { parseArgs, type ParseArgsConfig } from 'node:util';
import { UsageError } from './command.js';

export type OptionTypes = Readonly<Record<string, 'string' | 'boolean'>>;
type Value<T> = T extends 'boolean' ? boolean : string;
export type OptionValues<T extends OptionTypes> = { readonly [K in keyof T]?: Value<T[K]> };
export interface Parsed<T extends OptionTypes> {
  readonly values: OptionValues<T>;
  readonly positionals: readonly string[];
}

/** `labelSmoothing` to `label-smoothing`. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/**
 * Node's own parser, strict, with what people type besides: names as in the library
 * (`--labelSmoothing`), and a negative number as a value of its own (`--alpha -0.5`).
 *
 * @param types the long options, named as in the library.
 * @param positionals how many arguments may be no options.
 */
export function parse<T extends OptionTypes>(
  command: string,
  args: readonly string[],
  types: T,
  positionals: number,
): Parsed<T> {
  const names = Object.keys(types);
  const options: ParseArgsConfig['options'] = Object.fromEntries(
    Object.entries(types).map(([name, type]) => [kebab(name), { type }]),
  );
  let parsed;
  try {
    parsed = parseArgs({
      args: normalized(args, types),
      options,
      allowPositionals: true,
      strict: true,
      tokens: true,
    });
  } catch (error) {
    throw new UsageError(explain(error as NodeJS.ErrnoException, names, args));
  }
  const given = parsed.tokens.flatMap((token) => (token.kind === 'option' ? [token.name] : []));
  const twice = given.find((name, i) => given.indexOf(name) < i);
  // Which of them is meant nobody knows.
  if (twice !== undefined) throw new UsageError(`option '--${twice}' is given twice`);
  const extra = parsed.positionals[positionals];
  if (extra !== undefined)
    throw new UsageError(`'${extra}' is one argument too many for ${command}`);
  const values: Record<string, unknown> = {};
  for (const name of names)
    if (kebab(name) in parsed.values) values[name] = parsed.values[kebab(name)];
  return { values: values as OptionValues<T>, positionals: parsed.positionals };
}

function normalized(args: readonly string[], types: OptionTypes): string[] {
  const takesValue = new Set(
    Object.keys(types)
      .filter((name) => types[name] === 'string')
      .map((name) => `--${kebab(name)}`),
  );
  const result: string[] = [];
  for (const [i, arg] of args.entries()) {
    if (arg === '--') return [...result, ...args.slice(i)];
    const previous = result.at(-1) ?? '';
    if (takesValue.has(previous) && /^-\.?\d/.test(arg))
      result[result.length - 1] = `${previous}=${arg}`;
    else result.push(arg.replace(/^--[^=]*/, kebab));
  }
  return result;
}

function explain(
  { code, message }: NodeJS.ErrnoException,
  names: readonly string[],
  args: readonly string[],
): string {
  const parsed = /'(-[^' ]+)/.exec(message)?.[1] ?? '';
  // As it was typed.
  const option =
    args.map((arg) => arg.replace(/=.*/s, '')).find((arg) => kebab(arg) === parsed) ?? parsed;
  switch (code) {
    case 'ERR_PARSE_ARGS_UNKNOWN_OPTION': {
      const near = closest(kebab(option).replace(/^-+/, ''), names.map(kebab));
      return `unknown option '${option}'${near === undefined ? '' : `; did you mean '--${near}'?`}`;
    }
    case 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE':
      return (
        `option '${option}' ` +
        (message.includes('does not take') ? 'takes no value' : 'needs a value')
      );
    default:
      return message;
  }
}

/**
 * @throws UsageError where the text is not a number; whether the number may be used is the
 * library's to say.
 */
export function number(option: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value))
    throw new UsageError(`--${kebab(option)}: '${text}' is not a number`);
  return value;
}

/** A whole number of at least `least` and at most `most`. */
export function whole(option: string, text: string, least: number, most = Infinity): number {
  const value = number(option, text);
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
    throw new UsageError(`--${kebab(option)}: '${text}' is not a whole number ${range}`);
  }
  return value;
}

export function oneOf<T extends string>(option: string, text: string, values: readonly T[]): T {
  const found = values.find((value) => value === text);
  if (found === undefined) {
    const near = closest(text, values);
    const help = near === undefined ? '' : `; did you mean '${near}'?`;
    throw new UsageError(`--${kebab(option)}: '${text}' is not one of ${values.join(', ')}${help}`);
  }
  return found;
}

/** The word that was probably meant, if one is near. */
export function closest(word: string, words: readonly string[]): string | undefined {
  const [best] = words
    .map((w) => ({ w, distance: editDistance(word, w) }))
    .sort((a, b) => a.distance - b.distance);
  const tolerated = Math.max(1, Math.floor(word.length / 3));
  if (best && best.distance <= tolerated) return best.w;
  return word.length < 3 ? undefined : words.find((w) => w.startsWith(word));
}

/** Insertions, deletions, substitutions and swaps of neighbours that make one word of the other. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(
        (previous[j] ?? 0) + 1,
        (current[j - 1] ?? 0) + 1,
        (previous[j - 1] ?? 0) + cost,
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      current.push(best);
    }
    before = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}
