/**
 * The API's pages, one for each symbol that package.json's modules export, from the docstrings in
 * ts/.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DefaultTheme } from 'vitepress';
import {
  Application,
  ReflectionKind,
  type DeclarationReflection,
  type ProjectReflection,
} from 'typedoc';
import { MarkdownPageEvent } from 'typedoc-plugin-markdown';
import { modules } from './modules.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * @throws Error for a symbol without a docstring, and whatever else TypeDoc complains of, which it
 * prints
 */
export async function writeApi(): Promise<void> {
  const known = modules();
  const app = await Application.bootstrapWithPlugins({
    options: path.join(root, 'docs/.vitepress/typedoc.json'),
    entryPoints: known.map(({ source }) => path.join(root, source)),
  });
  const stopOnDefects = (): void => {
    if (app.logger.hasErrors() || app.logger.hasWarnings())
      throw new Error('the API has defects, named above');
  };
  const project = await app.convert();
  if (project === undefined) throw new Error('the API has defects, named above');
  for (const module of project.children ?? []) {
    // TypeDoc names a module by its file; readers know it by what they import.
    const own = known.find(({ source }) => typedocName(source) === module.name);
    if (own === undefined) throw new Error(`${module.name} is no module of package.json`);
    module.name = own.name;
  }
  app.validate(project);
  stopOnDefects();
  app.renderer.on(MarkdownPageEvent.END, (page) => {
    const symbol = page.model as DeclarationReflection;
    if (symbol.parent?.kindOf(ReflectionKind.Module))
      page.contents = headed(symbol, page.contents ?? '');
  });
  await app.generateOutputs(project);
  stopOnDefects();
  fs.writeFileSync(
    path.join(root, 'docs/api/sidebar.json'),
    JSON.stringify(sidebar(project, (symbol) => app.renderer.router?.getFullUrl(symbol) ?? '')),
  );
}

/** `trainers/tfjs` of `ts/trainers/tfjs/index.ts`. */
function typedocName(source: string): string {
  return source.replace(/^ts\/(.*?)(?:\/index)?\.ts$/, '$1');
}

const types = [ReflectionKind.Interface, ReflectionKind.TypeAlias];

/** A page with the name by which the site has it, and the line that imports it. */
function headed(symbol: DeclarationReflection, contents: string): string {
  const statement =
    `import ${symbol.kindOf(types) ? 'type ' : ''}{ ${symbol.name} } from ` +
    `'${moduleOf(symbol)}';`;
  return contents.replace(/^# .*$/m, `# ${titleOf(symbol)}\n\n\`\`\`ts\n${statement}\n\`\`\``);
}

function moduleOf(symbol: DeclarationReflection): string {
  return symbol.parent?.name ?? '';
}

/** The symbol's name; of several modules that have it, all but the main one are named beside it. */
function titleOf(symbol: DeclarationReflection): string {
  const module = moduleOf(symbol);
  const all = symbol.project.children?.flatMap(({ children }) => children ?? []) ?? [];
  const isShared = all.some((other) => other !== symbol && other.name === symbol.name);
  return isShared && module !== 'diralign' ? `${symbol.name} (${module})` : symbol.name;
}

function sidebar(
  project: ProjectReflection,
  urlOf: (symbol: DeclarationReflection) => string,
): DefaultTheme.SidebarItem[] {
  const link = (symbol: DeclarationReflection): string =>
    `/api/${urlOf(symbol).replace(/(index)?\.md$/, '')}`;
  const sorted = [...(project.children ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  return sorted.map((module) => ({
    text: module.name,
    link: link(module),
    collapsed: module.name !== 'diralign',
    items: (module.groups ?? []).map(({ title, children }) => ({
      text: title,
      collapsed: title !== 'Functions',
      items: (children as DeclarationReflection[]).map((symbol) => ({
        text: titleOf(symbol),
        link: link(symbol),
      })),
    })),
  }));
}
