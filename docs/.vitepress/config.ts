import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, type DefaultTheme, type MarkdownRenderer } from 'vitepress';
import { methods } from '../../ts/catalogue.js';
import { completeExamples, hovers } from './hovers.js';
import { modules } from './modules.js';

const docs = fileURLToPath(new URL('..', import.meta.url));

/**
 * Links to files of the repository that are no pages (`../bench/results/...`) work where the Markdown is read in the repository. Here
 * they become text, and the build fails where there is no such file.
 */
function leaveTheRepositoryOut(md: MarkdownRenderer): void {
  md.core.ruler.push('links-out-of-docs', ({ tokens, env }) => {
    const { path: page } = env as { path: string };
    for (const { children } of tokens) {
      let inside = false;
      for (const token of children ?? []) {
        if (token.type === 'link_open') {
          const href = token.attrGet('href') ?? '';
          if (!href.startsWith('../')) continue;
          const file = path.resolve(path.dirname(page), href.replace(/#.*/, ''));
          if (file.startsWith(docs)) continue;
          if (!fs.existsSync(file)) throw new Error(`${page}: there is no ${href}`);
          inside = true;
          token.tag = 'span';
          token.attrs = [['title', `${path.relative(path.dirname(docs), file)} in the repository`]];
        } else if (token.type === 'link_close' && inside) {
          inside = false;
          token.tag = 'span';
        }
      }
    }
  });
}

const page = (text: string, name: string): DefaultTheme.SidebarItem => ({ text, link: `/${name}` });

const methodItems = (family: 'paper' | 'wider'): DefaultTheme.SidebarItem[] =>
  methods()
    .filter((info) => info.family === family)
    .map(({ name }) => page(name, `methods/${name}`));

export default defineConfig({
  title: 'diralign',
  description: 'Preference-training losses with exact gradients for Node',
  head: [['link', { rel: 'icon', type: 'image/svg+xml', href: '/icon.svg' }]],
  ignoreDeadLinks: false,
  srcExclude: ['generated/**'],
  // Pages of wide lines, where the text takes the place of the outline.
  transformPageData(data) {
    if (['command-line.md', 'gpu-registers.md'].includes(data.relativePath)) data.frontmatter.aside = false;
  },
  markdown: {
    math: true,
    codeTransformers: [hovers],
    config(md) {
      leaveTheRepositoryOut(md);
      completeExamples(md);
    },
  },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Guide', link: '/first-loss' },
      { text: 'Methods', link: '/methods' },
      { text: 'API', link: '/api/' },
    ],
    sidebar: [
      {
        text: 'Start',
        items: [page('What it is', ''), page('Install', 'install'), page('First loss in five minutes', 'first-loss')],
      },
      {
        text: 'Losses',
        items: [
          page('Methods', 'methods'),
          { text: 'In the paper', collapsed: true, items: methodItems('paper') },
          { text: 'The wider family', collapsed: true, items: methodItems('wider') },
          page('How methods relate', 'relations'),
          page('Beta and normalisation', 'beta'),
        ],
      },
      {
        text: 'Training',
        items: [
          page('Trainers', 'trainers'),
          page('Data and the reference', 'data'),
          page('Without logits', 'output-layer'),
          page('On a GPU', 'gpu'),
          page('Verification in CI', 'ci'),
          page('Troubleshooting', 'troubleshooting'),
        ],
      },
      {
        text: 'Performance',
        items: [page('On a CPU', 'performance'), page('On a GPU', 'gpu-performance'), page('Registers', 'gpu-registers')],
      },
      {
        text: 'Reference',
        items: [
          page('Command line', 'command-line'),
          page('Study', 'study'),
          { text: 'API', collapsed: true, link: '/api/', items: modules().map(({ name }) => page(name, `api/${name}`)) },
        ],
      },
    ],
  },
});
