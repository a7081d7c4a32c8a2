// A device that is none: buffers are arrays, and the losses are computed on the CPU. So that the
// scripts for machines with a GPU can be run, and shown errors, where there is neither a GPU nor an
// emulation of one.
import { dirAlignLoss, logpsBackward, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type {
  LogitsBatch,
  LogpsDerivatives,
  LossResult,
  ObjectiveCalls,
  RunOptions,
  TokenLogpsOptions,
} from '../../ts/index.js';

type Elements = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
interface Tensor {
  readonly ptr: bigint;
  readonly dtype: 'float32' | 'float16' | 'bfloat16';
  readonly byteLength: number;
  copyTo?: (array: ArrayBufferView) => void;
  dispose?: () => void;
}
type Batch = Omit<LogitsBatch, 'logits'> & { readonly logits: Tensor | Elements };
type Run = Omit<RunOptions, 'out'> & { readonly out?: Tensor | Elements };
export type Result = LossResult<Elements>;

/** What a planted error changes. */
export interface Faults {
  /** Sees every result and its gradient, wherever that lies. */
  readonly alter?: (result: Result, gradient: Elements | undefined, batch: Batch, run: Run) => void;
  readonly alterTokens?: (logps: Float64Array) => void;
  /** Sees the logits that a gradient of given derivatives has replaced. */
  readonly alterBackward?: (gradient: Elements) => void;
}

const bytesOf = (view: ArrayBufferView): Uint8Array =>
  new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);

export function pretendSubject({ alter, alterTokens, alterBackward }: Faults = {}) {
  const memory = new Map<bigint, ArrayBuffer>();
  let next = 0x10000n;

  function alloc(byteLength: number) {
    const bytes = new ArrayBuffer(Math.ceil(byteLength / 8) * 8);
    const ptr = next;
    memory.set(ptr, bytes);
    next += BigInt(Math.ceil(byteLength / 256) + 2) * 256n;
    return {
      ptr,
      byteLength,
      fill: (byte: number) => void new Uint8Array(bytes).fill(byte),
      copyFrom: (array: ArrayBufferView, { offset = 0 } = {}) => {
        new Uint8Array(bytes, 0, byteLength).set(bytesOf(array), offset);
      },
      copyTo: (array: ArrayBufferView, { offset = 0 } = {}) => {
        bytesOf(array).set(new Uint8Array(bytes, offset, array.byteLength));
      },
      tensor: (dtype: Tensor['dtype']): Tensor => ({ ptr, dtype, byteLength }),
      dispose: () => void memory.delete(ptr),
    };
  }

  function view({ ptr, dtype, byteLength }: Tensor): Elements {
    for (const [base, bytes] of memory) {
      const offset = Number(ptr - base);
      if (offset < 0 || offset + byteLength > bytes.byteLength) continue;
      return dtype === 'float32'
        ? new Float32Array(bytes, offset, byteLength / 4)
        : new Uint16Array(bytes, offset, byteLength / 2);
    }
    throw new Error('no such memory');
  }
  const host = (batch: Batch): LogitsBatch<Elements> =>
    'ptr' in batch.logits
      ? { ...batch, dtype: batch.logits.dtype, logits: view(batch.logits) }
      : { ...batch, logits: batch.logits };

  function loss(objective: ObjectiveCalls, batch: Batch, run: Run): unknown {
    const given = host(batch);
    const { out } = run;
    const target = out && 'ptr' in out ? view(out) : out;
    const own: RunOptions = { ...run, backend: 'cpu', out: target };
    if (!target) delete (own as { out?: unknown }).out;
    const result = objective(given, own) as Result & { backend: string };
    result.backend = 'cuda';
    alter?.(result, result.gradLogits, batch, run);
    if (!result.gradLogits || !('ptr' in batch.logits)) return result;
    if (run.inPlace) return { ...result, gradLogits: batch.logits };
    if (out) return { ...result, gradLogits: out };
    const values = result.gradLogits;
    const fresh = alloc(values.byteLength);
    fresh.copyFrom(values);
    return {
      ...result,
      gradLogits: {
        ...fresh.tensor(batch.logits.dtype),
        copyTo: fresh.copyTo,
        dispose: fresh.dispose,
      },
    };
  }

  return {
    cuda: {
      available: true,
      alloc,
      tensor: (tensor: Tensor) => tensor,
      stream: () => ({ handle: 1n, dispose: () => undefined }),
      devices: () => [{ index: 0, name: 'pretended', memory: 2 ** 30, freeMemory: 2 ** 30 }],
    },
    dirAlignLoss: (...settings: unknown[]) => {
      const objective = (dirAlignLoss as (...all: unknown[]) => ObjectiveCalls)(...settings);
      const call = (batch: Batch, run: Run = {}) => loss(objective, batch, run);
      return Object.assign(call, {
        async: (batch: Batch, run?: Run) => Promise.resolve(call(batch, run)),
      });
    },
    sequenceLogps: (batch: Batch) => sequenceLogps(host(batch)),
    tokenLogps: (batch: Batch, options?: TokenLogpsOptions) => {
      const result = tokenLogps(host(batch), { ...options, backend: 'cpu' });
      alterTokens?.(result.logps);
      return result;
    },
    logpsBackward: (batch: Batch, derivatives: LogpsDerivatives, run: { inPlace: true }) => {
      const given = host(batch);
      logpsBackward(given, derivatives, run);
      alterBackward?.(given.logits);
    },
    memory,
  };
}
