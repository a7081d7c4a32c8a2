/** What keeps the memory of host arrays in its place: page locks, and loans of gradient buffers. */
import { spanOf } from '../batch/arrays.js';
import { type Held, release, retain } from './resource.js';

const holds = new WeakMap<ArrayBufferLike, Set<Held>>();

/** From now on, asynchronous calls that use the buffer keep what is held. */
export function hold(buffer: ArrayBufferLike, held: Held): void {
  holds.set(buffer, (holds.get(buffer) ?? new Set()).add(held));
}

/** The end of {@link hold}. */
export function letGo(buffer: ArrayBufferLike, held: Held): void {
  holds.get(buffer)?.delete(held);
}

export function holdsOf(buffer: ArrayBufferLike): ReadonlySet<Held> {
  return holds.get(buffer) ?? new Set();
}

/** Keeps the memory of these arrays until the returned function is called. */
export function retainHost(views: readonly (ArrayBufferView | undefined)[]): () => void {
  const all = new Set(views.flatMap((view) => (view ? [...holdsOf(spanOf(view).buffer)] : [])));
  return release([...all].map(retain));
}
