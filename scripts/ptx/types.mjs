// The types of PTX in C++: registers are unsigned integers of their width and predicates are bool;
// an instruction's type says how it reads them.

export const wordTypes = { 8: 'uint8_t', 16: 'uint16_t', 32: 'uint32_t', 64: 'uint64_t' };
const signedTypes = { 8: 'int8_t', 16: 'int16_t', 32: 'int32_t', 64: 'int64_t' };

export const bitsOf = (type) => Number(/\d+$/.exec(type)[0]);

/** The C++ type in which an instruction of this PTX type computes. */
export function typeOf(type) {
  if (type === 'pred') return 'bool';
  if (type === 'f32') return 'float';
  if (type === 'f64') return 'double';
  return (type.startsWith('s') ? signedTypes : wordTypes)[bitsOf(type)];
}
/** The unsigned type of the same width. */
export const unsigned = (type) => type.replace(/^[sb]/, 'u');
