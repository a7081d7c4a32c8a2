// Tensors in device memory that are gone, too short, of other streams, or none.
import { cuda, type DeviceTensor } from '../../ts/index.js';
import { choose, type Random } from '../support/numbers.js';
import type { Call } from './call.js';
import { OnDevice } from './memory.js';
import type { Expectation, Twist } from './twist.js';

type Disguise = (
  held: OnDevice,
  random: Random,
  call: Call,
) => { readonly value: unknown; readonly expect: Expectation } | undefined;

const bytesOf = ({ value }: OnDevice): number => value.byteLength ?? 0;
/** The tensor as foreign memory, with what is changed of it. */
function foreign({ value }: OnDevice, change: object = {}): DeviceTensor {
  const { ptr, dtype, device, stream, byteLength } = value;
  return cuda.tensor({ ptr, dtype, device, stream, ...(byteLength && { byteLength }), ...change });
}

const disguises: Readonly<Record<string, Disguise>> = {
  'a tensor whose memory was freed': (held) => {
    const { buffer } = held.copy;
    const value = buffer.tensor(held.value.dtype, {
      offset: Number(held.value.ptr - buffer.ptr),
    });
    held.dispose();
    return { value, expect: 'refused' };
  },
  'a tensor of another library whose memory was freed': (held) => {
    // Nobody asks what an address is that is never read.
    const expect = bytesOf(held) > 0 ? 'refused' : 'any';
    held.dispose();
    return { value: held.value, expect };
  },
  'a tensor that is too short': (held) =>
    bytesOf(held) < 4
      ? undefined
      : { value: foreign(held, { byteLength: bytesOf(held) - 4 }), expect: 'any' },
  'a tensor of unknown length': (held) => ({
    value: foreign(held, { byteLength: undefined }),
    expect: 'any',
  }),
  'a tensor of another dtype': (held, random) => {
    // Aligned for any, and within what is the call's to write.
    const ptr = (held.value.ptr + 3n) & ~3n;
    const byteLength = bytesOf(held) - Number(ptr - held.value.ptr);
    if (byteLength <= 0) return undefined;
    const dtype = choose(random, ['float32', 'float16', 'bfloat16'] as const);
    return { value: foreign(held, { dtype, ptr, byteLength }), expect: 'any' };
  },
  'a tensor on another stream': (held, _, call) => {
    const stream = cuda.stream();
    call.release.push(() => {
      stream.dispose();
    });
    return { value: foreign(held, { stream }), expect: 'any' };
  },
  'a tensor on a stream that was disposed of': (held) => {
    const stream = cuda.stream();
    const value = foreign(held, { stream });
    stream.dispose();
    return { value, expect: 'refused' };
  },
  'memory that is no memory': (held, random) => ({
    value: foreign(held, { ptr: choose(random, [8n, 1n << 40n, (1n << 64n) - 8n]) }),
    expect: bytesOf(held) > 0 ? 'refused' : 'any',
  }),
  'a Proxy of a tensor': (held) => ({ value: new Proxy(held.value, {}), expect: 'refused' }),
  'an object that inherits from a tensor': (held) => ({
    value: Object.create(held.value) as object,
    expect: 'refused',
  }),
  'an object that has what a tensor has': (held) => ({
    value: Object.assign({}, held.value),
    expect: 'refused',
  }),
  'an array of the host': (held) => ({
    value: new Float32Array(bytesOf(held) / 4),
    expect: 'any',
  }),
};

export const deviceTwists: readonly Twist[] = Object.entries(disguises).map(([name, disguise]) => ({
  name,
  apply(call, random) {
    // What another twist has freed stays as that one gave it.
    const tensors = [...call.inputs, ...call.outputs].filter(
      (entry): entry is [string, OnDevice] =>
        entry[1] instanceof OnDevice && !entry[1].copy.buffer.disposed,
    );
    if (tensors.length === 0) return undefined;
    const [key, held] = choose(random, tensors);
    const result = disguise(held, random, call);
    if (!result) return undefined;
    call.give(key, result.value);
    return { expect: result.expect, what: `${key}: ${name}` };
  },
}));
