/** The tensors of a batch, each in its dtype and shape, or refused by its name. */
import type { DirAlignError } from '../errors.js';
import { defect, quote, written } from './format.js';
import type { SafetensorsTensor } from './read.js';

/** `tokenWeights` to `token_weights`. */
export function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A tensor under the name that the file has for it. */
export interface NamedTensor extends SafetensorsTensor {
  readonly name: string;
}

export class BatchTensors {
  constructor(
    private readonly path: string,
    private readonly tensors: ReadonlyMap<string, SafetensorsTensor>,
  ) {}

  /** @param name as the library has it; the file may have it in snake_case, but not in both. */
  find(name: string): NamedTensor | undefined {
    const [there, other] = [...new Set([name, snake(name)])].filter((each) =>
      this.tensors.has(each),
    );
    if (there === undefined) return undefined;
    if (other !== undefined) throw this.defect(other, `there is ${quote(there)}, too.`);
    return { name: there, ...(this.tensors.get(there) as SafetensorsTensor) };
  }

  needed(name: string): NamedTensor {
    const tensor = this.find(name);
    if (tensor !== undefined) return tensor;
    const present = [...this.tensors.keys()].slice(0, 8).map(quote).join(', ');
    throw this.defect(name, `is missing; there are: ${present || 'none'}.`, ' ');
  }

  defect(name: string, what: string, mark = ': '): DirAlignError {
    return defect(this.path, `tensor ${quote(name)}${mark}${what}`);
  }

  /** @param shapes any of which will do */
  shaped({ name, shape }: NamedTensor, ...shapes: readonly (readonly number[])[]): void {
    const fits = shapes.some(
      (expected) =>
        shape.length === expected.length && shape.every((size, axis) => size === expected[axis]),
    );
    if (fits) return;
    const expected = [...new Set(shapes.map(written))].join(' or ');
    throw this.defect(name, `shape ${written(shape)}; expected ${expected}.`);
  }

  int32({ name, dtype, data }: NamedTensor): Int32Array {
    if (data instanceof Int32Array) return data;
    if (!(data instanceof BigInt64Array))
      throw this.defect(name, `dtype ${dtype}; expected I32 or I64.`);
    const outside = data.findIndex((value) => BigInt.asIntN(32, value) !== value);
    if (outside >= 0)
      throw this.defect(name, `element ${outside} is ${data[outside] ?? ''}; expected 32 bits.`);
    return Int32Array.from(data, Number);
  }

  floats({ name, dtype, data }: NamedTensor): Float64Array | Float32Array {
    if (data instanceof Float64Array || data instanceof Float32Array) return data;
    throw this.defect(name, `dtype ${dtype}; expected F32 or F64.`);
  }

  flags(tensor: NamedTensor): Uint8Array {
    const { name, dtype, data } = tensor;
    const isInteger = data instanceof Int32Array || data instanceof BigInt64Array;
    if (!isInteger && !(data instanceof Uint8Array))
      throw this.defect(name, `dtype ${dtype}; expected U8, BOOL, I32 or I64.`);
    const values = isInteger ? this.int32(tensor) : data;
    const other = values.findIndex((value) => value !== 0 && value !== 1);
    if (other >= 0)
      throw this.defect(name, `element ${other} is ${values[other] ?? ''}; expected 0 or 1.`);
    return Uint8Array.from(values);
  }

  scalar(tensor: NamedTensor): number {
    this.shaped(tensor, [], [1]);
    return this.floats(tensor)[0] as number;
  }
}
