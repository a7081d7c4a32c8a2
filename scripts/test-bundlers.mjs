#!/usr/bin/env node
// What bundlers do with the addon: npm run test:bundlers -- [NAME ...]
//   NAME   the beginning of a bundler's, as in the table of docs/platforms.md#bundlers; the default
//          is all of them
// The packed tarball and the bundlers, from the npm registry, are installed in a temporary
// application. What each row of the table makes of a small program runs where there is neither that
// application nor, unless the package stays external, a node_modules. Needs a build of the package.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { program, versions } from './bundlers/builds.mjs';
import { rows } from './bundlers/rows.mjs';
import { npm, packHere, platforms, prebuilt } from './pack-here.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** Of one token out of two that are as likely. */
const log2 = '0.693147';

function makeApplication(app, tarball) {
  for (const [name, text] of Object.entries(program)) {
    fs.mkdirSync(path.dirname(path.join(app, name)), { recursive: true });
    fs.writeFileSync(path.join(app, name), text);
  }
  const packages = Object.entries(versions).map(([name, version]) => `${name}@${version}`);
  npm(app, 'install', '--ignore-scripts', '--no-audit', '--no-fund', tarball, ...packages);
}

/** The rows of the page, by bundler and setting. */
function documented() {
  const page = fs.readFileSync(path.join(root, 'docs/platforms.md'), 'utf8');
  const [section] = page.split('\n## Bundlers\n')[1].split('\n## ');
  return section
    .split('\n')
    .filter((line) => line.startsWith('| ') && !/^\| (bundler|---)/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, 4)
        .map((cell) => cell.trim()),
    );
}

const environment = { ...process.env, NODE_ENV: 'production', HOSTNAME: '127.0.0.1' };
for (const name of Object.keys(environment).filter((each) => each.startsWith('DIRALIGN_')))
  delete environment[name];

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

/** What a route of a standalone Next.js server answers. */
async function ask(server) {
  const port = await freePort();
  const child = spawn(process.execPath, [server], {
    cwd: path.dirname(server),
    env: { ...environment, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    const end = performance.now() + 600_000; // for a server that hangs
    while (child.exitCode === null && performance.now() < end) {
      const answer = await fetch(`http://127.0.0.1:${port}/loss`).catch(() => undefined);
      if (answer !== undefined) return await answer.text();
      await wait(200);
    }
    throw new Error(`the server does not answer, exit code ${child.exitCode}`);
  } finally {
    child.kill();
  }
}

/** What the program, or the route, says. */
async function use(folder) {
  const server = ['next/server.js', 'server.js'].map((name) => path.join(folder, name));
  const found = server.find((file) => fs.existsSync(file));
  if (found !== undefined) return ask(found);
  const main = fs.readdirSync(folder).find((name) => /^main(\.[cm]?js)?$/.test(name));
  const command = [process.execPath, path.join(folder, main)];
  // Without an extension it is an executable.
  const [executable, ...args] = main === 'main' ? command.slice(1) : command;
  const { stdout, stderr } = spawnSync(executable, args, { encoding: 'utf8', env: environment });
  assert.equal(stderr, '');
  return stdout.trim();
}

/** With the addon left out: a true error, whose first remedy is one. */
async function checkLeftOut(_, folder, kept) {
  const said = await use(folder);
  assert.match(said, /^ERR_DIRALIGN_LOAD diralign was bundled without its native addon \(/);
  const [, looked] = /\((there is no .*?)\)\. Copy the folder prebuilds /.exec(said);
  const places = looked.split(', ').map((part) => part.replace(/^there is no /, ''));
  for (const place of places) {
    assert.ok(!place.includes(kept.app), `${place} is of the machine that bundled it`);
    assert.ok(place.endsWith(prebuilt));
  }
  const beside = places.at(-1);
  assert.ok(beside.startsWith(folder), `${beside} is not beside the bundle`);
  fs.cpSync(path.join(kept.packageFolder, prebuilt), beside);
  assert.equal(await use(folder), log2);
}

/** Of a row whose addon is external, copied or traced. */
async function checkPresent({ setting, outcome }, folder, kept) {
  const names = fs
    .readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith('.node'));
  const ours = {
    external: names,
    traced: names.filter((name) =>
      name.includes(path.normalize('node_modules/diralign/prebuilds')),
    ),
    // Not those of other packages.
    copied: names.filter((name) => !name.includes('node_modules')),
  }[outcome];
  // Whatever finds them by itself takes those of every platform.
  const copied = setting === 'none' ? platforms.length : 1;
  assert.equal(ours.length, { external: 0, traced: platforms.length, copied }[outcome]);
  if (outcome === 'external')
    fs.cpSync(kept.packageFolder, path.join(folder, 'node_modules/diralign'), { recursive: true });
  assert.equal(await use(folder), log2);
}

/** What went wrong in it, if anything did. */
async function problemOf(action) {
  try {
    await action();
    return undefined;
  } catch (problem) {
    return problem;
  }
}

async function buildAll(chosen, app) {
  const runs = [];
  for (const [bundler, setting, outcome, ...builds] of chosen) {
    for (const [i, build] of builds.entries()) {
      const format = builds.length > 1 ? `, ${['ESM', 'CommonJS'][i]}` : '';
      const out = path.join(app, 'out', String(runs.length));
      const begun = performance.now();
      const problem = await problemOf(() => build({ app, out }));
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      runs.push({ name: `${bundler}, ${setting}${format}`, setting, outcome, problem, seconds });
    }
  }
  return runs;
}

const asked = process.argv.slice(2);
const pageRows = documented();
assert.deepEqual(
  rows.map((row) => row.slice(0, 3)),
  pageRows,
  'docs/platforms.md#bundlers has other rows than are run here',
);
const chosen = rows.filter(
  ([bundler]) => asked.length === 0 || asked.some((name) => bundler.startsWith(name)),
);

const temporary = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-bundlers-')));
const app = path.join(temporary, 'app');
const away = path.join(temporary, 'elsewhere');
const ran = path.join(temporary, 'ran');
try {
  makeApplication(app, packHere(path.join(temporary, 'package'), { standIns: platforms }));
  process.chdir(app); // where some look for their settings
  const runs = await buildAll(chosen, app);
  process.chdir(temporary);
  // A bundle must not find anything where it was made.
  fs.renameSync(path.join(app, 'out'), ran);
  fs.renameSync(app, away);
  const kept = { app, packageFolder: path.join(away, 'node_modules/diralign') };
  for (const [i, run] of runs.entries()) {
    const folder = path.join(ran, String(i));
    const check = run.outcome === 'left out' ? checkLeftOut : checkPresent;
    const problem = run.problem ?? (await problemOf(() => check(run, folder, kept)));
    const { name, outcome, seconds } = run;
    console.log(`${problem ? 'FAILED' : 'ok    '} ${name}: ${outcome} (built in ${seconds} s)`);
    if (problem === undefined) continue;
    process.exitCode = 1;
    console.log(problem.stack);
  }
} finally {
  fs.rmSync(temporary, { recursive: true, force: true });
}
