// `npm run study` with experiments of the tests' own.
import { runStudy } from '../../cli.js';
import type { Experiment, Section } from '../../study.js';

const module = new URL('stages.ts', import.meta.url);
const log = process.env.DIRALIGN_TEST_LOG ?? '';

const section = (id: string, data: Section['data']): Section => ({
  id,
  title: id,
  text: [],
  findings: [],
  tables: [],
  charts: [],
  data,
});

const squares: Experiment = {
  id: 'squares',
  title: 'Slow numbers',
  async run(study) {
    const results = await Promise.all(
      [1, 2, 3, 4, 5, 6, 7, 8].map((n) => study.run<number>({ stage: 'slow', params: { n, log } })),
    );
    return section('squares', { scale: study.scale, results });
  },
};

const failing: Experiment = {
  id: 'failing',
  title: 'A stage that throws',
  async run(study) {
    await study.run({ stage: 'throws', params: { n: 4, log } });
    return section('failing', null);
  },
};

process.exitCode = await runStudy(process.argv.slice(2), {
  experiments: () => [squares, failing],
  modules: { slow: module, throws: module },
});
