#!/usr/bin/env node
// npm run gpu:first: the first minutes on a card. Runs the checks and benchmarks whose answers are
// worth most, in that order, and keeps what is known at every moment; see docs/gpu-performance.md.
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  parseMinutes,
  parseOnly,
  parseOrExit,
  root,
  writeSoFar,
} from '../../scripts/device/machine.mjs';
import { defaultTarget, pack } from './luggage.mjs';
import { endAll, runSteps, summary } from './first/run.mjs';
import { steps } from './first/steps.mjs';

const names = steps.map(({ name }) => name);
const most = 8;
const plan = steps.map(
  ({ name, title, seconds }) => `  ${name.padEnd(10)} ${title} (at most ${seconds} s)`,
);
const usage = `Usage: npm run gpu:first -- [options]

The first ${most} minutes on a card, the most valuable answers first:
${plan.join('\n')}
Everything is printed and kept as it comes, in three files: first.log, first.json and, where ncu is
there, kernels.ncu-rep. Ends with exit code 0 where every step is ok, 1 where one is not, 2 where
there is no device.

  --minutes M        end after M minutes, with a report of what was done (default ${most})
  --only A,B         these steps only, and machine
  --output DIR       where the files go (default: build/gpu-first)
  --pack FILE.tgz    put everything that this command needs into an archive, and end
  --for C            with --pack: refuse an addon without machine code for this compute capability
                     (default ${defaultTarget}); any: take all
  -h, --help

On the emulation everything is small, and no times are taken.`;

const { values, wanted, end } = parseOrExit(() => {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: String(most) },
      only: { type: 'string' },
      output: { type: 'string', default: path.join(root, 'build/gpu-first') },
      pack: { type: 'string' },
      for: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return { values, wanted: parseOnly(values.only, names), end: parseMinutes(values.minutes) };
}, usage);
if (values.help) {
  console.log(usage);
  process.exit(0);
}
if (values.pack !== undefined) {
  try {
    pack(values.pack, values.for);
  } catch ({ message }) {
    console.error(`${message}\n\n${usage}`);
    process.exit(2);
  }
  process.exit(0);
}

const output = path.resolve(values.output);
mkdirSync(output, { recursive: true });
const file = (name) => path.join(output, name);
rmSync(file('kernels.ncu-rep'), { force: true });
writeFileSync(file('first.log'), '');
const log = (text) => {
  process.stdout.write(text);
  appendFileSync(file('first.log'), text);
};
const folder = mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-first-'));
const clean = () => {
  endAll();
  rmSync(folder, { recursive: true, force: true });
};
process.on('exit', clean);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

wanted.add('machine');
const chosen = steps
  .filter(({ name }) => wanted.has(name))
  .map((step) => ({ ...step, run: (context) => step.run({ ...context, folder, output }) }));
const report = await runSteps(chosen, {
  end,
  log,
  keep: (soFar) => writeSoFar(file('first.json'), soFar),
  about: {
    date: new Date().toISOString(),
    minutes: Number(values.minutes),
    node: process.versions.node,
  },
});
log(`\n${summary(report).join('\n')}\nWritten: ${path.relative(process.cwd(), output) || '.'}\n`);
process.exit(report.ok ? 0 : report.steps[0].status === 'failed' && report.stopped ? 2 : 1);
