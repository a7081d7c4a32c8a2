/**
 * A command of `diralign`. Its file is imported only when it is asked for; importing it must not
 * load the addon.
 */
export interface Command {
  readonly name: string;
  /** One line, for `diralign --help`. */
  readonly summary: string;
  /**
   * All of `diralign NAME --help`, examples included, without a final newline. `--help` itself
   * never reaches `run`.
   */
  readonly usage: string;
  /**
   * @param args what follows the name.
   * @returns the exit status: {@link ok}, or {@link failed} where a check failed.
   * @throws UsageError where the arguments are wrong (status 2); anything else that is thrown is
   *   one line and status 1.
   */
  run(args: string[]): Promise<number>;
}

export const ok = 0;
/** A check failed, or there was nothing that could be computed. */
export const failed = 1;
/** The command line itself is wrong. */
export const misused = 2;

/**
 * The user typed something that cannot be meant. The message says what and ends with the next step,
 * on one line.
 */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'ERR_DIRALIGN_OPTION';
}

interface CommandErrorOptions extends ErrorOptions {
  readonly code?: string;
}

/**
 * The same for what lies outside the command line: a file, if `code` says nothing else. No stack is
 * shown.
 */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly code: string;
  constructor(
    message: string,
    { code = 'ERR_DIRALIGN_FILE', ...options }: CommandErrorOptions = {},
  ) {
    super(message, options);
    this.code = code;
  }
}
