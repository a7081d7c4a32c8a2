#!/usr/bin/env node
// The tests on other runtimes than the one that runs this: npm run test:runtimes -- [RUNTIME ...]
// [--smoke] [-- vitest's arguments]
//   RUNTIME   of node20, node22, node24, node26, bun, deno; the default is all of them
//   --smoke   no suites: every door once (tests/runtimes/smoke.mjs), which is all that Bun and Deno
//             run in any case
// Each is fetched from the npm registry, once, into build/runtimes: the newest of its major
// version. Needs a build of the package.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { binary, cache, runtimes } from './runtimes.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

const args = process.argv.slice(2);
const end = args.includes('--') ? args.indexOf('--') : args.length;
const vitestArgs = args.slice(end + 1);
const own = args.slice(0, end);
const smokeOnly = own.includes('--smoke');
const asked = own.filter((arg) => arg !== '--smoke');
const unknown = asked.find((arg) => !Object.hasOwn(runtimes, arg));
if (unknown !== undefined)
  throw new TypeError(`${unknown} is none of ${Object.keys(runtimes).join(', ')}`);

/** The counts of a run of vitest, and what failed in it. */
function readReport(file) {
  if (!fs.existsSync(file)) return { what: 'no report', failed: [] };
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
    fs.readFileSync(file, 'utf8'),
  );
  const failed = testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === 'failed')
      .map(({ fullName }) => `${path.relative(root, name)}: ${fullName}`),
  );
  return {
    what: `${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`,
    failed,
  };
}

function test(id) {
  const runtime = binary(id);
  const begun = performance.now();
  // Scripts that tests start by the name of node are to run on it, too.
  const env = {
    ...process.env,
    PATH: `${path.dirname(runtime)}${path.delimiter}${process.env.PATH}`,
  };
  const run = (script, more) =>
    spawnSync(runtime, [...runtimes[id].command, path.join(root, script), ...more], {
      cwd: root,
      stdio: 'inherit',
      env,
    });
  const seconds = () => Math.round((performance.now() - begun) / 1000);
  const { stdout } = spawnSync(runtime, ['--version'], { encoding: 'utf8' });
  const version = /\d+\.\d+\.\d+/.exec(stdout)?.[0] ?? stdout;
  console.log(`\n=== ${id}: ${version}`);
  const smoke = run('tests/runtimes/smoke.mjs', []);
  const result = {
    id,
    version,
    ok: smoke.status === 0,
    what: smoke.status === 0 ? 'smoke' : 'smoke failed',
    failed: [],
  };
  if (smokeOnly || !id.startsWith('node') || !result.ok) return { ...result, seconds: seconds() };
  const report = path.join(cache, `${id}.json`);
  fs.rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { status } = run('node_modules/vitest/vitest.mjs', ['run', ...reporters, ...vitestArgs]);
  return { ...result, ok: status === 0, ...readReport(report), seconds: seconds() };
}

const results = (asked.length > 0 ? asked : Object.keys(runtimes)).map(test);
console.log('');
for (const { id, version, ok, what, failed, seconds } of results) {
  console.log(
    `${ok ? 'ok    ' : 'FAILED'} ${id.padEnd(7)} ${version.padEnd(8)} ` +
      `${String(seconds).padStart(5)} s  ${what}`,
  );
  for (const one of failed) console.log(`         ${one}`);
}
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1;
