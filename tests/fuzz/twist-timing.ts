// What happens while a call runs: aborts, other calls, writers, transfers.
import { Worker } from 'node:worker_threads';
import { choose, integer } from '../support/numbers.js';
import { bitsOf, Call, difference, type Properties } from './call.js';
import { Guarded } from './memory.js';
import { copiedKeys, isRead, planted, type Expectation, type Twist } from './twist.js';

/** One for all calls of the process, never aborted. */
const shared = new AbortController();

function sign(call: Call, signal: unknown): void {
  call.run = { ...(call.run as Properties | undefined), signal };
}

const abort: Twist = {
  name: 'an abort at some moment',
  apply(call, random) {
    if (!call.plan.asynchronous) return undefined;
    const controller = new AbortController();
    const reason = choose(random, [undefined, null, Symbol('reason'), new Error('enough'), 7]);
    sign(call, controller.signal);
    const when = choose(random, ['before', 'at once', 'microtask', 'turn', 'later'] as const);
    const now = (): void => {
      controller.abort(reason);
    };
    const delay = random() * 3;
    if (when === 'before') now();
    else
      call.meanwhile.push(() => {
        if (when === 'at once') now();
        else if (when === 'microtask') queueMicrotask(now);
        else if (when === 'turn') setImmediate(now);
        else setTimeout(now, delay);
      });
    return { expect: 'same', mayAbort: true, what: `aborted ${when}` };
  },
};

/** What libraries for older runtimes made of a signal, with what is changed of it. */
function ofLibrary(change: object = {}): object {
  return Object.assign(new EventTarget(), { aborted: false, reason: undefined }, change);
}
const signals: Readonly<Record<string, (error: Error) => [signal: object, expect: Expectation]>> = {
  'one for all calls': () => [shared.signal, 'same'],
  'one that follows others': () => [
    AbortSignal.any([shared.signal, new AbortController().signal]),
    'same',
  ],
  'one of a library': () => [ofLibrary(), 'same'],
  'one that says something else each time': () => {
    let reads = 0;
    const get = (): unknown => [false, 'x', undefined, true][reads++ % 4];
    const { signal: own } = new AbortController();
    return [Object.defineProperty(own, 'aborted', { get }), 'any'];
  },
  'one that takes no listener': (error) => {
    const addEventListener = (): never => {
      throw error;
    };
    return [ofLibrary({ addEventListener }), 'thrown'];
  },
  'one that keeps its listeners': (error) => {
    const removeEventListener = (): never => {
      throw error;
    };
    return [ofLibrary({ removeEventListener }), 'any'];
  },
};

const signal: Twist = {
  name: 'a signal that is never aborted',
  apply(call, random) {
    if (!call.plan.asynchronous) return undefined;
    const [what, make] = choose(random, Object.entries(signals));
    const [own, expect] = make(planted(call));
    sign(call, own);
    call.mayBeHalfDone = expect === 'any';
    return { expect, mayAbort: true, what: `signal: ${what}` };
  },
};

const beside: Twist = {
  name: 'beside other calls',
  apply(call, random) {
    if (!call.plan.asynchronous) return undefined;
    const number = integer(random, 1, 6);
    call.meanwhile.push(() => {
      const others = Array.from({ length: number }, () => new Call(call.plan));
      const results = others.map(async (other) =>
        bitsOf(other, (await other.start()) as Properties),
      );
      call.beside = Promise.all(results)
        .then(([first, ...rest]) => {
          const found = rest.map((one) => first && difference(one, first)).find(Boolean);
          return found && `calls beside one another differ: ${found}`;
        })
        .finally(() => {
          for (const other of others) other.dispose();
        });
    });
    return { expect: 'same', what: `beside ${number} others` };
  },
};

/** Arrays that are copied before they are checked: what happens to them later changes nothing. */
const copied = ['labels', 'sftLabels', 'offsets', 'reference', 'counts', ...copiedKeys];

const overwritten: Twist = {
  name: 'labels that change once the call was started',
  apply(call, random) {
    const arrays = [...call.inputs].filter(([key]) => copied.includes(key));
    if (!call.plan.asynchronous || arrays.length === 0) return undefined;
    const [key, held] = choose(random, arrays);
    const value = choose(random, [-1, 0, 2 ** 31 - 1, -(2 ** 31)]);
    call.restless.add(held);
    call.meanwhile.push(() => {
      if (held instanceof Guarded && !held.isGone) held.value.fill(value);
    });
    const expect = copiedKeys.has(key) ? 'same' : 'any';
    return { expect, what: `${key} is ${value} everywhere meanwhile` };
  },
};

