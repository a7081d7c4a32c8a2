// A device that fails for good, as after an illegal address: whoever waits must be told. In a
// process of its own, which is lost with it.
import { spawn } from 'node:child_process';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { isEmulated } from '../../../scripts/device/machine.mjs';

const script = fileURLToPath(new URL('failure-child.mjs', import.meta.url));
/** Milliseconds; the work takes a few. */
const patience = 120_000;

/** What a child says, or how it ended; a promise that never settles keeps it until it is killed. */
async function lastWords(file, env = {}) {
  const child = spawn(process.execPath, [file], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let [said, complaints] = ['', ''];
  child.stdout.on('data', (data) => (said += data));
  child.stderr.on('data', (data) => (complaints = `${complaints}${data}`.slice(-2000)));
  const timer = setTimeout(() => child.kill('SIGKILL'), patience);
  const ended = await new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(signal ?? code));
  });
  clearTimeout(timer);
  const outcomes = said
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  return { outcomes, ended, complaints: complaints.trim() };
}

export function judge({ outcomes, ended, complaints }, misses) {
  const expected = [
    'a good call',
    'a call behind the failure',
    'a call after it',
    'a synchronous call after it',
    'an allocation after it',
  ];
  for (const [i, what] of expected.entries()) {
    const outcome = outcomes[i];
    if (!outcome) {
      misses.require(
        false,
        `${what} was never settled; the process ended with ${ended}. ${complaints}`,
      );
      break;
    }
    const wanted = i === 0 ? 'resolved' : 'ERR_DIRALIGN_DEVICE';
    misses.require(
      outcome.what === what && outcome.code === wanted,
      `${what}: ${outcome.code} (${outcome.message}), not ${wanted}`,
    );
  }
}

export async function failure({ misses, device }) {
  // On the emulation, the kernel that would read an illegal address ends with that error.
  judge(await lastWords(script, isEmulated(device) ? { SIMT_FAIL: 'kernel:700:1' } : {}), misses);
}
