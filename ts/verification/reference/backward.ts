/** Gradients of losses that a caller makes of log-probabilities and entropies. */
import { rangeError, typeError } from '../../errors.js';
import { checkFields, checkValues, rowFields } from './fields.js';
import { type ReferenceHiddenBatch, type ReferenceLayerGradients, throughLayer } from './hidden.js';
import { at } from './numbers.js';
import { type ReferenceBatch, softmaxRow, view as viewOf } from './rows.js';
import { addRow, addSequences, weightOf } from './sums.js';

/** What {@link referenceLogpsBackward} makes a gradient of. */
export interface ReferenceCoefficients {
  /** Per row: of its log-probability. */
  readonly rows?: ArrayLike<number> | undefined;
  /** Per sequence, in place of `rows`: of its sum, in which rows have their `tokenWeights`. */
  readonly sequences?: ArrayLike<number> | undefined;
  /** Per row: of its entropy. */
  readonly entropy?: ArrayLike<number> | undefined;
}

const own = { method: 'logpsBackward', takes: new Set(rowFields), needs: new Set<never>() };

function checkCoefficients(
  given: ReferenceCoefficients,
  lengths: Readonly<Record<keyof ReferenceCoefficients, number>>,
): void {
  const { rows, sequences, entropy } = given;
  if (!rows && !sequences && !entropy)
    throw typeError('ERR_DIRALIGN_OPTION', 'rows: expected rows, sequences or entropy.');
  if (rows && sequences)
    throw typeError('ERR_DIRALIGN_OPTION', 'sequences: expected them or rows, not both.');
  for (const [name, values] of Object.entries({ rows, sequences, entropy })) {
    const expected = lengths[name as keyof ReferenceCoefficients];
    if (!values || values.length === expected) continue;
    const what = `${name}: ${values.length} of them; expected ${expected}.`;
    throw rangeError('ERR_DIRALIGN_SHAPE', what);
  }
}

/** By the logits. */
export interface ReferenceLogitsGradient {
  /** In the shape of the logits. */
  readonly gradLogits: Float64Array;
}

/**
 * The gradient of sum_t rows_t log p_t + sum_t entropy_t H_t. Rows that are ignored, or whose
 * coefficients are 0, are not read.
 */
export function referenceLogpsBackward(
  batch: ReferenceBatch,
  coefficients: ReferenceCoefficients,
): ReferenceLogitsGradient;
export function referenceLogpsBackward(
  batch: ReferenceHiddenBatch,
  coefficients: ReferenceCoefficients,
): ReferenceLogitsGradient & ReferenceLayerGradients;
export function referenceLogpsBackward(
  batch: ReferenceBatch | ReferenceHiddenBatch,
  coefficients: ReferenceCoefficients,
): ReferenceLogitsGradient {
  if ('hidden' in batch)
    return throughLayer(batch, (logits) => referenceLogpsBackward(logits, coefficients));
  const view = viewOf(batch);
  const { rows, sequences, entropy } = coefficients;
  checkFields([own], batch);
  checkValues(batch, { row: view.rows, sequence: view.sequences, unit: 0, batch: 1 });
  checkCoefficients(coefficients, {
    rows: view.rows,
    sequences: view.sequences,
    entropy: view.rows,
  });
  const weight = weightOf(batch);
  const gradLogits = new Float64Array(view.rows * view.vocab);
  if (rows) addSequences(gradLogits, view, batch.labels, (_, row) => at(rows, row));
  if (sequences)
    addSequences(gradLogits, view, batch.labels, (b, row) => at(sequences, b) * weight(row));
  batch.labels.forEach((label, row) => {
    if (!entropy || label === view.ignoreIndex || at(entropy, row) === 0) return;
    const { entropyGradient } = softmaxRow(view, row, label);
    addRow(gradLogits, view, row, at(entropy, row), entropyGradient());
  });
  return { gradLogits };
}
