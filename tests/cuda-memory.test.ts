// Nothing is kept by calls on a device, on it or on the host.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cuda } from '../ts/index.js';
import { compilePackage, type Compiled } from './support/compiled.js';
import { expectDevice } from './support/device.js';
import { runScript } from './support/processes.js';

expectDevice();

let compiled: Compiled;
beforeAll(() => {
  compiled = compilePackage();
});
afterAll(() => {
  compiled.remove();
});

test.runIf(cuda.available)('memory is flat over thousands of calls of every kind', { timeout: 120_000 }, async () => {
  // AddressSanitizer, where it is in the process, keeps freed memory for a while otherwise.
  const options = {
    ASAN_OPTIONS: [process.env.ASAN_OPTIONS, 'quarantine_size_mb=0', 'thread_local_quarantine_size_kb=0'].join(':'),
  };
  const { stdout, stderr } = await runScript(compiled, 'cuda-leak.mjs', [], ['--expose-gc'], options);
  expect(stderr).toBe('');
  const growth = JSON.parse(stdout) as Record<string, { rss: number; external: number; device: number }>;
  expect(Object.keys(growth)).toHaveLength(10);
  // In MiB, over 500 calls.
  for (const [kind, { rss, external, device }] of Object.entries(growth)) {
    expect(device, `${kind}: device memory`).toBeLessThanOrEqual(0);
    expect(external, `${kind}: external memory`).toBeLessThan(0.25);
    expect(rss, `${kind}: resident memory`).toBeLessThan(16);
  }
});
