import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { GradientBuffers } from '../loss/gradient-buffers.js';
import { native } from '../native/interface.js';
import { dirAlignLoss } from '../objective.js';
import { makeBatch, rowsOf, toBfloat16, toFloat16, type BenchBatch } from './data.js';

/**
 * The arrays that all cases and loops of a run work on. `work` starts each case as a copy of the
 * batch's logits; every case starts with these arrays out of the caches.
 */
export class Buffers {
  readonly work: Float32Array;
  readonly out: Float32Array;
  readonly lent = new GradientBuffers();
  #overwritten = false;
  #garbage = false;
  readonly #warmUp: () => void;
  #halves = new Map<'bfloat16' | 'float16' | 'out', Uint16Array>();
  readonly #other: Float32Array;
  readonly #collect: () => void;

  constructor(
    readonly batch: BenchBatch,
    readonly threads: number,
  ) {
    this.work = batch.logits.slice();
    this.out = new Float32Array(this.work.length).fill(1);
    // Filled: untouched pages would all be the system's one page of zeros, which fits any cache.
    this.#other = new Float32Array(Math.max(64 << 20, 2.5 * lastLevelCache()) / 4).fill(1);
    const small = makeBatch(1, 2, 100);
    const dpo = dirAlignLoss('dpo', 0.1);
    this.#warmUp = () => {
      dpo(small, { inPlace: true, threads });
    };
    setFlagsFromString('--expose-gc');
    // Collecting would drop the compiled code of calls, and the next case would compile it again.
    setFlagsFromString('--no-flush-bytecode');
    this.#collect = runInNewContext('gc') as () => void;
  }

  /** The logits with 16 bits each, made when first asked for; `out` is room for their gradient. */
  halves(kind: 'bfloat16' | 'float16' | 'out'): Uint16Array {
    let found = this.#halves.get(kind);
    if (!found) {
      const { logits } = this.batch;
      found =
        kind === 'out'
          ? new Uint16Array(logits.length).fill(1)
          : (kind === 'bfloat16' ? toBfloat16 : toFloat16)(logits);
      this.#halves.set(kind, found);
    }
    return found;
  }

  /** To be called by what writes into `work`. */
  overwritten(): void {
    this.#overwritten = true;
  }

  refill(): void {
    if (this.#overwritten) native().memoryLoop(2, this.batch.logits, this.work, this.threads);
    this.#overwritten = false;
  }

  /** To be called by what leaves large arrays behind. */
  leavesGarbage(): void {
    this.#garbage = true;
  }

  /**
   * The logits leave the caches; the code of a call, a tenth of a millisecond, is brought back by a
   * call on other, small data, as the code of the loops is by the reading. Garbage is collected
   * here and not while another case is timed.
   */
  makeCold(): void {
    this.refill();
    if (this.#garbage) this.#collect();
    this.#garbage = false;
    native().memoryLoop(0, this.#other, this.#other, this.threads);
    this.#warmUp();
  }

  loop(kind: 0 | 1 | 2, elements = rowsOf(this.batch) * this.batch.shape[2]): void {
    const source = this.work.subarray(0, elements);
    native().memoryLoop(
      kind,
      source,
      kind === 1 ? source : this.out.subarray(0, elements),
      this.threads,
    );
  }
}

/** Bytes; a generous guess where the system does not say. */
function lastLevelCache(): number {
  try {
    const text = readFileSync('/sys/devices/system/cpu/cpu0/cache/index3/size', 'utf8');
    return parseInt(text, 10) * 1024;
  } catch {
    return 64 << 20;
  }
}
