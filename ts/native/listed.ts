/** Requests on their way to native code: lists all through, but for what few of them have. */
import { listed } from '../contract.generated.js';
import type {
  BackwardRequest,
  BatchRequest,
  Differentiated,
  FromLogpsRequest,
  LayerRequest,
  LossRequest,
  SequenceLogpsRequest,
  TokenLogpsRequest,
} from './interface.js';

/** A request that native code has made sense of. */
export type Listed = readonly unknown[];

interface Call extends Partial<Differentiated> {
  readonly batch: BatchRequest;
  readonly layer?: LayerRequest | undefined;
}

/** Its parts are its first elements. */
function withParts(list: unknown[], { batch, layer, gradients }: Call): Listed {
  list[0] = listed.batch(batch);
  if (layer) list[1] = listed.layer(layer);
  if (gradients) list[2] = listed.gradients(gradients);
  return list;
}

export const loss = (request: LossRequest): Listed => withParts(listed.loss(request), request);
export const logpsBackward = (request: BackwardRequest): Listed =>
  withParts(listed.logpsBackward(request), request);
export const sequenceLogps = (request: SequenceLogpsRequest): Listed =>
  withParts(listed.sequenceLogps(request), request);
export const tokenLogps = (request: TokenLogpsRequest): Listed =>
  withParts(listed.tokenLogps(request), request);
export const fromLogps = (request: FromLogpsRequest): Listed => listed.fromLogps(request);
