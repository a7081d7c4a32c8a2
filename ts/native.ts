import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typeError, type DirAlignError } from './errors.js';

/** What src/addon.cc exports. Every array was checked by ts/batch.ts; lengths are in {@link BatchRequest} and the like. */
export interface Native {
  /** JSON of the catalogue that ts/catalogue.generated.ts holds. */
  readonly catalogue: string;
  loss(request: LossRequest): BadLabel | undefined;
  loss(request: LossRequest, done: Done): BadLabel | Cancel;
  sequenceLogps(request: SequenceLogpsRequest): BadLabel | undefined;
  tokenLogps(request: TokenLogpsRequest): BadLabel | undefined;
  fromLogps(request: FromLogpsRequest): void;
  cpuInfo(): { readonly isa: string; readonly threads: number };
  /** One pass of a plain loop over float32 on the kernels' thread pool: 0 reads `source`, 1 scales `target` by 1, 2 copies. */
  memoryLoop(kind: 0 | 1 | 2, source: Float32Array, target: Float32Array, threads: number): void;
}

/** Returned instead of a result when a label is outside [0, vocab) and not the ignore index; nothing was written. */
export interface BadLabel {
  readonly sft: boolean;
  readonly row: number;
  readonly label: number;
}
export type Done = (error: Error | undefined, cancelled: boolean) => void;
export type Cancel = () => void;

export interface BatchRequest {
  logits: Float32Array | Uint16Array;
  /** 0 float32, 1 float16, 2 bfloat16. */
  dtype: number;
  rows: number;
  vocab: number;
  rowStride: number;
  sequences: number;
  offsets: Int32Array | undefined;
  labels: Int32Array;
  sftLabels: Int32Array | undefined;
  ignoreIndex: number;
  threads: number;
  /** Out, per sequence. */
  counts: Int32Array;
}
export interface ObjectiveRequest {
  /** Index in the catalogue. */
  method: number;
  /** In the catalogue's order of settings. */
  settings: Float64Array;
}
interface LossOutputs {
  losses: Float64Array;
  rewards: Float64Array;
  coefficients: Float64Array;
  /** In the catalogue's order of metrics, and the loss behind them. */
  metrics: Float64Array;
}
export interface LossRequest extends ObjectiveRequest, LossOutputs {
  batch: BatchRequest;
  reference: Float64Array | Float32Array | undefined;
  logps: Float64Array;
  /** 0 none, 1 dense, 2 factored. */
  gradientMode: number;
  gradient: Float32Array | Uint16Array | undefined;
  gradientIsFresh: boolean;
  rowScale: Float32Array | undefined;
}
export interface SequenceLogpsRequest {
  batch: BatchRequest;
  logps: Float64Array;
}
export interface TokenLogpsRequest {
  batch: BatchRequest;
  logps: Float64Array;
  logsumexp: Float64Array;
  entropy: Float64Array;
}
export interface FromLogpsRequest extends ObjectiveRequest, LossOutputs {
  logps: Float64Array | Float32Array;
  counts: Int32Array;
  reference: Float64Array | Float32Array | undefined;
  gradLogps: Float64Array;
}

const require = createRequire(import.meta.url);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
let loaded: { readonly addon: Native; readonly file: string } | undefined;

/** The addon, loaded on first use: importing the package never throws and costs nothing. */
export function native(): Native {
  return (loaded ??= load()).addon;
}

/** The file that {@link native} loaded. */
export function nativePath(): string {
  return (loaded ??= load()).file;
}

function load(): { addon: Native; file: string } {
  let file: string;
  try {
    file = (require('node-gyp-build') as { resolve(directory: string): string }).resolve(root);
  } catch (cause) {
    throw loadError(
      `There is no prebuilt binary for ${process.platform}-${process.arch}${isMusl() ? ' with musl' : ''}. ${remedy}`,
      cause,
    );
  }
  try {
    return { addon: require(file) as Native, file };
  } catch (cause) {
    throw loadError(`${file} could not be loaded. ${hint(cause)}`, cause);
  }
}

const remedy = 'Build one with: npx diralign build   (needs CMake and a C++20 compiler)';

function loadError(message: string, cause: unknown): DirAlignError {
  return typeError('ERR_DIRALIGN_LOAD', message, { cause });
}

/** What to do about a failed dlopen; the loader's own words stay in `cause`. */
function hint(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ERR_DLOPEN_DISABLED') return 'Node was started with --no-addons; diralign needs its addon.';
  const needed = /version `GLIBC_([\d.]+)' not found/.exec(message)?.[1];
  if (needed) return `It needs glibc ${needed} and this system has ${glibcVersion() ?? 'none'}. ${remedy}`;
  if (isMusl()) return `It was built for glibc and this system has musl (Alpine). ${remedy}, or use an image with glibc.`;
  return `${message}. ${remedy}`;
}

function glibcVersion(): string | undefined {
  const report = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return report.header.glibcVersionRuntime;
}

function isMusl(): boolean {
  return process.platform === 'linux' && glibcVersion() === undefined;
}
