/** Calls of native code: requests become the arguments of its functions. */
import { listed } from '../contract.generated.js';
import {
  native,
  type Arguments,
  type BackwardRequest,
  type BadLabel,
  type Cancel,
  type Done,
  type FromLogpsRequest,
  type LossRequest,
  type SequenceLogpsRequest,
  type TokenLogpsRequest,
} from './interface.js';

type Answer = BadLabel | Cancel | undefined;

/** Computes before it returns, or calls `done` later; the list keeps what it has until then. */
function call<A extends Answer>(
  compute: (...request: Arguments) => A,
  list: unknown[],
  done?: Done,
): A {
  if (done) list.push(done, list);
  return compute(...list);
}

export const loss = (request: LossRequest, done?: Done): Answer =>
  call(native().loss, listed.loss(request), done);
export const logpsBackward = (request: BackwardRequest, done?: Done): Answer =>
  call(native().logpsBackward, listed.logpsBackward(request), done);
export const sequenceLogps = (request: SequenceLogpsRequest, done?: Done): Answer =>
  call(native().sequenceLogps, listed.sequenceLogps(request), done);
export const tokenLogps = (request: TokenLogpsRequest, done?: Done): Answer =>
  call(native().tokenLogps, listed.tokenLogps(request), done);
export const fromLogps = (request: FromLogpsRequest, done?: Done): Cancel | undefined =>
  call(native().fromLogps, listed.fromLogps(request), done);
