// Recipes, as `diralign loss` computes them and `diralign methods` lists them.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { methods, recipe, recipes, type LogitsBatch, type RecipeName } from '../../ts/index.js';
import { readBatch, readSafetensors, writeSafetensors } from '../../ts/safetensors.js';
import { compileProgram, example, output, refusal } from '../support/cli.js';
import { singles, whole } from '../support/tensors.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-recipes-'));
beforeAll(compileProgram, 120_000);
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

interface ResultJson {
  readonly terms?: readonly { readonly method: string; readonly loss: number }[];
}
const resultOf = (...args: string[]): ResultJson | undefined =>
  (JSON.parse(output('loss', ...args, '--json')) as { results: ResultJson[] }).results[0];

describe('recipes', () => {
  const batch = readBatch(example) as LogitsBatch & { readonly reference: Float64Array };
  const names = Object.keys(recipes) as RecipeName[];

  test.each(names)('--recipe %s is the recipe of the library', (name) => {
    const { loss, losses, metrics, terms } = recipe(name)(batch);
    const result = resultOf('--recipe', name);
    expect(result).toMatchObject({ recipe: name, loss, losses: [...losses], metrics });
    expect(result?.terms?.map((term) => term.loss)).toEqual(terms?.map((term) => term.loss));
    expect(output('loss', '--recipe', name, example)).toMatch(new RegExp(`^${name}  `, 'm'));
    expect(output('loss', '--help')).toContain(name);
    const listed = output('methods', '--recipes');
    expect(listed).toMatch(new RegExp(`^${name} `, 'm'));
  });

  test('settings in place of its own, and those that none of its losses takes', () => {
    const result = resultOf('--recipe rpo --beta 0.5 --sft-weight 0.25 --normalize');
    const own = recipe('rpo', { beta: 0.5, sftWeight: 0.25, normalize: true });
    expect(result).toMatchObject({ loss: own(batch).loss, beta: 0.5, betaSource: 'given' });
    expect(refusal(2, 'loss', '--recipe', 'rpo', '--gamma', '1')).toContain(
      "--gamma: 'rpo' has no such setting",
    );
    expect(refusal(2, 'loss', '--recipe', 'rpoo')).toContain("did you mean 'rpo'?");
    expect(refusal(2, 'loss', 'dpo', '--recipe', 'rpo')).toContain('exclude each other');
    expect(refusal(2, 'loss', '--recipe', 'mpo', '--preset', 'tldr-llama-3.2-3b')).toContain(
      'exclude each other',
    );
    const file = path.join(folder, 'no-reference.safetensors');
    writeSafetensors(file, {
      logits: singles([2, 1, 2], 0, 1, 2, 3),
      labels: { ...whole(0, 1), shape: [2, 1] },
    });
    expect(refusal(1, 'loss', '--recipe', 'mpo', file)).toContain("reference: 'mpo' needs");
  });

  test('the gradient of a mixture in a file, with what it is of', () => {
    const file = path.join(folder, 'mpo-gradient.safetensors');
    output('loss', '--recipe', 'mpo', '--out', file);
    const tensors = readSafetensors(file);
    const { gradLogits } = recipe('mpo')(batch);
    expect(tensors.get('gradLogits')?.data).toEqual(gradLogits);
    expect(JSON.parse(tensors.metadata.get('objective') ?? '')).toMatchObject({
      recipe: 'mpo',
      terms: [
        { method: 'dpo', weight: 0.8 },
        { method: 'bco_pair', weight: 0.2 },
        { method: 'sft', weight: 1 },
      ],
    });
  });

  test('methods lists recipes as data, and the fields of each method', () => {
    expect(JSON.parse(output('methods', '--recipes', '--json'))).toEqual(recipes);
    expect(refusal(2, 'methods', 'dpo', '--recipes')).toContain("'dpo' has no place there");
    for (const { name, fields } of methods()) {
      const text = output('methods', name);
      for (const [field, { needed }] of Object.entries(fields)) {
        const [said] =
          new RegExp(`^ +${field} [^;]*; [^;]*?(?=\\n {2}\\w|\\n\\n)`, 'm').exec(text) ?? [];
        expect([name, field, said?.includes('needed')]).toEqual([name, field, needed]);
      }
    }
  });
});
