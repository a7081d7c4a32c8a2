// The reference cases on the CUDA backend, on data on the device: the bounds are those of the CPU.
// Host arrays have a suite of their own.
import { describe } from 'vitest';
import { cuda } from '../../ts/index.js';
import { onDevice } from '../support/calls.js';
import { expectDevice } from '../support/expect-device.js';
import { everyCase } from '../support/vector-suite.js';
import { ways, type Way } from '../support/vector-ways.js';

expectDevice();

// An element costs a thousand times as much on the emulation: a case takes one of these in turn.
const others = ways.filter((way) => way !== 'fresh' && way !== 'factored');

describe.runIf(cuda.available)('on the device', () => {
  everyCase({ name: 'cuda', prepare: onDevice() }, (turn) => [
    'fresh',
    others[turn % others.length] as Way,
    'factored',
  ]);
});
