/**
 * npm run bench:peers: `diralign bench` with all peers, those outside Node included, in the same
 * interleaved rounds. Options: --shape, --threads, --rounds, --peers, --html as those of `diralign
 * bench`. Writes bench/results/DATE-CPU.json and .md; with --docs also the measured figures of
 * docs/performance.md. Needs `npm run build` first.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { native } from '../dist/native/interface.js';
import { htmlReport } from '../dist/bench/html.js';
import { modes } from '../dist/bench/modes.js';
import { nodePeers } from '../dist/bench/peers.js';
import { markdownReport, textReport } from '../dist/bench/report.js';
import { fewestRounds } from '../dist/bench/rounds.js';
import { runBench } from '../dist/bench/run.js';
import { performanceFigures } from './docs.mjs';
import { processPeers } from './peers/index.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: '2,256,32000' },
    threads: { type: 'string', default: String(native().cpuInfo().threads) },
    rounds: { type: 'string', default: '21' },
    peers: { type: 'string' },
    html: { type: 'string' },
    docs: { type: 'boolean', default: false },
  },
});
const nodeInstall =
  'cd bench/peers/node && ONNXRUNTIME_NODE_INSTALL=skip npm install --no-package-lock';
const available = [
  ...nodePeers([process.cwd(), path.join(here, 'peers/node')]).map((peer) => ({
    ...peer,
    ...(peer.install && { install: nodeInstall }),
  })),
  ...processPeers,
];
if (values.docs && Number(values.rounds) < fewestRounds)
  throw new Error(`--docs: expected --rounds of at least ${fewestRounds}`);
const wanted = values.peers === 'none' ? [] : values.peers?.split(',');
const unknown = wanted?.find((name) => !available.some((peer) => peer.name === name));
if (unknown)
  throw new Error(
    `--peers ${unknown}: there are ${available.map(({ name }) => name).join(', ')}, or none`,
  );

let said = '';
const result = await runBench({
  shape: values.shape.split(',').map(Number),
  threads: Number(values.threads),
  rounds: Number(values.rounds),
  modes: modes.map(({ name }) => name),
  peers: wanted ? available.filter(({ name }) => wanted.includes(name)) : available,
  fractions: [1, 0.5],
  sweep: true,
  progress: (doing, done) => {
    const text = `${doing}: ${Math.floor(10 * done) * 10} %`;
    if (text !== said) console.error(text);
    said = text;
  },
});

const results = path.join(here, 'results');
mkdirSync(results, { recursive: true });
const cpu = result.machine.cpu.toLowerCase().replace(/[^a-z0-9]+/g, '-');
const file = path.join(results, `${result.machine.date.slice(0, 10)}-${cpu}`);
writeFileSync(`${file}.json`, `${JSON.stringify(result, null, 2)}\n`);
writeFileSync(`${file}.md`, markdownReport(result));
if (values.html) writeFileSync(values.html, htmlReport(result));
if (values.docs) {
  const docs = path.join(here, '../docs/performance.md');
  writeFileSync(docs, performanceFigures(readFileSync(docs, 'utf8'), result));
}
console.log(textReport(result));
console.log(`\nWritten: ${path.relative(process.cwd(), file)}.json and .md`);
// Some peers leave threads behind that would keep the process alive.
process.exit(0);
