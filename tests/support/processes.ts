// Scripts of tests/fixtures in processes of their own, with the package as it is compiled.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { script, type Compiled } from './compiled.js';

export interface Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** Runs a script; a crash or a hang is an error here. */
export async function runScript(
  compiled: Compiled,
  name: string,
  args: readonly string[] = [],
  flags: readonly string[] = [],
  environment: NodeJS.ProcessEnv = {},
): Promise<Ended> {
  // For what hangs; a busy machine takes its time.
  const options = {
    timeout: 1_000_000,
    killSignal: 'SIGKILL',
    env: { ...process.env, ...environment },
  } as const;
  const command = [...flags, script(name), compiled.url, ...args];
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, command, options);
    return { stdout: stdout.trim(), stderr: stderr.trim(), code: 0 };
  } catch (error) {
    const { code, signal, stdout, stderr } = error as {
      code: unknown;
      signal: unknown;
      stdout: string;
      stderr: string;
    };
    if (typeof code !== 'number')
      throw new Error(`${name} ended by ${String(signal)}: ${stderr}`, { cause: error });
    return { stdout: stdout.trim(), stderr: stderr.trim(), code };
  }
}
