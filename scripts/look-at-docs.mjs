#!/usr/bin/env node
// Looks at the built site (`npm run docs` first) in a headless Chromium, every page on a desktop
// and on a phone, light and dark. Fails on what a reader would trip over; leaves screenshots in
// build/docs-screenshots.
//   node scripts/look-at-docs.mjs [--chromium FILE] [--only TEXT]
// The browser is that of --chromium, or of the environment variable CHROMIUM, or the first of some
// usual places.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from 'vitepress';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: { chromium: { type: 'string' }, only: { type: 'string', default: '' } },
});
const docs = path.join(root, 'docs');
const site = path.join(docs, '.vitepress/dist');
const screenshots = path.join(root, 'build/docs-screenshots');

const browserFile = findBrowser();
if (!existsSync(site)) fail('docs/.vitepress/dist is not there: npm run docs makes it');
const pages = readdirSync(site, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.html') && file !== '404.html' && file.includes(values.only))
  .map((file) => file.split(path.sep).join('/'))
  .sort();
if (pages.length === 0) fail(`no page has '${values.only}' in its name`);

/** Widths in CSS pixels. */
const views = [
  { name: 'desktop', width: 1280, height: 900, colorScheme: 'light' },
  { name: 'desktop-dark', width: 1280, height: 900, colorScheme: 'dark' },
  { name: 'phone', width: 390, height: 844, colorScheme: 'light', isMobile: true, hasTouch: true },
];

const { server } = await serve({ root: docs, port: 0 });
const origin = `http://localhost:${server.address().port}`;
const browser = await chromium.launch({
  executablePath: browserFile,
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const defects = [];
try {
  for (const view of views) await lookAtAll(view);
} finally {
  await browser.close();
  server.close();
}
for (const defect of defects) console.error(defect);
console.log(
  `${pages.length} pages in ${views.length} views: ${defects.length} defects; ` +
    'screenshots in build/docs-screenshots',
);
process.exitCode = defects.length === 0 ? 0 : 1;

async function lookAtAll({ name, width, height, ...options }) {
  const folder = path.join(screenshots, name);
  if (values.only === '') rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const context = await browser.newContext({ viewport: { width, height }, ...options });
  const tab = await context.newPage();
  // A busy machine takes its time over a long page.
  tab.setDefaultTimeout(0);
  let file = '';
  const report = (what) => defects.push(`${file} (${name}): ${what}`);
  tab.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) report(`console: ${message.text()}`);
  });
  tab.on('pageerror', (error) => report(`exception: ${error.message}`));
  tab.on('requestfailed', (request) => {
    // A page that is left gives up what it was fetching ahead.
    const { errorText } = request.failure() ?? {};
    if (errorText !== 'net::ERR_ABORTED') report(`request failed (${errorText}): ${request.url()}`);
  });
  tab.on('response', (response) => {
    if (response.status() >= 400) report(`${response.status()}: ${response.url()}`);
  });
  tab.on('request', (request) => {
    const { protocol, origin: from } = new URL(request.url());
    if (protocol !== 'data:' && protocol !== 'blob:' && from !== origin)
      report(`asks another host: ${request.url()}`);
  });
  for (file of pages) {
    await tab.goto(`${origin}/${file}`, { waitUntil: 'load' });
    for (const what of await tab.evaluate(defectsOfPage)) report(what);
    await tab.screenshot({
      path: path.join(folder, `${file.replaceAll('/', '-').replace('.html', '')}.png`),
      fullPage: true,
    });
  }
  await context.close();
}

/** Runs in the page. */
function defectsOfPage() {
  const { document } = globalThis;
  const found = [];
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) {
    const wide = [...document.querySelectorAll('.VPDoc *')].filter(
      (e) => e.getBoundingClientRect().right > clientWidth + 1,
    );
    const first = wide.map((e) => `${e.tagName} '${(e.textContent ?? '').trim().slice(0, 40)}'`)[0];
    found.push(`${scrollWidth - clientWidth} pixels too wide: ${first ?? 'outside of the text'}`);
  }
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) found.push(`image not loaded: ${image.src}`);
  }
  if (document.querySelector('h1') === null) found.push('no heading');
  if (
    /---cut---|docs\/preludes/.test(document.querySelector('main, #VPContent')?.textContent ?? '')
  )
    found.push('an example shows what it takes for granted');
  if (/\$\$|\\(frac|sigma|log)\b/.test(document.querySelector('main')?.innerText ?? ''))
    found.push('a formula is not rendered');
  return found;
}

function findBrowser() {
  const given = values.chromium ?? process.env.CHROMIUM;
  if (given !== undefined) {
    if (!existsSync(given)) fail(`${given}: there is no such browser`);
    return given;
  }
  const usual = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  return (
    usual.find((file) => existsSync(file)) ??
    fail(
      `no browser at ${usual.join(', ')}: install one (apt-get install chromium), ` +
        'or name its file by --chromium or CHROMIUM',
    )
  );
}

function fail(message) {
  console.error(`look-at-docs: ${message}`);
  process.exit(2);
}
