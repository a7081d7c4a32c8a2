import { createRequire } from 'node:module';
import path from 'node:path';
import type { BenchBatch } from './data.js';
import { beta } from './modes.js';
import { onnxLogProbabilities } from './onnx-model.js';
import { timeOf } from './rounds.js';

/** Another way to compute the same DPO loss, and mostly its gradient. */
export interface Peer {
  readonly name: string;
  readonly title: string;
  readonly work: 'loss' | 'loss and gradient';
  /** The mode of ours that does the same work. */
  readonly against: string;
  /** Takes seconds: measured in fewer rounds. */
  readonly slow: boolean;
  /** It computes from logits rounded to bfloat16, and rounds the gradient so. */
  readonly bfloat16?: boolean;
  /** How to get it. */
  readonly install?: string;
  /** Made ready on a batch; undefined where it is not installed. */
  load(batch: BenchBatch, threads: number): Promise<LoadedPeer | undefined>;
}

export interface LoadedPeer {
  readonly version: string;
  /** Does the work once; milliseconds. */
  run(): number | Promise<number>;
  /** What it computed, to be compared with ours: a benchmark of other work is no benchmark. */
  result(): PeerResult | Promise<PeerResult>;
  /** Of its process, beyond the logits, at the highest point; where it has one of its own. */
  readonly extraMiB?: number;
  close?(): void | Promise<void>;
}

export interface PeerResult {
  readonly loss: number;
  /** Sum of the absolute values. */
  readonly gradientSum?: number;
}

export const sumOfSizes = (values: Float32Array): number => {
  let sum = 0;
  for (const value of values) sum += Math.abs(value);
  return sum;
};

/** The mean DPO loss from log-probabilities of sequences, and its derivative by each of them. */
function pairLoss(
  logps: Float64Array,
  reference: Float64Array,
): { loss: number; coefficients: Float64Array } {
  const pairs = logps.length / 2;
  const coefficients = new Float64Array(logps.length);
  const margin = (i: number): number => (logps[i] as number) - (reference[i] as number);
  let loss = 0;
  for (let i = 0; i < pairs; i++) {
    const u = beta * (margin(i) - margin(i + pairs));
    // -log sigmoid(u), without overflow.
    loss += (u > 0 ? Math.log1p(Math.exp(-u)) : Math.log1p(Math.exp(u)) - u) / pairs;
    const slope = beta / (1 + Math.exp(u)) / pairs;
    coefficients[i] = -slope;
    coefficients[i + pairs] = slope;
  }
  return { loss, coefficients };
}

/**
 * The same loss and gradient in plain loops over typed arrays: what one writes without a native
 * addon.
 */
const plainJavaScript: Peer = {
  name: 'js',
  title: 'plain JavaScript',
  work: 'loss and gradient',
  against: 'out',
  slow: true,
  load: (batch) => {
    const gradient = new Float32Array(batch.logits.length).fill(1);
    let loss = NaN;
    return Promise.resolve({
      version: `V8 ${process.versions.v8}`,
      run: () => timeOf(() => (loss = plainDpo(batch, gradient))),
      result: () => ({ loss, gradientSum: sumOfSizes(gradient) }),
    });
  },
};

function plainDpo(
  { logits, shape, labels, reference }: BenchBatch,
  gradient: Float32Array,
): number {
  const [sequences, tokens, vocab] = shape;
  const maxima = new Float32Array(labels.length);
  const sums = new Float64Array(labels.length);
  const logps = new Float64Array(sequences);
  for (let row = 0; row < labels.length; row++) {
    const from = row * vocab;
    const to = from + vocab;
    let max = -Infinity;
    for (let i = from; i < to; i++) {
      const x = logits[i] as number;
      if (x > max) max = x;
    }
    let sum = 0;
    for (let i = from; i < to; i++) sum += Math.exp((logits[i] as number) - max);
    maxima[row] = max;
    sums[row] = sum;
    const s = Math.floor(row / tokens);
    logps[s] =
      (logps[s] as number) +
      (logits[from + (labels[row] as number)] as number) -
      max -
      Math.log(sum);
  }
  const { loss, coefficients } = pairLoss(logps, reference);
  for (let row = 0; row < labels.length; row++) {
    const from = row * vocab;
    const to = from + vocab;
    const max = maxima[row] as number;
    const c = coefficients[Math.floor(row / tokens)] as number;
    const scale = -c / (sums[row] as number);
    for (let i = from; i < to; i++) gradient[i] = scale * Math.exp((logits[i] as number) - max);
    const label = from + (labels[row] as number);
    gradient[label] = (gradient[label] as number) + c;
  }
  return loss;
}

/** Where peers are looked for: the user's directory first. */
function resolverOf(directories: readonly string[]): (name: string) => unknown {
  return (name) => {
    for (const directory of directories) {
      const require = createRequire(path.join(directory, 'package.json'));
      try {
        require.resolve(name);
      } catch {
        continue;
      }
      return require(name) as unknown;
    }
    return undefined;
  };
}

