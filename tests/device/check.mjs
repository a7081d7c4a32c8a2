#!/usr/bin/env node
// npm run gpu:check: whether the CUDA backend computes what it promises, on the card of this
// machine. Needs Node, the built package and a driver; see docs/gpu-performance.md for what to
// carry to such a machine.
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { codeLines, describeCode, unfit } from '../../scripts/device/code.mjs';
import {
  describeMachine,
  isEmulated,
  loadSubject,
  parseMinutes,
  parseOnly,
  parseOrExit,
  requireDevice,
  timeNative,
  writeResults,
  writeSoFar,
} from '../../scripts/device/machine.mjs';
import { inProcess, sideBySide } from './check/jobs.mjs';
import { defaultTarget, pack } from './luggage.mjs';
import { failed, notStarted, runSection, sections, TimeIsOver } from './check/run.mjs';
import { scales } from './check/scales.mjs';

const names = sections.map(({ name }) => name);
const usage = `Usage: npm run gpu:check -- [options]

Checks the CUDA backend on the card of this machine: ${names.join(', ')}.
Ends with a table, and with exit code 1 where something was missed or cut off, 2 where there is no
device.

  --quick            a fifth of the cases and fewer sizes, for a few minutes
  --scale NAME       ${Object.keys(scales).join(', ')} (default: full; --quick is --scale quick)
  --only A,B         these sections only
  --jobs N           so many sections side by side, each a process of its own (default 1: one after
                     another in this one)
  --minutes M        start nothing new after M minutes, and end what runs; what was found until
                     then is reported
  --json FILE        write the results there, too, as they come
  --no-results       write nothing to bench/results
  --prepare          compile tests/support for a machine without development tools, and end
  --pack FILE.tgz    put everything that this command, gpu:bench and gpu:first need into an
                     archive, and end
  --for C            with --pack: refuse an addon without machine code for this compute capability
                     (default ${defaultTarget}); any: take all
  -h, --help

CUDA_VISIBLE_DEVICES chooses among several cards. Results go to
bench/results/DATE-GPU-check.json, but never those of the emulation.`;

const { values, wanted, scaleName, jobs, end } = parseOrExit(() => {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      scale: { type: 'string' },
      only: { type: 'string' },
      jobs: { type: 'string', default: '1' },
      minutes: { type: 'string' },
      json: { type: 'string' },
      'no-results': { type: 'boolean', default: false },
      prepare: { type: 'boolean', default: false },
      pack: { type: 'string' },
      for: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const scaleName = values.scale ?? (values.quick ? 'quick' : 'full');
  if (!Object.hasOwn(scales, scaleName))
    throw new Error(`--scale ${scaleName}: there are ${Object.keys(scales).join(', ')}`);
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1)
    throw new Error(`--jobs ${values.jobs}: expected a whole number of at least 1`);
  return {
    values,
    wanted: parseOnly(values.only, names),
    scaleName,
    jobs,
    end: parseMinutes(values.minutes),
  };
}, usage);
if (values.help) {
  console.log(usage);
  process.exit(0);
}
function refuse(message) {
  console.error(`${message}\n\n${usage}`);
  process.exit(2);
}

if (values.pack !== undefined) {
  try {
    pack(values.pack, values.for);
  } catch ({ message }) {
    refuse(message);
  }
  process.exit(0);
}
// It is prepared by whoever loads the sections.
if (values.prepare) process.exit(0);

const subject = await loadSubject();
const device = requireDevice(subject.cuda);
const { version } = createRequire(import.meta.url)('../../package.json');
const code = describeCode(subject, device);
const machine = { ...describeMachine(device, version), code };
console.log(
  `${device.name}, compute capability ${device.computeCapability}, ` +
    `diralign ${version}, scale ${scaleName}`,
);
for (const line of codeLines(code)) console.log(line);
const warning = unfit(code, device);
if (warning !== undefined) console.log(`Not what would be published: ${warning}`);
if (isEmulated(device))
  console.log('This is the emulation of CUDA: what holds here is no statement about a device.');

const isOver = () => performance.now() >= end;
/** One line that moves on a terminal, nothing in a log. */
let lastShown = 0;
const showProgress = (name) => async (share) => {
  if (process.stderr.isTTY && performance.now() - lastShown > 200) {
    lastShown = performance.now();
    process.stderr.write(`\r${name}: ${Math.floor(100 * share)} % `);
  }
  // Lets warnings and finalizers of what went before have their turn.
  await new Promise((resolve) => setTimeout(resolve, 0));
  if (isOver() && share < 1)
    throw new TimeIsOver(`after ${values.minutes} minutes, at ${Math.floor(100 * share)} %`);
};

const nativeSeconds = timeNative(subject.native());
const here = (section) =>
  runSection(
    section,
    { subject, scale: scales[scaleName], device, nativeSeconds },
    showProgress(section.name),
  );
const apart = (section) =>
  inProcess(section, { scale: scaleName, minutes: Math.max(0, end - performance.now()) / 60_000 });
const command = { command: 'gpu:check', scale: scaleName, machine };
const soFar = [];
const results = await sideBySide(
  sections.filter(({ name }) => wanted.has(name)),
  {
    jobs: Math.min(jobs, availableParallelism()),
    run: jobs > 1 ? apart : here,
    skip: notStarted,
    isOver,
    done(result) {
      if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
      const { section, status, checked, seconds, notes, misses } = result;
      console.log(
        `${section}: ${status}, ${checked.toLocaleString('en')} checks in ${seconds.toFixed(1)} s`,
      );
      for (const note of notes) console.log(`  ${note}`);
      for (const miss of misses) console.log(`  MISS ${miss}`);
      soFar.push(result);
      writeSoFar(values.json, { ...command, ok: false, sections: soFar });
    },
  },
);

const short = (text) => (text.length > 80 ? `${text.slice(0, 77)}...` : text);
const widths = [14, 8, 14, 8, 9, 11];
const line = (cells) =>
  cells
    .map((cell, i) =>
      i === 0 || i === 1 || i >= widths.length
        ? cell.padEnd(widths[i] ?? 0)
        : cell.padStart(widths[i]),
    )
    .join('  ')
    .trimEnd();
console.log(
  `\n${line(['section', 'status', 'checks', 'worst', 'seconds', 'JavaScript', 'notes'])}`,
);
for (const { section, status, checked, worst, seconds, javascript, notes } of results) {
  const times = [seconds.toFixed(1), javascript?.toFixed(1) ?? ''];
  console.log(
    line([
      section,
      status,
      checked.toLocaleString('en'),
      worst.toFixed(3),
      ...times,
      short(notes.join('; ')),
    ]),
  );
}
console.log(
  '\nworst: the largest error as a share of its bound. JavaScript: ' +
    'seconds outside of calls of the addon.',
);

const missed = failed(results);
const cut = results.filter(({ status }) => status === 'cut off').map(({ section }) => section);
const ok = !missed && cut.length === 0;
writeResults({
  result: { ...command, ok, sections: results },
  ...{ machine, device, wanted: values.json, suffix: '-check', keep: !values['no-results'] },
});
if (cut.length > 0) console.log(`\nCUT OFF: ${cut.join(', ')}`);
console.log(
  missed
    ? '\nMISSED'
    : ok
      ? `\nNothing was missed on ${device.name}.`
      : '\nNothing was missed in what was looked at.',
);
process.exit(ok ? 0 : 1);
