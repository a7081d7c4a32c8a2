import type { SequenceLogps } from '../../loss/results.js';

/** A tensor of onnxruntime or of transformers.js, as far as it is read. */
export interface RuntimeTensor {
  /** `'float32'` or `'float16'` of logits. */
  readonly type: string;
  /** [sequences, tokens, vocab] of logits. */
  readonly dims: readonly number[];
  /** Row-major; `Uint16Array` or `Float16Array` of float16. */
  readonly data: unknown;
  /** Where the data is: what is not on the CPU is read by `getData`. */
  readonly location?: string;
  /** The data, copied to the CPU. */
  getData?(): Promise<unknown>;
}

/** `Tensor` of `onnxruntime-node`, `onnxruntime-web` or `@huggingface/transformers`. */
export type TensorConstructor<Tensor> = new (type: 'int64', data: never, dims: number[]) => Tensor;

/** An `InferenceSession` of onnxruntime, of a decoder without a cache as its input. */
export interface OnnxSession {
  /** `input_ids`, and of `attention_mask` and `position_ids` what the model has. */
  readonly inputNames: readonly string[];
  /** With `logits`. */
  readonly outputNames: readonly string[];
  /** Gives the outputs that are asked for by their names. */
  run(feeds: never, fetches: readonly string[]): Promise<Readonly<Record<string, unknown>>>;
}

/** What `AutoModelForCausalLM.from_pretrained` of transformers.js gives. */
export type TransformersModel = (inputs: never) => Promise<unknown>;

/** Rows of any collator: `collatePairs`, `collateUnpaired` or `collateGroups`. */
export interface ScoredRows {
  /** Token ids, one per row. */
  readonly inputIds: Int32Array;
  /** Row t scores the token after it; -100 where it scores none. */
  readonly labels: Int32Array;
  /** Of a padded batch. */
  readonly sequences?: number | undefined;
  /** Of a padded batch: rows of each sequence. */
  readonly tokens?: number | undefined;
  /** Of a padded batch: 1 for tokens, then 0 for padding. */
  readonly attentionMask?: Int32Array | undefined;
  /** Of a packed batch: `sequences + 1` row offsets. */
  readonly offsets?: Int32Array | undefined;
}

/** How sequences are scored. */
export interface ScoreOptions<Tensor = unknown> {
  /** The class of tensors of the runtime that the model is of. */
  readonly Tensor: TensorConstructor<Tensor>;
  /** Most sequences that the model gets at a time; at least 1. Default 8. */
  readonly batchSize?: number;
  /**
   * The policy's numbers for this batch, by the runtime that trains it and before it trains: then
   * both are of the same weights, and what differs is the runtime, the precision or the tokens.
   */
  readonly policy?: SequenceLogps;
  /**
   * Most that a sequence may differ from `policy`, in nats for each of its scored tokens; at least
   * 0. Default 0.01. Needs `policy`.
   */
  readonly tolerance?: number;
}
