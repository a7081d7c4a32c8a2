#!/usr/bin/env node
// prebuildify calls `node-gyp rebuild ...`; this answers with the CMake build, so that no Node headers are downloaded.
const config = process.argv.includes('--debug') ? 'Debug' : 'Release';
process.argv.splice(2, Infinity, '--clean', '--config', config);
await import('./build-native.mjs');
