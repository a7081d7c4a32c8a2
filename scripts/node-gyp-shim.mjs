#!/usr/bin/env node
// prebuildify calls `node-gyp rebuild ...`; this answers with the CMake build, so that no Node
// headers are downloaded. What is published compiles without warnings, and has CUDA for every GPU
// where nvcc is found, whichever this machine has.
const config = process.argv.includes('--debug') ? 'Debug' : 'Release';
process.argv.splice(
  2,
  Infinity,
  '--clean',
  '--config',
  config,
  '-D',
  'DIRALIGN_WERROR=ON',
  '-D',
  'DIRALIGN_CUDA=AUTO',
  '--log',
  'build/prebuild.log',
);
await import('./build-native.mjs');
