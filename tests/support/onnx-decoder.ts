// A causal language model as small as one can be, in ONNX: the logits of a row depend on its token,
// on those before it and on its position, and are 0 where the attention mask is.
import { integer, message, nested, text } from '../../ts/bench/onnx-model.js';
import { at, generator, normal } from './numbers.js';

const types = { float: 1, int64: 7, float16: 10 } as const;
type Type = keyof typeof types;

export interface DecoderOptions {
  readonly vocab: number;
  /** Default float. */
  readonly output?: 'float' | 'float16';
  /** Default false: then positions count for nothing. */
  readonly positions?: boolean;
  /** Name of a further input that nothing reads. */
  readonly further?: string;
  /** Default logits. */
  readonly named?: string;
  readonly seed?: number;
}

export interface Decoder {
  readonly bytes: Uint8Array;
  /** Logits of the row after these tokens, in float64. */
  readonly row: (tokens: readonly number[]) => number[];
}

const mostPositions = 32;

export function decoder({
  vocab,
  output = 'float',
  positions = false,
  further,
  named = 'logits',
  seed = 1,
}: DecoderOptions): Decoder {
  const random = generator(seed);
  const numbers = (rows: number): Float32Array =>
    Float32Array.from({ length: rows * vocab }, () => Math.fround(normal(random)));
  const table = numbers(vocab);
  const places = numbers(mostPositions);

  const constant = (name: string, type: Type, dims: readonly number[], data: ArrayBufferView) =>
    nested(
      5,
      message(
        ...dims.map((size) => integer(1, size)),
        integer(2, types[type]),
        text(8, name),
        nested(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
      ),
    );
  const attribute = (name: string, value: number): Uint8Array =>
    nested(5, message(text(1, name), integer(3, value), integer(20, 2)));
  const node = (type: string, inputs: readonly string[], to: string, ...more: Uint8Array[]) =>
    nested(
      1,
      message(...inputs.map((input) => text(1, input)), text(2, to), text(4, type), ...more),
    );
  const value = (field: number, name: string, type: Type, dims: readonly (string | number)[]) => {
    const shape = message(
      ...dims.map((size) =>
        nested(1, typeof size === 'string' ? message(text(2, size)) : message(integer(1, size))),
      ),
    );
    const tensor = message(integer(1, types[type]), nested(2, shape));
    return nested(field, message(text(1, name), nested(2, message(nested(1, tensor)))));
  };
  const input = (name: string): Uint8Array => value(11, name, 'int64', ['n', 't']);
  const graph = message(
    node('Gather', ['table', 'input_ids'], 'embedded'),
    node('CumSum', ['embedded', 'one'], 'summed'),
    ...(positions
      ? [
          node('Gather', ['places', 'position_ids'], 'placed'),
          node('Add', ['summed', 'placed'], 'scores'),
        ]
      : [node('Identity', ['summed'], 'scores')]),
    node('Cast', ['attention_mask'], 'mask', attribute('to', types.float)),
    node('Unsqueeze', ['mask', 'last'], 'masked'),
    node('Mul', ['scores', 'masked'], 'product'),
    node('Cast', ['product'], named, attribute('to', types[output])),
    text(2, 'decoder'),
    constant('table', 'float', [vocab, vocab], table),
    ...(positions ? [constant('places', 'float', [mostPositions, vocab], places)] : []),
    constant('one', 'int64', [], BigInt64Array.of(1n)),
    constant('last', 'int64', [1], BigInt64Array.of(2n)),
    input('input_ids'),
    input('attention_mask'),
    ...(positions ? [input('position_ids')] : []),
    ...(further === undefined ? [] : [input(further)]),
    value(12, named, output, ['n', 't', vocab]),
  );
  const opset13 = message(text(1, ''), integer(2, 13));
  return {
    bytes: message(integer(1, 8), nested(7, graph), nested(8, opset13)),
    row: (tokens) =>
      Array.from({ length: vocab }, (_, v) => {
        const sum = tokens.reduce((all, token) => all + at(table, token * vocab + v), 0);
        return sum + (positions ? at(places, (tokens.length - 1) * vocab + v) : 0);
      }),
  };
}
