// What the fixtures of reference cases are packed with.
import fs from 'node:fs';
import { brotliCompressSync, constants } from 'node:zlib';

const largestFile = 1_500_000;

/**
 * First bytes of all elements, then second bytes, ...: signs and exponents are then neighbours, and
 * compress.
 */
export function byPlanes(data, size) {
  const count = data.length / size;
  const planes = Buffer.alloc(data.length);
  for (let i = 0; i < count; i++)
    for (let b = 0; b < size; b++) planes[b * count + i] = data[i * size + b];
  return planes;
}

export function writePacked(file, data) {
  const packed = brotliCompressSync(data, {
    params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: data.length },
  });
  if (packed.length > largestFile) throw new Error(`${file}: ${packed.length} bytes`);
  fs.writeFileSync(file, packed);
  console.log(`${file}: ${packed.length} bytes`);
}
