/** Where the sources are published: package.json says it, and all that links to them asks here. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

const { version, repository } = JSON.parse(
  fs.readFileSync(path.join(root, 'package.json'), 'utf8'),
) as {
  readonly version: string;
  readonly repository: { readonly url: string };
};

export { version };

/** Of its page on the web, which also is the beginning of every other address. */
export const repositoryUrl = repository.url.replace(/^git\+/, '').replace(/\.git$/, '');

/** The page of a file or folder, named from the root. */
export function sourceUrl(file: string): string {
  return `${repositoryUrl}/blob/HEAD/${file}`;
}

/** The bytes of a file, for what shows an image. */
function rawUrl(file: string): string {
  const raw = repositoryUrl.replace('https://github.com/', 'https://raw.githubusercontent.com/');
  return `${raw}/HEAD/${file}`;
}

/**
 * A Markdown file of the root for readers elsewhere, as on the package's page: links to files of
 * the repository become addresses. Blocks of code stay as they are.
 *
 * @throws Error for a link to a file that is not there
 */
export function withAbsoluteLinks(markdown: string): string {
  let inCode = false;
  const absolute = (line: string): string =>
    line.replace(
      /(!?)(\[(?:!\[[^\]]*\]\([^)]*\)|[^\]])*\])\(([^)\s]+)\)/g,
      (whole, image: string, text: string, href: string) => {
        const inner = absolute(text.slice(1, -1));
        if (/^([a-z][a-z+.-]*:|#)/i.test(href)) return `${image}[${inner}](${href})`;
        const [file = '', anchor] = href.split('#');
        if (!fs.existsSync(path.join(root, file))) throw new Error(`${whole}: there is no ${file}`);
        const url = image === '' ? sourceUrl(file) : rawUrl(file);
        return `${image}[${inner}](${url}${anchor === undefined ? '' : `#${anchor}`})`;
      },
    );
  const lines = markdown.split('\n').map((line) => {
    if (line.startsWith('```')) inCode = !inCode;
    return inCode ? line : absolute(line);
  });
  return lines.join('\n');
}
