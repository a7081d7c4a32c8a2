/**
 * Loggers of a training run's numbers: JSON lines, and event files of TensorBoard.
 *
 * @module
 */
export { jsonLinesLogger } from './json-lines.js';
export type { Logger } from './logger.js';
export { tensorBoardLogger } from './tensorboard.js';
