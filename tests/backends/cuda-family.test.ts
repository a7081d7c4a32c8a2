// The reference cases of the wider family on a device: the bounds are those of the CPU.
import { describe, expect, test } from 'vitest';
import { cuda, mixLosses, type tokenLogps } from '../../ts/index.js';
import { objectiveOf } from '../support/batches.js';
import { lossBound, Misses } from '../support/bounds.js';
import { expectDevice } from '../support/expect-device.js';
import { byId, familyCases } from '../support/family.js';
import {
  backwardCall,
  hiddenCall,
  nearElements,
  nearLargest,
  nearLayer,
  nearRows,
  objectiveCall,
  tokensCall,
  ways,
} from '../support/on-device.js';

expectDevice();

describe.runIf(cuda.available).each(ways)('reference cases, $name', ({ compute }) => {
  test.each(byId(familyCases('loss')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const result = compute(batch, objectiveCall(call));
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
    expect(result.backend).toBe('cuda');
  });

  test.each(byId(familyCases('mix')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const mix = mixLosses(
      call.map(({ weight, objective }) => ({ weight, objective: objectiveOf(objective) })),
    );
    const result = compute(batch, mix);
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('fromHidden')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const result = compute(batch, hiddenCall(call));
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearLayer(misses, result, expected);
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('logpsBackward')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
    nearRows(misses, forward.logps, expected.logps);
    nearRows(misses, forward.entropy, expected.entropy);
    for (const known of [{}, { forward }]) {
      const { gradLogits } = compute(batch, backwardCall({ ...call, ...known }));
      nearLargest(misses, 'gradLogits', gradLogits, expected.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('hiddenLogpsBackward')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
    nearRows(misses, forward.logps, expected.logps);
    for (const known of [{}, { forward }])
      nearLayer(misses, compute(batch, backwardCall({ ...call, ...known })), expected);
    expect(misses.list).toEqual([]);
  });
});
