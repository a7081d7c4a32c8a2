/** The code blocks of the documentation, as files that can be compiled and run. */
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

export interface Snippet {
  /** File and line, as errors have it. */
  readonly place: string;
  readonly language: string;
  readonly code: string;
  /**
   * Names of preludes; what they export is there for the snippet. `above`: all runnable blocks
   * before it on the page.
   */
  readonly preludes: readonly string[];
  /** Why it is not run. */
  readonly notRun: string | undefined;
  /** What it prints, where the page says so. */
  readonly output: string | undefined;
}

/** Languages whose blocks must run, or say why not. */
export const runnable: ReadonlySet<string> = new Set(['ts', 'js', 'sh']);

const comment = /^<!-- example\b(.*)-->$/;

/**
 * Fenced blocks of a page. A comment before a block, which readers do not see, says what it takes:
 * `<!-- example with: A, B -->`,
 * `<!-- example not run: REASON -->`, both with a semicolon between; `<!-- example output -->`
 * before a block makes it what the one above prints.
 *
 * @throws Error for a comment that says something else, or that no block follows
 */
export function snippetsOf(page: string, text: string): Snippet[] {
  const snippets: Snippet[] = [];
  const lines = text.split('\n');
  let note: string | undefined;
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] as string;
    const [, said] = comment.exec(line) ?? [];
    if (said !== undefined) {
      note = said.trim();
      continue;
    }
    const fence = /^( *)(`{3,})(\w*)/.exec(line);
    if (fence === null) {
      if (line.trim() !== '' && note !== undefined)
        throw new Error(`${page}:${i}: no block follows '${note}'`);
      continue;
    }
    const [, indent = '', ticks = '', language = ''] = fence;
    const place = `${page}:${i + 1}`;
    const start = ++i;
    while (i < lines.length && (lines[i] as string).trim() !== ticks) i++;
    if (i === lines.length) throw new Error(`${place}: the block does not end`);
    const code = lines
      .slice(start, i)
      .map((each) => each.slice(indent.length))
      .join('\n');
    const last = snippets.at(-1);
    if (note === 'output') {
      if (last === undefined) throw new Error(`${place}: there is no block above`);
      snippets[snippets.length - 1] = { ...last, output: code };
    } else {
      snippets.push({ place, language, code, output: undefined, ...notesOf(place, note ?? '') });
    }
    note = undefined;
  }
  if (note !== undefined) throw new Error(`${page}: no block follows '${note}'`);
  return snippets;
}

function notesOf(place: string, note: string): Pick<Snippet, 'preludes' | 'notRun'> {
  let preludes: string[] = [];
  let notRun: string | undefined;
  for (const part of note.split(';').map((each) => each.trim())) {
    if (part.startsWith('with: ')) preludes = part.slice('with: '.length).split(', ');
    else if (part.startsWith('not run: ')) notRun = part.slice('not run: '.length);
    else if (part !== '')
      throw new Error(`${place}: '${part}' is neither 'with: ...' nor 'not run: ...'`);
  }
  return { preludes, notRun };
}

interface Names {
  readonly declared: ReadonlySet<string>;
  readonly exported: ReadonlySet<string>;
  /** By `let`: a snippet may assign to them, which it could not to an import. */
  readonly variable: ReadonlySet<string>;
}

/** The names that a module declares or imports at its top, and those that it exports. */
function namesOf(code: string): Names {
  const declared = new Set<string>();
  const exported = new Set<string>();
  const variable = new Set<string>();
  const addTo = (
    names: Set<string>,
    node: ts.BindingName | ts.ModuleExportName | undefined,
  ): void => {
    if (node === undefined || ts.isStringLiteral(node)) return;
    if (ts.isIdentifier(node)) names.add(node.text);
    else
      for (const element of node.elements)
        if (ts.isBindingElement(element)) addTo(names, element.name);
  };
  const isExported = (node: ts.HasModifiers): boolean =>
    ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false;
  for (const statement of ts.createSourceFile('snippet.ts', code, ts.ScriptTarget.ESNext)
    .statements) {
    if (ts.isVariableStatement(statement)) {
      for (const { name } of statement.declarationList.declarations) {
        addTo(declared, name);
        if (isExported(statement)) addTo(exported, name);
        if (statement.declarationList.flags & ts.NodeFlags.Let) addTo(variable, name);
      }
    } else if (ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement)) {
      addTo(declared, statement.name);
      if (isExported(statement)) addTo(exported, statement.name);
    } else if (
      ts.isExportDeclaration(statement) &&
      statement.exportClause &&
      ts.isNamedExports(statement.exportClause)
    ) {
      for (const { name } of statement.exportClause.elements) addTo(exported, name);
    } else if (ts.isImportDeclaration(statement)) {
      const bindings = statement.importClause?.namedBindings;
      if (bindings && ts.isNamedImports(bindings))
        for (const { name } of bindings.elements) addTo(declared, name);
      else addTo(declared, bindings?.name);
    }
  }
  return { declared, exported, variable };
}

/** A snippet as a module: its own code, and before it what a reader of the page has already. */
export interface Module {
  readonly before: string;
  readonly code: string;
}

/**
 * Imports from preludes of what the snippet does not declare itself, and the blocks above where it
 * goes on from them.
 */
export function compose(
  snippet: Snippet,
  page: readonly Snippet[],
  preludeFolder: string,
  folder: string,
): Module {
  const above: Snippet[] = [];
  if (snippet.preludes.includes('above')) {
    const earlier = page.slice(0, page.indexOf(snippet));
    above.push(
      ...earlier.filter(
        ({ language, notRun }) => language === snippet.language && notRun === undefined,
      ),
    );
  }
  const preludes = [...new Set([snippet, ...above].flatMap((each) => each.preludes))].filter(
    (name) => name !== 'above',
  );
  const blocks = above.map(({ code }) => code);
  const taken = new Set(namesOf([...blocks, snippet.code].join('\n')).declared);
  const imports = preludes.map((prelude) => {
    const file = path.join(preludeFolder, `${prelude}.ts`);
    const { exported, variable } = namesOf(fs.readFileSync(file, 'utf8'));
    const names = [...exported].filter((name) => !taken.has(name));
    for (const name of names) taken.add(name);
    const relative = path.relative(folder, file).split(path.sep).join('/');
    const from = `.//${relative.replace(/\.ts$/, '.js')}`;
    const list = names.map((name) => (variable.has(name) ? `${name} as ${name}$` : name));
    const lets = names
      .filter((name) => variable.has(name))
      .map((name) => `let ${name} = ${name}$;`);
    // Once for its effects: a compiler leaves an import out of which nothing is used.
    return [`import '${from}';`, `import { ${list.join(', ')} } from '${from}';`, ...lets].join(
      '\n',
    );
  });
  return {
    before: [...imports, ...blocks].map((block) => `${block}\n`).join(''),
    code: snippet.code,
  };
}

