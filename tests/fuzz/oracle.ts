// What must hold of every call.
import { DirAlignError } from '../../ts/index.js';
import { generator } from '../support/numbers.js';
import { bitsOf, Call, difference, onHost, outcomeOf, type Bits, type Outcome } from './call.js';
import { compare } from './compare.js';
import { Fault } from './fault.js';
import { Float16 } from './memory.js';
import type { CallPlan, TwistPlan } from './plan.js';
import { combined, type Twist, type Twisted } from './twist.js';
import { arrayTwists } from './twist-arrays.js';
import { contentTwists } from './twist-contents.js';
import { deviceTwists } from './twist-device.js';
import { objectTwists } from './twist-objects.js';
import { timingTwists } from './twist-timing.js';

/** In the order of application: contents, then arrays, then the objects that hold them. */
export const twists: readonly Twist[] = [
  ...contentTwists,
  ...deviceTwists,
  ...arrayTwists,
  ...timingTwists,
  ...objectTwists,
];

/** How many calls returned, were refused with each code, and were compared with float64. */
const outcomes = new Map<string, number>();
function count(outcome: string): void {
  outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
}
/** Those since it was last called. */
export function takeOutcomes(): Record<string, number> {
  const taken = Object.fromEntries(outcomes);
  outcomes.clear();
  return taken;
}

const said = (error: unknown): string =>
  error instanceof Error
    ? `${error.name}: ${error.message}\n${error.stack?.split('\n').slice(1, 6).join('\n') ?? ''}`
    : String(error);

function codeOf(error: unknown): string | undefined {
  return error instanceof DirAlignError ? error.code : undefined;
}

/** What tests/support's own rules for a refusal are, for whoever reads its message. */
function checkRefusal(error: DirAlignError): void {
  if (!/^ERR_DIRALIGN_[A-Z]+$/.test(error.code)) throw new Fault(`a refusal of code ${error.code}`);
  if (!(error.message.length > 0 && error.message.length < 2000))
    throw new Fault(`a refusal with a message of ${error.message.length} letters`);
}

/**
 * The caller's memory: inputs as they were, outputs as they were unless the call may write there.
 */
function checkMemory(call: Call, mayWrite: boolean): void {
  for (const [key, held] of call.inputs) {
    const written = (mayWrite && key === 'logits' && call.overwrites) || call.restless.has(held);
    const fault = held.fault(written);
    if (fault !== undefined) throw new Fault(`${key}: ${fault}`);
  }
  for (const [key, held] of call.outputs) {
    const fault = held.fault(mayWrite || call.restless.has(held));
    if (fault !== undefined) throw new Fault(`out ${key}: ${fault}`);
  }
}

const plainPrototypes = new Set<unknown>(
  [Float64Array, Float32Array, Int32Array, Uint16Array, Float16].map(
    (kind) => kind?.prototype as unknown,
  ),
);

/** Fresh results are plain arrays of this realm, whatever the caller's own are. */
function checkArrays(call: Call, result: object): void {
  for (const [key, value] of Object.entries(result)) {
    if (!ArrayBuffer.isView(value) || call.given.has(value)) continue;
    if (!plainPrototypes.has(Object.getPrototypeOf(value)))
      throw new Fault(`${key} is not a plain array`);
  }
}

async function run(call: Call): Promise<Outcome> {
  for (const held of [...call.inputs.values(), ...call.outputs.values()]) held.remember();
  const outcome = await outcomeOf(call);
  const code = 'error' in outcome ? codeOf(outcome.error) : undefined;
  const mayWrite = !('error' in outcome) || code === 'ERR_DIRALIGN_ABORTED' || call.mayBeHalfDone;
  checkMemory(call, mayWrite);
  if ('result' in outcome) {
    count('returned');
    checkArrays(call, outcome.result);
  } else if (code !== undefined) {
    count(code);
    checkRefusal(outcome.error as DirAlignError);
  }
  const wrong = await call.beside;
  if (wrong !== undefined) throw new Fault(wrong);
  return outcome;
}

/** A call without twists; undefined where the workspace that the plan allows is too small. */
async function runFine(plan: CallPlan): Promise<Bits | undefined> {
  const call = new Call({ ...plan, twists: [] });
  try {
    const outcome = await run(call);
    if ('error' in outcome) {
      if (plan.run.memory !== undefined && (outcome.error as Error).message.startsWith('memory: '))
        return undefined;
      throw new Fault(`a fine call was refused: ${said(outcome.error)}`);
    }
    const bits = bitsOf(call, outcome.result);
    if (!plan.asynchronous && compare(call, onHost(call, outcome.result, bits))) count('compared');
    return bits;
  } finally {
    call.dispose();
  }
}

function applied(call: Call, plans: readonly TwistPlan[]): Twisted[] {
  const chosen = twists.flatMap((twist) =>
    plans.filter(({ name }) => name === twist.name).map(({ pick }) => ({ twist, pick })),
  );
  return chosen.flatMap(({ twist, pick }) => twist.apply(call, generator(pick)) ?? []);
}

function checkTwisted(
  call: Call,
  done: readonly Twisted[],
  outcome: Outcome,
  expected: Bits,
): void {
  const expectation = combined(done);
  const what = done.map((one) => one.what).join('; ');
  if ('error' in outcome) {
    const { error } = outcome;
    const code = codeOf(error);
    const own =
      call.planted.has(error) || (call.planted.has(TypeError) && error instanceof TypeError);
    if (code === undefined && !own) throw new Fault(`${what}: not a DirAlignError: ${said(error)}`);
    if (code === 'ERR_DIRALIGN_ABORTED' && done.some(({ mayAbort }) => mayAbort)) return;
    if (expectation === 'same') throw new Fault(`${what}: refused: ${said(error)}`);
    return;
  }
  const bits = bitsOf(call, outcome.result);
  if (expectation === 'refused' || expectation === 'thrown')
    throw new Fault(`${what}: accepted in place of ${expectation}`);
  if (expectation === 'any') return;
  const found = difference(bits, expected);
  if (found !== undefined) throw new Fault(`${what}: ${found}`);
}

/** Throws a {@link Fault} where anything of the plan is not as it must be. */
export async function check(plan: CallPlan): Promise<void> {
  const expected = await runFine({ ...plan, asynchronous: false });
  if (expected === undefined) return;
  if (plan.asynchronous) {
    const found = difference((await runFine(plan)) ?? new Map(), expected);
    if (found !== undefined) throw new Fault(`asynchronous: ${found}`);
  }
  if (plan.twists.length === 0) return;
  const call = new Call(plan);
  try {
    const done = applied(call, plan.twists);
    if (done.length === 0) return;
    const outcome = await run(call);
    checkTwisted(call, done, outcome, expected);
  } finally {
    call.dispose();
  }
}
