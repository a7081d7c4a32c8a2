// The published addon on machines where CUDA cannot be used: it loads, says why, and computes on
// the CPU. Drivers that are too old or find no device are made up (tests/backends/fakecuda), so
// this holds on any machine.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compilePackage, type Compiled } from '../support/compiled.js';

const fakecuda = fileURLToPath(new URL('fakecuda', import.meta.url));

interface Report {
  readonly file: string;
  readonly available: boolean;
  readonly reason?: string;
  readonly devices: readonly unknown[];
  readonly loss: number;
  readonly refused?: { readonly code: string; readonly message: string };
}

let compiled: Compiled;
let folder: string;

beforeAll(() => {
  compiled = compilePackage();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-fakecuda-'));
});
afterAll(() => {
  compiled.remove();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** A folder with a libcuda.so.1 of that kind. */
function driver(name: string, source: string, ...definitions: string[]): string {
  const to = path.join(folder, name);
  fs.mkdirSync(to);
  execFileSync('cc', [
    '-shared',
    '-fPIC',
    '-o',
    path.join(to, 'libcuda.so.1'),
    ...definitions,
    source,
  ]);
  return to;
}

/** What a process sees that finds this driver first. */
function probe(drivers: string): Report {
  const environment: NodeJS.ProcessEnv = { ...process.env, LD_LIBRARY_PATH: drivers };
  delete environment.DIRALIGN_PREBUILD; // the published addon, whichever this run is about
  delete environment.LD_PRELOAD;
  const output = execFileSync(process.execPath, [path.join(fakecuda, 'probe.mjs'), compiled.url], {
    env: environment,
    encoding: 'utf8',
  });
  return JSON.parse(output) as Report;
}

describe.runIf(process.platform === 'linux')('cuda.reason', () => {
  const stub = path.join(fakecuda, 'libcuda.c');
  const cases = [
    ['no driver', () => driver('none', path.join(fakecuda, 'nothing.c')), /no NVIDIA driver/i],
    [
      'a driver for CUDA 12.4',
      () => driver('old', stub, '-DVERSION=12040', '-DINIT=0'),
      /driver supports CUDA 12\.4.* needs \d+\.\d/,
    ],
    ['no device', () => driver('empty', stub, '-DVERSION=13000', '-DINIT=100'), /no .*device/i],
    [
      'a driver that does not fit its kernel module',
      () => driver('mismatch', stub, '-DVERSION=13000', '-DINIT=803'),
      /803.*driver/i,
    ],
  ] as const;

  test.each(cases)('%s', (_, drivers, expected) => {
    const report = probe(drivers());
    expect(report).toMatchObject({
      available: false,
      devices: [],
      refused: { code: 'ERR_DIRALIGN_BACKEND' },
    });
    expect(report.loss).toBeCloseTo(Math.LN2, 7);
    const { reason = '' } = report;
    // Device code, by the section that nvcc puts it in; without any, each case is the same.
    const compiledIn = fs.readFileSync(report.file).includes('.nv_fatbin');
    expect(reason).toMatch(compiledIn ? expected : /contains no CUDA/);
    expect(report.refused?.message).toContain(reason);
  });
});
