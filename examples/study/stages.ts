/** Where the stages are, and which version of them made a result. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import type { Stage } from './study.js';

/** What a module with stages exports. */
export interface StageModule {
  readonly stages: Readonly<Record<string, Stage>>;
}

/** The module of each stage, by the stage's name; only workers import them. */
export type StageModules = Readonly<Record<string, URL>>;

const model = new URL('model/stages.ts', import.meta.url);

export const stageModules: StageModules = {
  pretrain: model,
  sft: model,
  align: model,
  'ranking-bias': new URL('ranking-bias/stage.ts', import.meta.url),
};

const manifest = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };
/** Of diralign. */
export const packageVersion = manifest.version;

/** The version of each stage, by its name. */
export async function stageVersions(
  modules: StageModules,
): Promise<Readonly<Record<string, string>>> {
  const files = [...new Set(Object.values(modules).map((url) => fileURLToPath(url)))];
  const versions = new Map(
    await Promise.all(files.map(async (file) => [file, await moduleVersion(file)] as const)),
  );
  return Object.fromEntries(
    Object.entries(modules).map(([stage, url]) => [
      stage,
      versions.get(fileURLToPath(url)) as string,
    ]),
  );
}

/**
 * A hash of the code that runs: the module with all that it imports from its own project, without
 * types, comments and what nobody uses. Packages count with nothing but diralign's version;
 * `--fresh` is for changes of theirs.
 */
async function moduleVersion(file: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [file],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    minifySyntax: true,
    minifyWhitespace: true,
    packages: 'external',
    external: ['diralign', 'diralign/*'],
    logLevel: 'silent',
  });
  const hash = createHash('sha256').update(packageVersion);
  for (const { contents } of outputFiles) hash.update(contents);
  return hash.digest('hex').slice(0, 16);
}
