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
import { npm, packHere, prebuilt } from './pack-here.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const addon = `node_modules/diralign/${prebuilt}`;
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
    while (child.exitCode === null) {
      const answer = await fetch(`http://127.0.0.1:${port}/loss`).catch(() => undefined);
      if (answer !== undefined) return await answer.text();
      await wait(200);
    }
    throw new Error(`the server ended with ${child.exitCode}`);
  } finally {
    child.kill();
  }
}

/** What the program, or the route, says. */
async function use(folder) {
  const server = ['next/server.js', 'server.js'].map((name) => path.join(folder, name));
  const found = server.find((file) => fs.existsSync(file));
  if (found !== undefined) return ask(found);
  const main = fs.readdirSync(folder).find((name) => /^main\.[cm]?js$/.test(name));
  const { stdout, stderr } = spawnSync(process.execPath, [path.join(folder, main)], {
    encoding: 'utf8',
    env: environment,
  });
  assert.equal(stderr, '');
  return stdout.trim();
}

/** With the addon left out: a true error, whose first remedy is one. */
async function checkLeftOut(folder, kept) {
  const said = await use(folder);
  assert.match(said, /^ERR_DIRALIGN_LOAD diralign was bundled without its native addon \(/);
  const [, places] = /\(there is no (.*?)\)\. Copy the folder prebuilds /.exec(said);
  for (const place of places.split(', and no ')) {
    assert.ok(!place.includes(kept.app), `${place} is of the machine that bundled it`);
    assert.ok(place.endsWith(prebuilt));
  }
  const beside = places.split(', and no ').at(-1);
  assert.ok(beside.startsWith(folder), `${beside} is not beside the bundle`);
  fs.cpSync(path.join(kept.packageFolder, prebuilt), beside);
  assert.equal(await use(folder), log2);
}

async function check(outcome, folder, kept) {
  if (outcome === 'left out') return checkLeftOut(folder, kept);
  const nodes = fs.readdirSync(folder, { recursive: true }).filter((n) => n.endsWith('.node'));
  const ours = nodes.filter((name) => path.basename(name).startsWith('diralign'));
  if (outcome === 'external') {
    assert.deepEqual(ours, []);
    fs.cpSync(kept.packageFolder, path.join(folder, 'node_modules/diralign'), { recursive: true });
  } else {
    assert.equal(
      ours.some((name) => name.endsWith(addon)),
      outcome === 'traced',
    );
    assert.ok(nodes.length > 0);
  }
  assert.equal(await use(folder), log2);
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
const failed = [];
try {
  makeApplication(app, packHere(path.join(temporary, 'package')));
  process.chdir(app); // where some look for their settings
  const runs = [];
  for (const [bundler, setting, outcome, ...builds] of chosen) {
    for (const [i, build] of builds.entries()) {
      const name = `${bundler}, ${setting}${builds.length > 1 ? `, ${['ESM', 'CommonJS'][i]}` : ''}`;
      const out = path.join(app, 'out', String(runs.length));
      const begun = performance.now();
      const error = await Promise.resolve({ app, out })
        .then(build)
        .then(
          () => undefined,
          (cause) => cause,
        );
      runs.push({ name, outcome, error, seconds: (performance.now() - begun) / 1000 });
    }
  }
  // A bundle must not find anything where it was made.
  process.chdir(temporary);
  const away = path.join(temporary, 'elsewhere');
  fs.renameSync(path.join(app, 'out'), path.join(temporary, 'ran'));
  fs.renameSync(app, away);
  const kept = { app, packageFolder: path.join(away, 'node_modules/diralign') };
  for (const [i, { name, outcome, error, seconds }] of runs.entries()) {
    const folder = path.join(temporary, 'ran', String(i));
    const problem =
      error ??
      (await check(outcome, folder, kept).then(
        () => undefined,
        (cause) => cause,
      ));
    console.log(
      `${problem ? 'FAILED' : 'ok    '} ${name}: ${outcome} (built in ${seconds.toFixed(1)} s)`,
    );
    if (problem) (failed.push(name), console.log(problem.stack));
  }
} finally {
  fs.rmSync(temporary, { recursive: true, force: true });
}
process.exitCode = failed.length === 0 ? 0 : 1;