/** The few calls that are made here. */
interface Tensor {
  dataSync(): Float32Array;
  dispose(): void;
}
interface Tfjs {
  readonly version: { readonly tfjs: string };
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor(values: Float32Array | Int32Array, shape: readonly number[], dtype?: string): Tensor;
  sub(a: Tensor, b: Tensor): Tensor;
  mul(a: Tensor, b: Tensor | number): Tensor;
  sum(x: Tensor, axis: number): Tensor;
  mean(x: Tensor): Tensor;
  softplus(x: Tensor): Tensor;
  reshape(x: Tensor, shape: readonly number[]): Tensor;
  slice(x: Tensor, begin: number, size: number): Tensor;
  oneHot(indices: Tensor, depth: number): Tensor;
  logSoftmax(x: Tensor): Tensor;
  valueAndGrad(f: (x: Tensor) => Tensor): (x: Tensor) => { value: Tensor; grad: Tensor };
  tidy<T>(f: () => T): T;
}
interface TfjsWasm {
  setThreadsCount?(threads: number): void;
}

/** Backward through a one-hot product: the gather of the wasm backend has no gradient. */
const tfjsWasm = (resolve: (name: string) => unknown): Peer => ({
  name: 'tfjs-wasm',
  title: 'TensorFlow.js wasm',
  work: 'loss and gradient',
  against: 'out',
  slow: true,
  install: 'npm install --no-save @tensorflow/tfjs @tensorflow/tfjs-backend-wasm',
  load: async ({ logits, shape, labels, reference }, threads) => {
    const tf = resolve('@tensorflow/tfjs') as Tfjs | undefined;
    const wasm = tf && (resolve('@tensorflow/tfjs-backend-wasm') as TfjsWasm | undefined);
    if (!tf || !wasm) return undefined;
    wasm.setThreadsCount?.(threads);
    // It says so on stderr when the runtime gives it one thread only.
    await tf.setBackend('wasm');
    await tf.ready();
    const [sequences, tokens, vocab] = shape;
    const pairs = sequences / 2;
    const x = tf.tensor(logits, [sequences * tokens, vocab]);
    const indices = tf.tensor(labels, [labels.length], 'int32');
    const ref = tf.tensor(Float32Array.from(reference), [sequences]);
    const dpo = (input: Tensor): Tensor => {
      const tokenLogps = tf.sum(tf.mul(tf.logSoftmax(input), tf.oneHot(indices, vocab)), 1);
      const ratios = tf.sub(tf.sum(tf.reshape(tokenLogps, [sequences, tokens]), 1), ref);
      const margins = tf.sub(tf.slice(ratios, 0, pairs), tf.slice(ratios, pairs, pairs));
      return tf.mean(tf.softplus(tf.mul(margins, -beta)));
    };
    const both = tf.valueAndGrad(dpo);
    let last: { value: Tensor; grad: Tensor } | undefined;
    const clear = (): void => {
      last?.value.dispose();
      last?.grad.dispose();
    };
    return {
      version: `tfjs ${tf.version.tfjs}`,
      run: () => {
        clear();
        return timeOf(() => {
          last = tf.tidy(() => both(x));
          last.value.dataSync();
        });
      },
      result: () => {
        if (!last) throw new Error('tfjs-wasm: has not run');
        return {
          loss: last.value.dataSync()[0] as number,
          gradientSum: sumOfSizes(last.grad.dataSync()),
        };
      },
      close: () => {
        clear();
        for (const tensor of [x, indices, ref]) tensor.dispose();
      },
    };
  },
});

/** The few calls of onnxruntime-node that are made here. */
interface OnnxTensor {
  readonly data: Float32Array;
}
interface Onnx {
  readonly env: { readonly versions: { readonly node?: string; readonly common: string } };
  readonly Tensor: new (
    type: string,
    data: Float32Array | BigInt64Array,
    dims: readonly number[],
  ) => OnnxTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<OnnxSession>;
  };
}
interface OnnxSession {
  run(feeds: Record<string, OnnxTensor>): Promise<Record<string, OnnxTensor>>;
  release(): Promise<void>;
}

/** Its Node package runs models but does not differentiate them. */
const onnxRuntime = (resolve: (name: string) => unknown): Peer => ({
  name: 'onnx',
  title: 'onnxruntime-node',
  work: 'loss',
  against: 'forward',
  slow: false,
  install: 'ONNXRUNTIME_NODE_INSTALL=skip npm install --no-save onnxruntime-node',
  load: async ({ logits, shape, labels, reference }, threads) => {
    const onnx = resolve('onnxruntime-node') as Onnx | undefined;
    if (!onnx) return undefined;
    const session = await onnx.InferenceSession.create(onnxLogProbabilities(), {
      intraOpNumThreads: threads,
    });
    const [sequences, tokens, vocab] = shape;
    const feeds = {
      logits: new onnx.Tensor('float32', logits, [labels.length, vocab]),
      labels: new onnx.Tensor('int64', BigInt64Array.from(labels, BigInt), [labels.length, 1]),
    };
    let loss = NaN;
    return {
      version: `onnxruntime ${onnx.env.versions.node ?? onnx.env.versions.common}`,
      run: async () => {
        const start = performance.now();
        const { logps } = await session.run(feeds);
        const sums = new Float64Array(sequences);
        (logps as OnnxTensor).data.forEach((logp, row) => {
          const s = Math.floor(row / tokens);
          sums[s] = (sums[s] as number) + logp;
        });
        loss = pairLoss(sums, reference).loss;
        return performance.now() - start;
      },
      result: () => ({ loss }),
      close: () => session.release(),
    };
  },
});

/**
 * Peers inside Node. Those that are packages are looked for in the given directories.
 */
export function nodePeers(directories: readonly string[]): Peer[] {
  const resolve = resolverOf(directories);
  return [plainJavaScript, tfjsWasm(resolve), onnxRuntime(resolve)];
}