/**
 * What `tsc --init` of TypeScript 6 sets, with the types of Node: what a reader's project has at
 * its strictest.
 */
export const readerOptions: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ESNext,
  types: ['node'],
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  verbatimModuleSyntax: true,
  isolatedModules: true,
  noUncheckedSideEffectImports: true,
  moduleDetection: ts.ModuleDetectionKind.Force,
  skipLibCheck: true,
};

/**
 * What the compiler has against modules in a reader's project, a line each; of JavaScript, what an
 * editor marks.
 */
export function typeErrors(files: readonly string[]): string[] {
  const program = ts.createProgram([...files], {
    ...readerOptions,
    noEmit: true,
    allowJs: true,
    checkJs: true,
  });
  return files.flatMap((file) => {
    const source = program.getSourceFile(file);
    if (source === undefined) throw new Error(`${file} is not there`);
    return [
      ...program.getSyntacticDiagnostics(source),
      ...program.getSemanticDiagnostics(source),
    ].map(({ messageText, start = 0 }) => {
      const { line } = source.getLineAndCharacterOfPosition(start);
      const text = source.text.split('\n')[line] ?? '';
      return (
        `${path.basename(file)}: ` +
        `${text.trim()}\n    ${ts.flattenDiagnosticMessageText(messageText, '\n    ')}`
      );
    });
  });
}