const properties: Twist = {
  name: 'objects that change once the call was started',
  apply(call, random) {
    if (!call.plan.asynchronous || call.objects.size === 0) return undefined;
    const [name, object] = choose(random, [...call.objects]);
    call.meanwhile.push(() => {
      for (const key of Object.keys(object)) {
        if (random() < 0.5) object[key] = choose(random, [undefined, -1, new Float32Array(0), 'x']);
        else Reflect.deleteProperty(object, key);
      }
    });
    return { expect: 'same', what: `${name} is emptied meanwhile` };
  },
};

/** Keeps transferred memory until its call is over: freed earlier, it would be read after that. */
const transferred: Twist = {
  name: 'an array that is transferred meanwhile',
  apply(call, random) {
    if (!call.plan.asynchronous) return undefined;
    const arrays = [...call.inputs, ...call.outputs].filter(
      (entry): entry is [string, Guarded] =>
        entry[1] instanceof Guarded && entry[1].value.buffer instanceof ArrayBuffer,
    );
    if (arrays.length === 0) return undefined;
    const [key, held] = choose(random, arrays);
    const kept: unknown[] = [];
    call.meanwhile.push(() => {
      const { buffer } = held.value;
      if (buffer.byteLength > 0) kept.push(structuredClone(buffer, { transfer: [buffer] }));
    });
    call.undo.push(() => {
      kept.length = 0;
    });
    call.mayBeHalfDone = true;
    const isLost = held.value.length > 0 && isRead(call, key);
    const expect = copiedKeys.has(key) ? 'same' : isLost ? 'refused' : 'any';
    return { expect, what: `${key} is transferred meanwhile` };
  },
};

/**
 * A thread that writes `values` into an element of shared memory by turns, until it is told to
 * stop.
 */
const program = `
  const { parentPort, workerData } = require('node:worker_threads');
  const control = new Int32Array(workerData);
  parentPort.on('message', ({ buffer, byteOffset, index, values }) => {
    const array = new Int32Array(buffer, byteOffset);
    Atomics.store(control, 0, 1);
    Atomics.notify(control, 0);
    for (let i = 0; Atomics.load(control, 0) === 1; i++) array[index] = values[i & 1];
    array[index] = values[0];
    Atomics.store(control, 0, 3);
    Atomics.notify(control, 0);
  });
`;
interface Writer {
  readonly worker: Worker;
  readonly control: Int32Array;
}
let writer: Writer | undefined;

function startWriter(): Writer {
  const memory = new SharedArrayBuffer(4);
  const worker = new Worker(program, { eval: true, workerData: memory });
  worker.unref();
  return { worker, control: new Int32Array(memory) };
}

const raced: Twist = {
  name: 'labels that another thread writes',
  apply(call, random) {
    const names = ['labels', 'offsets', 'counts', 'sftLabels'];
    const arrays = [...call.inputs].filter(
      ([key, { value }]) =>
        names.includes(key) && 'buffer' in value && value.buffer instanceof SharedArrayBuffer,
    );
    if (arrays.length === 0) return undefined;
    const [key, held] = choose(random, arrays);
    const array = held.value as Int32Array;
    if (array.length === 0) return undefined;
    const index = integer(random, 0, array.length - 1);
    const truth = array[index] ?? 0;
    const { ignoreIndex } = call.exact as { readonly ignoreIndex?: number };
    const lies = [-1, 2 ** 31 - 1, -(2 ** 31), truth + 1, 10_000];
    const lie = choose(
      random,
      lies.filter((one) => one !== ignoreIndex),
    );
    const { worker, control } = (writer ??= startWriter());
    call.before.push(() => {
      call.restless.add(held);
      Atomics.store(control, 0, 2);
      const { buffer, byteOffset } = array;
      worker.postMessage({ buffer, byteOffset, index, values: [truth, lie] });
      Atomics.wait(control, 0, 2, 2000);
    });
    call.undo.push(() => {
      Atomics.store(control, 0, 0);
      Atomics.wait(control, 0, 0, 2000);
    });
    // Another label in the vocabulary is no lie.
    const expect = key === 'labels' && (lie < 0 || lie >= 10_000) ? 'same or refused' : 'any';
    return { expect, what: `${key}[${index}] is ${truth} or ${lie}` };
  },
};

export const timingTwists: readonly Twist[] = [
  ...[abort, signal, beside, overwritten, properties, transferred, raced],
];
