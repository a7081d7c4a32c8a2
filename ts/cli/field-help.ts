/** Fields of a batch in words, as the help and the catalogue show them. */
import { contract } from '../contract.generated.js';
import { wrap } from '../text/table.js';

type Field = (typeof contract)['fields'][number];

const dtypes = { number: 'F64 or F32', flag: 'U8, BOOL, I32 or I64', rank: 'I32 or I64' } as const;
const lengths = {
  batch: 'a number',
  unit: 'one per unit',
  sequence: 'one per sequence',
  row: 'one per row',
} as const;

/** How many numbers a field has, in words. */
export function lengthOf({ name, per }: Pick<Field, 'name' | 'per'>): string {
  return name === 'weights' || per !== 'unit' ? lengths[per] : 'one per pair';
}

interface Line {
  readonly name: string;
  readonly length: string;
  readonly dtype: string;
  readonly meaning: string;
}

const others: readonly Line[] = [
  {
    name: 'groups',
    length: 'groups + 1',
    dtype: dtypes.rank,
    meaning: 'offsets of the groups over the sequences',
  },
  {
    name: 'logitScale',
    length: lengths.batch,
    dtype: dtypes.number,
    meaning: 'multiplies the logits',
  },
  {
    name: 'logitSoftcap',
    length: lengths.batch,
    dtype: dtypes.number,
    meaning: 'cap of the scaled logits, cap tanh(x / cap)',
  },
  {
    name: 'temperature',
    length: lengths.batch,
    dtype: dtypes.number,
    meaning: 'divides the logits after that',
  },
];

/** Help is the same everywhere: it is on the site, too. */
const helpWidth = 100;

/** Names, and what is to be said of each. */
export function fieldLines(
  entries: readonly (readonly [name: string, text: string])[],
  width = helpWidth,
): string {
  const room = Math.max(...entries.map(([name]) => name.length)) + 2;
  return entries
    .map(([name, text]) => wrap(`${name.padEnd(room - 1)} ${text}`, room, width))
    .join('\n');
}

/** A line for each field that a file may have. */
export function fieldHelp(): string {
  const own = contract.fields.map((field) => ({
    name: field.name,
    length:
      field.name === 'kl' ? 'a number, or tensors kl.logps and kl.reference' : lengthOf(field),
    dtype: dtypes[field.kind],
    meaning: field.meaning,
  }));
  const entries = [...own, ...others].map(
    ({ name, meaning, length, dtype }) => [name, `${meaning}; ${length}, ${dtype}`] as const,
  );
  return fieldLines(entries, helpWidth - 2).replace(/^/gm, '  ');
}
