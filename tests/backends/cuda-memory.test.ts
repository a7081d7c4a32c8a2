// Nothing is kept by calls on a device, on it or on the host.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cuda } from '../../ts/index.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { expectDevice } from '../support/expect-device.js';
import { expectFlat, growthPerWindow, leakEnvironment, type LeakReport } from '../support/leaks.js';
import { present } from '../support/numbers.js';
import { runScript } from '../support/processes.js';

expectDevice();

let compiled: Compiled;
beforeAll(() => {
  compiled = compilePackage();
});
afterAll(() => {
  compiled.remove();
});

test.runIf(cuda.available)('memory is flat over thousands of calls of every kind', async () => {
  const { stdout, stderr } = await runScript(
    compiled,
    'cuda-leak.mjs',
    [],
    ['--expose-gc'],
    leakEnvironment,
  );
  expect(stderr).toBe('');
  const report = JSON.parse(stdout) as LeakReport;
  expect(Object.keys(report)).toHaveLength(11);
  expectFlat(report);
  // The device counts its memory to the byte.
  for (const [kind, { samples }] of Object.entries(report)) {
    expect(growthPerWindow(present(samples.device)), `${kind}: device memory`).toBeLessThanOrEqual(
      0,
    );
  }
});
