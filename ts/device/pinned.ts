/** Page-locked host memory. */
import { bytesOf, extentOf } from '../batch/arrays.js';
import { rangeError } from '../errors.js';
import { onDevice } from './arguments.js';
import { type Held, release, Resource, retain } from './resource.js';
import { nativeCuda } from './status.js';

/** By buffer, what of it is page-locked. */
const pinned = new WeakMap<ArrayBufferLike, Set<Held>>();

/** Keeps host memory page-locked that an asynchronous call uses. */
export function retainPinned(views: readonly (ArrayBufferView | undefined)[]): () => void {
  const all = new Set(
    views.flatMap((view) => (view ? [...(pinned.get(extentOf(view).buffer) ?? [])] : [])),
  );
  return release([...all].map(retain));
}

/**
 * A host array whose memory is page-locked, so that copies of it go at the full speed of the bus.
 * Made by `cuda.pin`. Do not transfer its buffer meanwhile.
 */
export class PinnedArray<A extends ArrayBufferView = ArrayBufferView> extends Resource {
  /** What was page-locked, and stays so until `dispose`. */
  readonly array: A;

  /** @internal */
  constructor(array: A) {
    const bytes = bytesOf('array', array);
    if (bytes.byteLength === 0)
      throw rangeError('ERR_DIRALIGN_SHAPE', 'array: there is nothing in it to page-lock');
    const address = onDevice(`page-locking ${bytes.byteLength} bytes`, (cuda) => cuda.pin(bytes));
    // The finalizer must find the memory in place: it holds the array.
    const { buffer } = bytes;
    super(`a PinnedArray of ${bytes.byteLength} bytes`, () => {
      pinned.get(buffer)?.delete(held);
      nativeCuda().unpin(address);
    });
    this.array = array;
    Object.freeze(this);
    const held = this.held as Held;
    pinned.set(buffer, (pinned.get(buffer) ?? new Set()).add(held));
  }
}
