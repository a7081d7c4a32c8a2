/**
 * An ONNX model (a protocol-buffers message) of the log-probability of each row's label:
 * logps[n, 1] = GatherElements(LogSoftmax(logits[n, v], axis 1), labels[n, 1], axis 1).
 * Field numbers are those of onnx.proto, which is stable.
 */
export function onnxLogProbabilities(): Uint8Array {
  const axis1 = message(text(1, 'axis'), integer(3, 1), integer(20, 2));
  const node = (type: string, inputs: readonly string[], output: string): Uint8Array =>
    message(
      ...inputs.map((input) => text(1, input)),
      text(2, output),
      text(4, type),
      nested(5, axis1),
    );
  const float = 1;
  const int64 = 7;
  const value = (
    name: string,
    type: number,
    dimensions: readonly (string | number)[],
  ): Uint8Array => {
    const shape = message(
      ...dimensions.map((d) =>
        nested(1, typeof d === 'string' ? message(text(2, d)) : message(integer(1, d))),
      ),
    );
    return message(
      text(1, name),
      nested(2, message(nested(1, message(integer(1, type), nested(2, shape))))),
    );
  };
  const graph = message(
    nested(1, node('LogSoftmax', ['logits'], 'all')),
    nested(1, node('GatherElements', ['all', 'labels'], 'logps')),
    text(2, 'label_log_probabilities'),
    nested(11, value('logits', float, ['n', 'v'])),
    nested(11, value('labels', int64, ['n', 1])),
    nested(12, value('logps', float, ['n', 1])),
  );
  const opset13 = message(text(1, ''), integer(2, 13));
  const irVersion = 8;
  return message(integer(1, irVersion), nested(7, graph), nested(8, opset13));
}

/** A message of its encoded fields. */
export function message(...fields: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(fields);
}

/** A varint: seven bits a byte, lowest first, the high bit set on all but the last. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return Uint8Array.from([...bytes, value]);
}

/** A field that is a whole number. */
export function integer(field: number, value: number): Uint8Array {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

/** A field that is bytes or a message. */
export function nested(field: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([varint(field * 8 + 2), varint(bytes.length), bytes]);
}

/** A field that is text. */
export function text(field: number, value: string): Uint8Array {
  return nested(field, Buffer.from(value));
}
