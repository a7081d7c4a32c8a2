/** Reference values that lie beside a batch file. */
import fs from 'node:fs';
import path from 'node:path';
import { dirAlignLoss } from '../objective.js';
import type { ReferenceConfig } from '../verification/reference.js';
import type { LogitsBatch } from '../batch/types.js';
import { unitsOf } from '../units.js';
import { lackOf, sequencesOf } from './batch-fields.js';
import { CommandError } from './command.js';
import { methodNamed } from './choice.js';

export interface ExpectedCase {
  readonly call: ReferenceConfig;
  readonly loss: number;
  readonly losses?: readonly number[];
  /** Elements of dLoss/dlogits by their indices in the shape of the logits. */
  readonly gradient?: {
    readonly at: readonly (readonly number[])[];
    readonly value: readonly number[];
  };
}
export interface ExpectedValues {
  readonly path: string;
  readonly logps?: readonly number[];
  readonly counts?: readonly number[];
  readonly cases: readonly ExpectedCase[];
}

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A number, or its name where JSON has none. */
function numberFrom(value: unknown, where: string): number {
  const named: Readonly<Record<string, number>> = { NaN, Infinity, '-Infinity': -Infinity };
  const number = typeof value === 'string' ? named[value] : value;
  if (typeof number !== 'number')
    throw new CommandError(
      `${where}: ${value === undefined ? 'nothing' : JSON.stringify(value)} is not a number`,
    );
  return number;
}

function numbers(value: unknown, where: string, length: number): number[] {
  if (!Array.isArray(value) || value.length !== length)
    throw new CommandError(`${where}: expected an array of ${length} numbers`);
  return value.map((item, i) => numberFrom(item, `${where}[${i}]`));
}

function parseCase(value: unknown, where: string, batch: LogitsBatch): ExpectedCase {
  if (!isObject(value) || !isObject(value.call) || typeof value.call.method !== 'string') {
    throw new CommandError(`${where}: expected { call: { method, ... }, loss, ... }`);
  }
  const { call, loss, losses, gradient } = value;
  let lack;
  try {
    const objective = dirAlignLoss(call as unknown as { method: 'dpo'; beta: number });
    lack = lackOf(objective, batch);
  } catch (error) {
    throw new CommandError(`${where}.call: ${(error as Error).message}`, { cause: error });
  }
  if (lack) throw new CommandError(`${where}.call: ${lack.reason}`);
  const { shape, groups } = batch;
  const units = unitsOf(methodNamed(call.method as string), sequencesOf(batch), groups);
  return {
    call: call as unknown as ReferenceConfig,
    loss: numberFrom(loss, `${where}.loss`),
    ...(losses !== undefined && { losses: numbers(losses, `${where}.losses`, units) }),
    ...(gradient !== undefined && {
      gradient: parseGradient(gradient, `${where}.gradient`, shape),
    }),
  };
}

function parseGradient(
  gradient: unknown,
  where: string,
  shape: readonly number[],
): NonNullable<ExpectedCase['gradient']> {
  if (!isObject(gradient) || !Array.isArray(gradient.at)) {
    throw new CommandError(`${where}: expected { at: [[...indices]], value: [...] }`);
  }
  const at = (gradient.at as unknown[]).map((item, i) => {
    const indices = numbers(item, `${where}.at[${i}]`, shape.length);
    if (
      indices.every(
        (index, axis) => Number.isInteger(index) && index >= 0 && index < (shape[axis] ?? 0),
      )
    )
      return indices;
    throw new CommandError(
      `${where}.at[${i}]: [${indices.join(', ')}] is not in the shape of the logits, ` +
        `[${shape.join(', ')}]`,
    );
  });
  return { at, value: numbers(gradient.value, `${where}.value`, at.length) };
}

/**
 * Of NAME.safetensors: NAME.expected.json, or an expected.json whose `file` names it. Nothing where
 * there is neither.
 * @throws CommandError where such a file is there and is not what it should be
 */
export function expectedValuesOf(file: string, batch: LogitsBatch): ExpectedValues | undefined {
  const sequences = sequencesOf(batch);
  const own = file.replace(/\.safetensors(\.index\.json)?$/, '') + '.expected.json';
  const shared = path.join(path.dirname(file), 'expected.json');
  for (const candidate of [own, shared]) {
    if (!fs.existsSync(candidate)) continue;
    let json: unknown;
    try {
      json = JSON.parse(fs.readFileSync(candidate, 'utf8'));
    } catch (error) {
      throw new CommandError(`${candidate}: ${(error as Error).message}`);
    }
    if (!isObject(json) || !Array.isArray(json.cases))
      throw new CommandError(`${candidate}: expected { cases: [...] }`);
    if (candidate === shared && json.file !== path.basename(file)) continue;
    const { logps, counts, cases } = json;
    return {
      path: candidate,
      ...(logps !== undefined && { logps: numbers(logps, `${candidate}: logps`, sequences) }),
      ...(counts !== undefined && { counts: numbers(counts, `${candidate}: counts`, sequences) }),
      cases: (cases as unknown[]).map((value, i) =>
        parseCase(value, `${candidate}: cases[${i}]`, batch),
      ),
    };
  }
  return undefined;
}
