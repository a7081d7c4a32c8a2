import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, type DefaultTheme, type MarkdownRenderer } from 'vitepress';
import { completeExamples, hovers } from './hovers.js';
import { repositoryUrl, sourceUrl, version } from './repository.js';
import { sidebar } from './sidebar.js';

const docs = fileURLToPath(new URL('..', import.meta.url));

/**
 * Links to files of the repository that are no pages (`../bench/results/...`) work where the
 * Markdown is read in the repository. Here they lead to its address, and the build fails where
 * there is no such file.
 */
function linkToTheRepository(md: MarkdownRenderer): void {
  md.core.ruler.push('links-out-of-docs', ({ tokens, env }) => {
    const { path: page } = env as { path: string };
    for (const token of tokens.flatMap(({ children }) => children ?? [])) {
      const href = token.type === 'link_open' ? (token.attrGet('href') ?? '') : '';
      if (!href.startsWith('../')) continue;
      const [name = '', anchor] = href.split('#');
      const file = path.resolve(path.dirname(page), name);
      if (file.startsWith(docs)) continue;
      if (!fs.existsSync(file)) throw new Error(`${page}: there is no ${href}`);
      const address = sourceUrl(path.relative(path.dirname(docs), file));
      token.attrSet('href', anchor === undefined ? address : `${address}#${anchor}`);
    }
  });
}

/** Each page is rendered once: the search index asks for all of them a second time. */
function renderOnce(md: MarkdownRenderer): void {
  const rendered = new Map<string, { html: string; env: object }>();
  const render = md.render.bind(md);
  md.render = (text, env: { path: string }) => {
    const key = `${env.path}\n${text}`;
    let page = rendered.get(key);
    if (page === undefined) {
      page = { html: render(text, env), env: { ...env } };
      rendered.set(key, page);
    }
    Object.assign(env, { ...page.env, ...env });
    return page.html;
  };
}

/** What {@link writeApi} of api.ts has written. */
function apiSidebar(): DefaultTheme.SidebarItem[] {
  return JSON.parse(
    fs.readFileSync(path.join(docs, 'api/sidebar.json'), 'utf8'),
  ) as DefaultTheme.SidebarItem[];
}

export default defineConfig({
  title: 'diralign',
  description: 'Preference-training losses with exact gradients for Node',
  head: [['link', { rel: 'icon', type: 'image/svg+xml', href: '/icon.svg' }]],
  ignoreDeadLinks: false,
  srcExclude: ['generated/**'],
  // Pages of wide lines, where the text takes the place of the outline.
  transformPageData(data) {
    if (['command-line.md', 'gpu-registers.md', 'gpu-sass.md'].includes(data.relativePath))
      data.frontmatter.aside = false;
  },
  markdown: {
    math: true,
    codeTransformers: [hovers],
    config(md) {
      linkToTheRepository(md);
      completeExamples(md);
      renderOnce(md);
    },
  },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Guide', link: '/first-loss' },
      { text: 'Methods', link: '/methods' },
      { text: 'API', link: '/api/', activeMatch: '^/api/' },
      { text: version, link: sourceUrl('CHANGELOG.md') },
    ],
    socialLinks: [{ icon: 'github', link: repositoryUrl, ariaLabel: 'source' }],
    sidebar: {
      '/api/': [{ text: 'API', link: '/api/' }, ...apiSidebar()],
      '/': sidebar(),
    },
  },
});
