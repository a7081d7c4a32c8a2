import { runStudy } from './cli.js';
import { experiments } from './experiments.js';
import { stageModules } from './stages.js';

process.exitCode = await runStudy(process.argv.slice(2), { experiments, modules: stageModules });
