/** The memory that a call reads and writes, and whether two pieces of it overlap. */
import { DeviceTensor } from '../device/memory.js';
import { elementBytes } from '../dtype.js';
import { rangeError } from '../errors.js';
import { native, type HostArray } from '../native/interface.js';
import { rawArray } from './dtype-and-place.js';
import type { BatchRows, Logits } from './types.js';

/** Memory of a call: a host array, or so many elements of a tensor. */
export type Extent = HostArray | { readonly tensor: DeviceTensor; readonly elements: number };

/** By their names in messages. */
export type Extents = Readonly<Record<string, Extent | undefined>>;

/** The part of data that a call uses. */
export function extent(data: Logits, elements: number): Extent {
  return data instanceof DeviceTensor ? { tensor: data, elements } : rawArray(data);
}

/** The host arrays of every batch, checked before. */
export function rowInputs({ labels, offsets, sftLabels, reference }: BatchRows): Extents {
  return { labels, offsets, sftLabels, reference };
}

/** Refuses an output that overlaps an input or another output. */
export function checkApart(name: string, out: Extent, others: Extents): void {
  const found = firstOverlap(out, others);
  if (found === undefined) return;
  const advice = found === 'logits' ? '; to overwrite the logits, use inPlace' : '';
  throw rangeError('ERR_DIRALIGN_SHAPE', `${name}: overlaps ${found}${advice}`);
}

type TensorExtent = Exclude<Extent, HostArray>;

function meet(a: TensorExtent, b: TensorExtent): boolean {
  const end = ({ tensor: { ptr, dtype }, elements }: TensorExtent): bigint =>
    ptr + BigInt(elements * elementBytes[dtype]);
  return a.tensor.ptr < end(b) && b.tensor.ptr < end(a);
}

/** The name of one that shares memory with `out`. */
function firstOverlap(out: Extent, others: Extents): string | undefined {
  const names: string[] = [];
  const arrays: HostArray[] = [];
  for (const name of Object.keys(others)) {
    const memory = others[name];
    if (memory === undefined) continue;
    if ('tensor' in memory) {
      if ('tensor' in out && meet(out, memory)) return name;
    } else {
      names.push(name);
      arrays.push(memory);
    }
  }
  return 'tensor' in out ? undefined : names[native().firstOverlap(out, ...arrays)];
}
