/**
 * TensorBoard's event files: records with checksums (TFRecord), each the protobuf message
 * `tensorflow.Event`, written by hand.
 */

/** CRC-32C (Castagnoli), one byte at a time: the reversed polynomial 0x82f63b78. */
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (table[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** As TFRecord stores it, so that a checksum of data with checksums in it is no weaker. */
function masked(bytes: Uint8Array): Buffer {
  const crc = crc32c(bytes);
  const result = Buffer.alloc(4);
  result.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return result;
}

/** Length, its checksum, data, its checksum. */
function record(data: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, masked(length), data, masked(data)]);
}

// Fields of protobuf: the number of the field and the kind of its value (0 a varint, 1 eight bytes,
// 2 a length and bytes, 5 four bytes).

/** Seven bits a byte, the lowest first. Without shifts, which end at 32 bits. */
function varint(n: number): Buffer {
  const bytes: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  return Buffer.from([...bytes, n]);
}
const key = (field: number, kind: number): Buffer => varint(field * 8 + kind);
const integer = (field: number, n: number): Buffer => Buffer.concat([key(field, 0), varint(n)]);
const bytes = (field: number, value: Buffer): Buffer =>
  Buffer.concat([key(field, 2), varint(value.length), value]);
const string = (field: number, text: string): Buffer => bytes(field, Buffer.from(text));
function float(field: number, x: number): Buffer {
  const value = Buffer.alloc(4);
  value.writeFloatLE(x);
  return Buffer.concat([key(field, 5), value]);
}
function double(field: number, x: number): Buffer {
  const value = Buffer.alloc(8);
  value.writeDoubleLE(x);
  return Buffer.concat([key(field, 1), value]);
}

/** The first record of a file. `time`: seconds since 1970. */
export function versionRecord(time: number): Buffer {
  return record(Buffer.concat([double(1, time), string(3, 'brain.Event:2')]));
}

/** The scalars of a step, in float32. */
export function scalarsRecord(
  time: number,
  step: number,
  values: readonly (readonly [string, number])[],
): Buffer {
  const summary = values.map(([name, value]) =>
    bytes(1, Buffer.concat([string(1, name), float(2, value)])),
  );
  return record(
    Buffer.concat([double(1, time), integer(2, step), bytes(5, Buffer.concat(summary))]),
  );
}
