/** Stable machine-readable codes; switch on these, never on messages. */
export type DirAlignErrorCode =
  | 'ERR_DIRALIGN_SHAPE'
  | 'ERR_DIRALIGN_DTYPE'
  | 'ERR_DIRALIGN_LABEL'
  | 'ERR_DIRALIGN_OPTION'
  | 'ERR_DIRALIGN_REFERENCE'
  | 'ERR_DIRALIGN_BACKEND'
  | 'ERR_DIRALIGN_DEVICE'
  | 'ERR_DIRALIGN_ABORTED'
  | 'ERR_DIRALIGN_LOAD'
  | 'ERR_DIRALIGN_MEMORY'
  | 'ERR_DIRALIGN_FILE'
  | DistributedErrorCode;

/** Of failures among processes. */
export type DistributedErrorCode =
  | 'ERR_DIRALIGN_ENGINE'
  | 'ERR_DIRALIGN_PEER'
  | 'ERR_DIRALIGN_DISAGREE'
  | 'ERR_DIRALIGN_SHARD'
  | 'ERR_DIRALIGN_TIMEOUT'
  | 'ERR_DIRALIGN_WINDOW';

const brand = Symbol.for('diralign.error');

/**
 * Every error the package throws on purpose is `instanceof DirAlignError`, and also a `TypeError`
 * (wrong kind of value), a `RangeError` (right kind, impossible value), an `Error` where CUDA or
 * another process failed, or, for an aborted call, an `Error` named `AbortError`. `code` is stable;
 * `message` names the argument, what was given and what was expected.
 */
export abstract class DirAlignError extends Error {
  /** What went wrong, for programs. */
  abstract readonly code: DirAlignErrorCode;
  /** True of errors from every copy of the package, and from other realms. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }
}

class DirAlignTypeError extends TypeError {
  override readonly name = 'DirAlignError';
  readonly [brand] = true;
  constructor(
    readonly code: DirAlignErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

class DirAlignRangeError extends RangeError {
  override readonly name = 'DirAlignError';
  readonly [brand] = true;
  constructor(
    readonly code: DirAlignErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Nothing that the caller gave: a device or another process failed. */
class DirAlignFailure extends Error {
  override readonly name = 'DirAlignError';
  readonly [brand] = true;
  constructor(
    readonly code: DirAlignErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

class DirAlignAbortError extends Error {
  override readonly name = 'AbortError';
  readonly [brand] = true;
  readonly code = 'ERR_DIRALIGN_ABORTED';
}

/** The value has the wrong type or does not belong here at all. */
export function typeError(
  code: DirAlignErrorCode,
  message: string,
  options?: ErrorOptions,
): DirAlignError {
  return new DirAlignTypeError(code, message, options);
}

/**
 * The value has the right type but cannot be used: a wrong length, a label outside the vocabulary,
 * a beta of 0.
 */
export function rangeError(
  code: DirAlignErrorCode,
  message: string,
  options?: ErrorOptions,
): DirAlignError {
  return new DirAlignRangeError(code, message, options);
}

/**
 * A failed call of CUDA, with what was being done; any other error as it is. CUDA's own stays in
 * `cause`, with its `name`, for instance `cudaErrorMemoryAllocation` or
 * `CUBLAS_STATUS_EXECUTION_FAILED`, and its number as `code`.
 */
export function cudaError(doing: string, cause: unknown): unknown {
  if (
    typeof cause !== 'object' ||
    cause === null ||
    !('name' in cause && 'code' in cause && 'message' in cause)
  )
    return cause;
  const isCuda =
    typeof cause.name === 'string' &&
    /^cuda|cublas/i.test(cause.name) &&
    typeof cause.code === 'number';
  return isCuda
    ? new DirAlignFailure('ERR_DIRALIGN_DEVICE', `${doing}: ${String(cause.message)}`, { cause })
    : cause;
}

/** A failure among processes, as native code found it. */
export function distributedError(
  code: DistributedErrorCode,
  message: string,
  options?: ErrorOptions,
): DirAlignError {
  return new DirAlignFailure(code, message, options);
}

/** An `AbortError` whose `cause` is the signal's reason. */
export function abortError(reason: unknown): DirAlignError {
  return new DirAlignAbortError(
    'The loss computation was aborted; a gradient written in place or to `out` is incomplete.',
    {
      cause: reason,
    },
  );
}
