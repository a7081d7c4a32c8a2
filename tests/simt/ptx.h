// What PTX instructions compute: the run time of kernels that scripts/ptx translates from nvcc's
// PTX to C++.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <span>
#include "platform.cuh"

namespace ptx {

/// A parameter of a kernel, passed as the host passes its struct: by value, in memory.
template <size_t size, size_t alignment>
struct alignas(alignment) Parameter {
  static_assert(size > 16, "a shorter one would be passed in registers");
  char bytes[size];
};

/// Appends the kernel's name to the file that DIRALIGN_PTX_RAN names: what a test really ran.
inline bool entered(const char* kernel) {
  const char* const path = std::getenv("DIRALIGN_PTX_RAN");
  std::FILE* const file = path ? std::fopen(path, "a") : nullptr;
  if (!file) return false;
  std::fprintf(file, "%s\n", kernel);
  return std::fclose(file) == 0;
}
inline bool is_mutant(const char* name) {
  const char* const wanted = std::getenv("DIRALIGN_PTX_MUTANT");
  return wanted && !std::strcmp(wanted, name);
}

// Registers hold bits.

template <class To, class From>
To as(From bits) {
  return std::bit_cast<To>(bits);
}
template <class T>
T bits(T x) {
  static_assert(std::is_integral_v<T>);
  return x;
}
inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
inline uint64_t bits(double x) { return std::bit_cast<uint64_t>(x); }

// Memory. Generic addresses are the host's. Variables in shared memory have windows of 32-bit
// addresses, in the order of their declaration; 0 is in none.

inline char* pointer(uint64_t address) { return reinterpret_cast<char*>(uintptr_t(address)); }

struct SharedVariable {
  uint32_t size, alignment;
};
constexpr uint64_t shared_window = 1u << 20;
static_assert(shared_window > simt::max_shared_memory);
/// The size of dynamic shared memory: the launch's, of which the translation knows nothing.
constexpr uint32_t dynamic = uint32_t(simt::max_shared_memory);

inline char* data_of(const SharedVariable& variable, const char* file, int line) {
  if (variable.size == dynamic) return static_cast<char*>(simt::dynamic_shared());
  return static_cast<char*>(
      simt::static_shared(&variable, variable.size, variable.alignment, file, line));
}
using SharedVariables = std::span<const SharedVariable>;
inline char* shared(SharedVariables variables, uint64_t address, uint32_t bytes, SIMT_SITE) {
  const uint64_t window = address / shared_window, offset = address % shared_window;
  if (window == 0 || window > variables.size() || offset + bytes > variables[window - 1].size) {
    simt::fail(file, line, "an access of %u bytes outside the variables in shared memory", bytes);
  }
  return data_of(variables[window - 1], file, line) + offset;
}
inline uint64_t to_shared(SharedVariables variables, uint64_t generic, SIMT_SITE) {
  for (size_t k = 0; k < variables.size(); k++) {
    if (variables[k].size == 0) continue;
    const char* const data = data_of(variables[k], file, line);
    const uint64_t offset = generic - reinterpret_cast<uintptr_t>(data);
    if (offset < variables[k].size) return (k + 1) * shared_window + offset;
  }
  simt::fail(file, line, "an address that is not in shared memory is taken for one");
}

/// An address in the shared memory of a block of the cluster: the block is above the window.
constexpr uint32_t most_windows = 64;
inline uint32_t cluster_address(uint32_t own, uint32_t block) {
  return uint32_t(own % (most_windows * shared_window) +
                  (block + 1) * most_windows * shared_window);
}
static_assert(17 * most_windows * shared_window < uint64_t(1) << 32);
inline char* in_cluster(SharedVariables variables, uint64_t address, uint32_t bytes, SIMT_SITE) {
  const uint64_t block = address / (most_windows * shared_window);
  if (block == 0)
    simt::fail(file, line, "an address in shared memory is taken for one of the cluster");
  char* const own = shared(variables, address % (most_windows * shared_window), bytes, file, line);
  return static_cast<char*>(simt::in_block_of_cluster(own, uint32_t(block - 1), file, line));
}
inline bool try_wait(simt::Mbarrier* box, uint32_t parity, SIMT_SITE) {
  if (simt::mbarrier_test_wait(box, parity, file, line)) return true;
  simt::yield(file, line);
  return false;
}

template <uint32_t bytes>
char* check_alignment(char* address, SIMT_SITE) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) {
    simt::fail(file, line, "an access of %u bytes at a misaligned address", bytes);
  }
  return address;
}
template <class T>
T* aligned(char* address, SIMT_SITE) {
  return reinterpret_cast<T*>(check_alignment<sizeof(T)>(address, file, line));
}
template <class T>
T get(const char* address, int i) {
  T value;
  std::memcpy(&value, address + i * int(sizeof(T)), sizeof(T));
  return value;
}
template <class T>
void put(char* address, int i, std::type_identity_t<T> value) {
  std::memcpy(address + i * int(sizeof(T)), &value, sizeof(T));
}

