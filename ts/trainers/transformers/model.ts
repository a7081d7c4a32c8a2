/** Models of onnxruntime and of transformers.js: what goes in, and their logits. */
import { rangeError, typeError } from '../../errors.js';
import { describe, isArray, quoted, readElements, written } from '../../given.js';
import type { Part } from './rows.js';
import type { TensorConstructor } from './types.js';

/** The model's outputs for some sequences. What it throws is thrown as it is. */
export type Forward = (part: Part) => Promise<unknown>;

type Feeds = Readonly<Record<string, unknown>>;

/** The inputs that a decoder without a cache has, by their names. */
const inputs = {
  input_ids: 'inputIds',
  attention_mask: 'attentionMask',
  position_ids: 'positionIds',
} as const;
type InputName = keyof typeof inputs;
const inputNames = Object.keys(inputs) as InputName[];

function feedsOf(
  part: Part,
  names: readonly InputName[],
  Tensor: TensorConstructor<unknown>,
): Feeds {
  return Object.fromEntries(
    names.map((name) => {
      const data = BigInt64Array.from(part[inputs[name]], BigInt);
      return [name, new Tensor('int64', data as never, [...part.dims])];
    }),
  );
}

function namesOf(what: string, value: unknown): string[] {
  const names = readElements(value, 10_000);
  if (isArray(names) && names.every((name) => typeof name === 'string')) return names;
  throw typeError('ERR_DIRALIGN_OPTION', `${what}: expected names, not ${describe(value)}`);
}

interface Session {
  readonly run: unknown;
  readonly inputNames: unknown;
  readonly outputNames: unknown;
}

function ofSession(session: Session, Tensor: TensorConstructor<unknown>): Forward {
  const { run } = session;
  const names = namesOf('model.inputNames', session.inputNames);
  const others = names.filter((name) => !(inputNames as string[]).includes(name));
  if (others.length > 0 || !names.includes('input_ids')) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `model: its inputs are ${quoted(names.slice(0, 8))}; expected input_ids, ` +
        'and of attention_mask and position_ids what it has: export it without a cache, ' +
        'or pass the model of transformers.js, which makes an empty one',
    );
  }
  const outputs = namesOf('model.outputNames', session.outputNames);
  if (!outputs.includes('logits')) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `model: its outputs are ${quoted(outputs.slice(0, 8))}; expected logits`,
    );
  }
  return (part) =>
    (run as (feeds: Feeds, fetches: string[]) => Promise<unknown>).call(
      session,
      feedsOf(part, names as InputName[], Tensor),
      ['logits'],
    );
}

/** @throws DirAlignError for what is neither of the two */
export function forwardOf(model: unknown, Tensor: TensorConstructor<unknown>): Forward {
  if (typeof model === 'function') {
    // It makes position_ids where the model has them.
    return (part) =>
      (model as (inputs: Feeds) => Promise<unknown>)(
        feedsOf(part, ['input_ids', 'attention_mask'], Tensor),
      );
  }
  if (
    typeof model === 'object' &&
    model !== null &&
    typeof (model as { readonly run?: unknown }).run === 'function'
  )
    return ofSession(model as Session, Tensor);
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    'model: expected an InferenceSession of onnxruntime or a model of transformers.js, ' +
      `not ${describe(model)}`,
  );
}

/** Logits in host memory. */
export interface HostLogits {
  readonly dtype: 'float32' | 'float16';
  readonly shape: readonly [number, number, number];
  readonly data: Float32Array | Uint16Array;
}

/** @throws DirAlignError for what is no logits of every row */
export async function logitsOf(outputs: unknown, { dims: [n, tokens] }: Part): Promise<HostLogits> {
  const tensor = (outputs as { readonly logits?: unknown } | null | undefined)?.logits;
  if (typeof tensor !== 'object' || tensor === null) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `model: expected to give { logits }, not ${describe(outputs)}`,
    );
  }
  const { type, dims, location, getData } = tensor as Readonly<Record<string, unknown>>;
  if (type !== 'float32' && type !== 'float16') {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `logits: of type ${describe(type)}; expected float32 or float16`,
    );
  }
  const shape = readElements(dims, 4) as readonly number[];
  const vocab = isArray(shape) && shape.length === 3 ? shape[2] : undefined;
  if (vocab === undefined || shape[0] !== n || shape[1] !== tokens) {
    const isLast = isArray(shape) && shape[1] === 1 && tokens > 1;
    const why = isLast ? ': it was exported to give those of the last token only' : '';
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `logits: of dims ${isArray(shape) ? written(shape) : describe(dims)}; ` +
        `expected [${n},${tokens},vocab], for every row${why}`,
    );
  }
  const isElsewhere = typeof location === 'string' && !location.startsWith('cpu');
  const data: unknown =
    isElsewhere && typeof getData === 'function'
      ? await (getData as () => Promise<unknown>).call(tensor)
      : (tensor as { readonly data: unknown }).data;
  return { dtype: type, shape: [n, tokens, vocab], data: data as Float32Array };
}
