// What of a device was made and not given back, as soon as a call is over: a collector that says so
// is late.
interface Held {
  readonly what: string;
}
const isHeld = (value: unknown): value is Held =>
  typeof value === 'object' && value !== null && 'what' in value && 'free' in value;

const alive = new Set<unknown>();
type Registry = FinalizationRegistry<unknown>;
const { register, unregister } = FinalizationRegistry.prototype as unknown as {
  readonly register: (this: Registry, target: WeakKey, held: unknown, token?: WeakKey) => void;
  readonly unregister: (this: Registry, token: WeakKey) => boolean;
};
// Every resource of the package is in a registry until it is disposed of.
Object.assign(FinalizationRegistry.prototype, {
  register(this: Registry, target: WeakKey, held: unknown, token?: WeakKey) {
    if (isHeld(held)) alive.add(held);
    register.call(this, target, held, token);
  },
  unregister(this: Registry, token: WeakKey) {
    alive.delete(token);
    return unregister.call(this, token);
  },
});

/** What those are that were made since this was last called. */
export function takeForgotten(): string[] {
  const forgotten = [...alive].map((held) => (held as Held).what);
  alive.clear();
  return forgotten;
}
