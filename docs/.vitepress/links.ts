/**
 * Links and anchors of a built site: that each leads somewhere on the site, or is a well-formed
 * address of another one.
 */
import fs from 'node:fs';
import path from 'node:path';
import { Parser } from 'htmlparser2';

interface Page {
  readonly ids: ReadonlySet<string>;
  readonly links: ReadonlySet<string>;
  /** What a browser fetches by itself. */
  readonly loads: ReadonlySet<string>;
}

function read(file: string): Page {
  const ids = new Set<string>();
  const links = new Set<string>();
  const loads = new Set<string>();
  const parser = new Parser({
    onopentag(tag, { id, href, src }) {
      if (id !== undefined) ids.add(id);
      if (src !== undefined) loads.add(src);
      if (href !== undefined && tag === 'a') links.add(href);
      if (href !== undefined && tag === 'link') loads.add(href);
    },
  });
  parser.write(fs.readFileSync(file, 'utf8'));
  parser.end();
  return { ids, links, loads };
}

/** The file that a server gives for a path without its anchor. */
function fileOf(root: string, pathname: string): string | undefined {
  const file = path.join(root, decodeURIComponent(pathname));
  const candidates = [file, `${file}.html`, path.join(file, 'index.html')];
  return candidates.find((candidate) =>
    fs.statSync(candidate, { throwIfNoEntry: false })?.isFile(),
  );
}

const isElsewhere = (address: string): boolean => /^[a-z][a-z+.-]*:|^\/\//i.test(address);

function isWellFormed(address: string): boolean {
  return URL.canParse(address) && ['https:', 'mailto:'].includes(new URL(address).protocol);
}

/**
 * What is wrong with the links of a site, a line each; empty where nothing is. Nothing is fetched
 * from other hosts, and a page that makes a browser fetch from them is wrong.
 *
 * @throws Error where there is no page
 */
export function brokenLinks(root: string): string[] {
  const files = fs
    .readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.html'));
  if (files.length === 0) throw new Error(`${root}: there is no page`);
  const pages = new Map(
    files.map((file) => [path.join(root, file), read(path.join(root, file))] as const),
  );
  const broken: string[] = [];
  for (const [file, { links, loads }] of pages) {
    const from = path.relative(root, file).split(path.sep).join('/');
    const base = new URL(`http://site/${from}`);
    for (const address of loads) {
      if (address.startsWith('data:')) continue;
      if (isElsewhere(address)) broken.push(`${from}: loads ${address} from another host`);
      else if (fileOf(root, new URL(address, base).pathname) === undefined)
        broken.push(`${from}: ${address} is not there`);
    }
    for (const address of links) {
      if (isElsewhere(address)) {
        if (!isWellFormed(address))
          broken.push(`${from}: ${address} is no address of another site`);
        continue;
      }
      const { pathname, hash } = new URL(address, base);
      const target = fileOf(root, pathname);
      const ids = target === undefined ? undefined : pages.get(target)?.ids;
      if (target === undefined) broken.push(`${from}: ${address} leads nowhere`);
      else if (hash !== '' && ids?.has(decodeURIComponent(hash.slice(1))) === false) {
        broken.push(`${from}: ${address} has no such anchor`);
      }
    }
  }
  return broken;
}