// Lanes.

enum Shuffle { up, down, bfly, idx };
struct Shuffled {
  uint32_t value;
  bool in_range;
};
/// `clamp` has the last lane of a segment in its low five bits and the bits of a lane that name its
/// segment from bit 8 on.
template <Shuffle mode>
Shuffled shuffle(uint32_t value, uint32_t by, uint32_t clamp, uint32_t mask, SIMT_SITE) {
  const uint32_t lane = simt::self->lane, segment = clamp >> 8 & 31u, step = by & 31u;
  const uint32_t first = lane & segment, last = first | (clamp & ~segment & 31u);
  uint32_t source = lane ^ step;
  if (mode == up) source = lane - step;
  if (mode == down) source = lane + step;
  if (mode == idx) source = first | (step & ~segment);
  // Upwards, `clamp` is the first lane; the difference may be negative.
  const bool in_range = mode == up ? int(source) >= int(last) : source <= last;
  return {simt::shuffle(mask, value, in_range ? source : lane, file, line), in_range};
}

// Integers.

enum Part { lo, hi, wide };
template <Part part, class T>
auto product(T x, T y) {
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  constexpr int width = 8 * sizeof(T);
  const Wide all = Wide(x) * Wide(y);
  using Half = std::make_unsigned_t<T>;
  using Whole = std::conditional_t<width == 16, uint32_t, uint64_t>;
  if constexpr (part == lo) return Half(all);
  else if constexpr (part == hi) return Half(all >> width);
  else return Whole(all);
}
/// Shifts by the width or more leave nothing, or the sign.
template <class T>
T left(T x, uint32_t by) {
  return by >= 8 * sizeof(T) ? T(0) : T(uint64_t(x) << by);
}
template <class T>
T right(T x, uint32_t by) {
  constexpr uint32_t width = 8 * sizeof(T);
  if (by < width) return T(x >> by);
  return std::is_signed_v<T> && x < 0 ? T(-1) : T(0);
}

// Floating point.

template <class T>
bool unordered(T x, T y) {
  return x != x || y != y;
}
/// A number, where there is one; +0 is more than -0.
template <class T>
T maximum(T x, T y) {
  if constexpr (std::is_floating_point_v<T>) {
    if (x != x && y != y) return std::numeric_limits<T>::quiet_NaN();
    if (x != x) return y;
    if (x == y) return std::signbit(x) ? y : x;
  }
  return y != y || x > y ? x : y;
}
template <class T>
T minimum(T x, T y) {
  if constexpr (std::is_floating_point_v<T>) return -maximum(-x, -y);
  return x < y ? x : y;
}
template <class T>
T negated(T x) {
  return -x;
}
template <class T>
T magnitude(T x) {
  return std::fabs(x);
}
/// NaN is 0, and what is too large for the type is its nearest number.
template <class T, class F>
T to_integer(F x) {
  using Limits = std::numeric_limits<T>;
  if (x != x) return 0;
  if (x <= F(Limits::min())) return Limits::min();
  return x >= F(Limits::max()) ? Limits::max() : T(x);
}
/// A start for Newton's method, in nvcc's divisions and logarithms: it sees the high word of the
/// argument only, and gives that of the result.
inline double reciprocal_of_high_word(double x) {
  constexpr uint64_t high = 0xffffffff00000000u;
  constexpr double least = std::numeric_limits<double>::min();
  const double y = 1 / std::bit_cast<double>(std::bit_cast<uint64_t>(x) & high);
  if (std::fabs(x) < least) return std::copysign(std::numeric_limits<double>::infinity(), x);
  if (std::fabs(y) < least) return std::copysign(0.0, y);
  return std::bit_cast<double>(std::bit_cast<uint64_t>(y) & high);
}
inline float exp2_approx_ftz(float x) {
  return diralign::cuda::exp2_approx(std::fabs(x) < std::numeric_limits<float>::min() ? 0.0f : x);
}

using f16 = diralign::cuda::Float16;
using bf16 = diralign::cuda::Bfloat16;
template <class Half>
uint16_t from_float(float x) {
  return diralign::cuda::from_float<Half>(x).bits;
}
template <class Half>
float to_float(uint16_t bits) {
  return diralign::cuda::to_float(Half{bits});
}
/// Half by half of two registers. Where one of the two is NaN, the result is NaN if `nan_wins`.
template <class Half, bool nan_wins>
uint32_t each_half(float (*operation)(float, float), uint32_t x, uint32_t y) {
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const float a = to_float<Half>(uint16_t(x >> shift)), b = to_float<Half>(uint16_t(y >> shift));
    const float z = operation(a, b);
    const bool is_nan = z != z || (nan_wins && unordered(a, b));
    result |= uint32_t(is_nan ? uint16_t(0x7fff) : from_float<Half>(z)) << shift;
  }
  return result;
}

}  // namespace ptx
