// PTX, as nvcc writes it, as functions of statements.
import { bitsOf } from './types.mjs';

/** @returns [{ text, line }]: statements without their semicolon, `{`, `}` and `label:` */
function statements(source) {
  const ptx = source
    .replace(/\/\/.*/g, '')
    .replace(/\/\*[^]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ''))
    .replace(/^\.(version|target|address_size)\b.*/gm, '');
  const found = [];
  let line = 1;
  let text = '';
  let begin; // the line on which `text` begins
  let inOperand = false; // between the braces of a vector or a list
  const end = (what) => {
    if (what) found.push({ text: what.replace(/\s+/g, ' '), line: begin ?? line });
    text = '';
    begin = undefined;
  };
  for (const character of ptx) {
    const pending = text.trim();
    const isHead = /^(\.visible |\.weak |\.extern )*\.(entry|func)\b/.test(pending);
    if (!inOperand && character === ';') end(pending);
    else if (!inOperand && character === ':' && /^[\w$]+$/.test(pending)) end(`${pending}:`);
    else if (
      !inOperand &&
      '{}'.includes(character) &&
      (pending === '' || isHead || character === '}')
    ) {
      end(pending);
      end(character);
    } else {
      if (character === '{') inOperand = true;
      if (character === '}') inOperand = false;
      if (/\S/.test(character)) begin ??= line;
      text += character;
    }
    if (character === '\n') line += 1;
  }
  if (text.trim() !== '') throw new Error(`PTX ends in the middle of: ${text.trim()}`);
  return found;
}

/** The operands of an instruction: commas inside brackets separate none. */
export function operandsOf(text) {
  const found = [''];
  let depth = 0;
  for (const character of text) {
    if ('[{('.includes(character)) depth += 1;
    if (')}]'.includes(character)) depth -= 1;
    if (character === ',' && depth === 0) found.push('');
    else found[found.length - 1] += character;
  }
  return found.map((each) => each.trim()).filter(Boolean);
}

const variablePattern =
  /^\.(?:param|shared|local)(?: \.align (\d+))? \.([bsuf]\d+) ([\w$%]+)(?:\[(\d+)\])?$/;

/** `.param .align 8 .b8 name[16]` and the like: { name, bytes, alignment }. */
export function variable(text) {
  const match = variablePattern.exec(text.trim());
  if (!match) throw new Error(`PTX: not understood as a variable: ${text}`);
  const [, alignment, type, name, count = 1] = match;
  const bytes = bitsOf(type) / 8;
  return { name, bytes: bytes * Number(count), alignment: Number(alignment ?? bytes) };
}

/** `.extern .shared .align 16 .b8 name[]`: as long as the launch has it. */
function dynamic(text) {
  const match = /^\.extern \.shared \.align (\d+) \.b8 ([\w$%]+)\[\]$/.exec(text);
  if (!match) throw new Error(`PTX: not understood as dynamic shared memory: ${text}`);
  return { name: match[2], bytes: 'ptx::dynamic', alignment: Number(match[1]) };
}

const headPattern = /^(?:\.\w+ )*\.(entry|func) (?:\(([^)]*)\) )?([\w$]+) ?(?:\(([^)]*)\))?/;

function head(text) {
  const match = headPattern.exec(text);
  if (!match) throw new Error(`PTX: not understood at module scope: ${text}`);
  const [, kind, result = '', name, parameters = ''] = match;
  const variables = (list) => operandsOf(list).map(variable);
  return { kind, name, results: variables(result), parameters: variables(parameters) };
}

/** { functions: [{ name, kind, results, parameters, body }], shared: [variable] } */
export function parse(source) {
  const functions = [];
  const shared = [];
  let depth = 0;
  let current;
  for (const statement of statements(source)) {
    const { text } = statement;
    if (/^\.shared /.test(text)) shared.push(variable(text));
    else if (/^\.extern \.shared /.test(text)) shared.push(dynamic(text));
    else if (depth === 0 && text === '{') {
      if (!current) throw new Error('PTX: a body without a function');
      functions.push(current);
      depth = 1;
    } else if (depth === 0) {
      current = { ...head(text), body: [], line: statement.line };
    } else {
      if (text === '{') depth += 1;
      if (text === '}') depth -= 1;
      if (depth === 0) current = undefined;
      else current.body.push(statement);
    }
  }
  return { functions, shared };
}
