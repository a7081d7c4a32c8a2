// Stages that are quick, slow, wrong or fatal, for tests of the study's runner. Each computation
// leaves a line in a log.
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Stage, StageContext } from '../../study.js';

export interface StageParams {
  readonly [key: string]: string | number;
  /** File that computations are logged to. */
  readonly log: string;
  readonly n: number;
}

const logged =
  (
    name: string,
    stage: (params: StageParams, context: StageContext) => unknown,
  ): Stage<StageParams> =>
  async (params, context) => {
    fs.appendFileSync(params.log, `${name} ${params.n} begins\n`);
    const result = await stage(params, context);
    fs.appendFileSync(params.log, `${name} ${params.n} ends\n`);
    return result;
  };

export const stages = {
  square: logged('square', ({ n }) => ({ square: n * n })),
  /** Takes 0.4 s. */
  slow: logged('slow', async ({ n }, context) => {
    context.progress(0.5);
    await sleep(400);
    return n;
  }),
  /** Ends when a file appears beside the log. */
  patient: logged('patient', async ({ n, log }) => {
    while (!fs.existsSync(path.join(path.dirname(log), 'go'))) await sleep(20);
    return n;
  }),
  keeps: logged('keeps', ({ n }, context) => {
    fs.writeFileSync(path.join(context.directory, 'kept.txt'), `kept ${n}`);
    return fs.readdirSync(context.directory);
  }),
  reads: logged('reads', ({ n, log }, context) =>
    fs.readFileSync(
      path.join(context.directoryOf({ stage: 'keeps', params: { log, n } }), 'kept.txt'),
      'utf8',
    ),
  ),
  throws: logged('throws', ({ n }) => {
    throw new RangeError(`no luck with ${n}`);
  }),
  dies: logged('dies', () => {
    fs.writeSync(2, 'last words\n');
    process.exit(7);
  }),
  nothing: logged('nothing', () => undefined),
};
