import { createRequire } from 'node:module';
import path from 'node:path';
import { ready, setBackend } from '@tensorflow/tfjs-core';
// For the gradients of ops, which the core's build for Node comes without.
import '@tensorflow/tfjs-layers';
import { setThreadsCount, setWasmPaths } from '@tensorflow/tfjs-backend-wasm';

/** The study runs one process per processor; everything inside one is on one thread. */
export const threads = 1;

/** TensorFlow.js on WebAssembly, for this process. */
export async function startBackend(): Promise<void> {
  const packageFile = createRequire(import.meta.url).resolve(
    '@tensorflow/tfjs-backend-wasm/package.json',
  );
  setWasmPaths(path.join(path.dirname(packageFile), 'dist/'));
  setThreadsCount(threads);
  if (!(await setBackend('wasm')))
    throw new Error('TensorFlow.js could not start its wasm backend');
  await ready();
}
