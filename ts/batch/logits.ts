/** Batches of logits. */
import { DeviceTensor } from '../device/memory.js';
import type { CheckedParallel } from '../distributed/parallel.js';
import { Target, type BatchRequest } from '../native/interface.js';
import { rawMemory, type Backend } from './dtype-and-place.js';
import {
  checkLaunchSize,
  checkLogitsLength,
  checkRowStride,
  checkTensor,
  neededElements,
} from './elements.js';
import { checkOutline, checkRows } from './rows.js';
import { placeShard } from './shard.js';
import type { Logits, LogitsBatch } from './types.js';

/**
 * A batch of logits, and its logits as a plain array or a tensor.
 * @param parallel of a call that takes a part of a batch.
 * @throws DirAlignError
 */
export function checkLogitsBatch(
  batch: LogitsBatch<Logits>,
  threads: number | undefined,
  backend: Backend,
  parallel?: CheckedParallel,
): { readonly request: BatchRequest; readonly logits: Logits } {
  const outline = checkOutline('logits', batch.logits, batch, backend);
  const { data: logits } = outline;
  const { rows, vocab } = outline.layout;
  const layout = { rows, vocab, rowStride: checkRowStride(batch.rowStride ?? vocab, vocab) };
  if (outline.target !== Target.cpu) checkLaunchSize(layout);
  if (logits instanceof DeviceTensor) checkTensor('logits', logits, neededElements(layout));
  else checkLogitsLength(logits, layout);
  const request = checkRows(outline, batch, threads);
  request.logits = rawMemory(logits);
  request.rowStride = layout.rowStride;
  placeShard(request, batch.shard, parallel, outline.dtype);
  return { request, logits };
}
