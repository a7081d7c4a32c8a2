/** Types on the site: whoever points at a name of an example sees what the compiler knows of it. */
import { fileURLToPath } from 'node:url';
import { transformerTwoslash } from '@shikijs/vitepress-twoslash';
import type { MarkdownRenderer } from 'vitepress';
import { modules } from './modules.js';
import { compose, readerOptions, snippetsOf } from './snippets.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const preludes = `${root}tests/docs/preludes`;
const paths = Object.fromEntries(modules().map(({ name, source }) => [name, [`${root}${source}`]]));

/**
 * Puts before each example what it takes for granted, where readers do not see it.
 * tests/package/docs.test.ts compiles the same text; here it is only asked about.
 */
export function completeExamples(md: MarkdownRenderer): void {
  md.core.ruler.push('complete-examples', ({ src, tokens, env }) => {
    const { relativePath = '' } = env as { relativePath?: string };
    // Examples in docstrings take names for granted that nothing declares.
    if (relativePath.startsWith('api/')) return;
    const only = process.env.DIRALIGN_DOCS_TYPES;
    if (only !== undefined && relativePath !== only) return;
    const snippets = snippetsOf(relativePath, src);
    for (const token of tokens) {
      if (token.type !== 'fence' || token.info !== 'ts') continue;
      const snippet = snippets.find(
        ({ place }) => place === `${relativePath}:${(token.map?.[0] ?? 0) + 1}`,
      );
      if (snippet === undefined) continue;
      const { before, code } = compose(snippet, snippets, preludes, root);
      token.info = 'ts twoslash';
      token.content = `${before}// ---cut---\n${code}\n`;
    }
  });
}

export const hovers = transformerTwoslash({
  twoslashOptions: {
    vfsRoot: root,
    // The sources, so that a site can be built where the package is not.
    compilerOptions: { ...readerOptions, paths },
    handbookOptions: { noErrors: true },
  },
});
