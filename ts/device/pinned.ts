/** Page-locked host memory. */
import { bytesOf } from '../batch/arrays.js';
import { rangeError } from '../errors.js';
import { onDevice } from './arguments.js';
import { hold, letGo } from './holds.js';
import { type Held, Resource } from './resource.js';
import { nativeCuda } from './status.js';

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
    // The finalizer holds the buffer, so that the memory is still there when it runs.
    const { buffer } = bytes;
    super(`a PinnedArray of ${bytes.byteLength} bytes`, () => {
      letGo(buffer, held);
      nativeCuda().unpin(address);
    });
    this.array = array;
    Object.freeze(this);
    const held = this.held as Held;
    hold(buffer, held);
  }
}
