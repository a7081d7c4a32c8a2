// What the loss kernel is made of, piece by piece: exponentials, loads and stores of parts of rows
// at every alignment, the sort, the sums of sequences. The pieces are compiled in a namespace of
// their own, with vector accesses that know the bounds of a row to the byte.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <vector>
#include "check.h"
#include "simt.h"

namespace {

/// What vector accesses may touch. Not of the thread: the device has one of its own.
struct Bounds {
  const char *begin, *end;
  bool contain(const void* address) const {
    return static_cast<const char*>(address) >= begin &&
           static_cast<const char*>(address) + 16 <= end;
  }
};
Bounds readable{}, writable{};

}  // namespace

#define cuda cuda_in_pieces
#include "platform.cuh"
namespace diralign::cuda {
inline uint4 checked_load16(const void* address, bool last_use) {
  CHECK(readable.contain(address), "a vector is read outside of the row");
  return load16(address, last_use);
}
inline void checked_copy16(void* shared, const void* global) {
  CHECK(readable.contain(global), "a vector is copied from outside of the row");
  copy16(shared, global);
}
inline void checked_store16(void* address, uint4 value) {
  CHECK(writable.contain(address), "a vector is written outside of the row");
  store16(address, value);
}
}  // namespace diralign::cuda
#define load16 checked_load16
#define store16 checked_store16
#define copy16 checked_copy16
#include "copied_part.cuh"
#include "unit_stage.cuh"

using namespace diralign;
using namespace diralign::cuda;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(),
                nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr uint32_t count_samples(uint32_t plain, uint32_t slow, uint32_t with_tsan) {
  return check::thin ? with_tsan : check::slow ? slow : plain;
}

/// Runs `body()` in each thread of one block, to the end.
template <class Body>
__global__ void call(Body body) {
  body();
}
template <class Body>
void run_block(Body body) {
  CHECK(launch_kernel(call<Body>, dim3(1), dim3(threads), nullptr, body) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

uint32_t bits_of(float x) { return float_to_bits(x); }
uint32_t bits_of(Float16 x) { return x.bits; }
uint32_t bits_of(Bfloat16 x) { return x.bits; }

/// A row of T, `offset` elements past a multiple of 64 bytes, between bytes that must stay as they
/// are.
template <class T>
struct Row {
  static constexpr size_t guard = 64;
  uint32_t vocab;
  size_t start, bytes;
  char* memory;

  Row(uint32_t vocab, uint32_t offset)
      : vocab(vocab),
        start(guard + offset * sizeof(T)),
        bytes(start + vocab * sizeof(T) + guard),
        memory(static_cast<char*>(::operator new(bytes, std::align_val_t(64)))) {
    std::fill(memory, memory + bytes, char(0x5a));
  }
  ~Row() { ::operator delete(memory, std::align_val_t(64)); }
  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;
  T* data() const { return reinterpret_cast<T*>(memory + start); }
  Bounds bounds() const { return {memory + start, memory + start + vocab * sizeof(T)}; }
  bool guards_intact() const {
    const auto intact = [](char byte) { return byte == 0x5a; };
    return std::all_of(memory, memory + start, intact) &&
           std::all_of(memory + start + vocab * sizeof(T), memory + bytes, intact);
  }
};

template <class T>
void fill_with_logits(const Row<T>& row, uint64_t seed) {
  check::Random random(seed);
  for (uint32_t i = 0; i < row.vocab; i++)
    row.data()[i] = from_float<T>(float(3 * random.normal()));
}

/// Around the borders of vectors, of the vectors of all threads, and of parts.
template <class T>
std::vector<uint32_t> vocabularies() {
  constexpr uint32_t n = lanes<T>, all = stride<T>, part = all * max_steps;
  std::vector<uint32_t> v = {1,         2,           n - 1,           n,       n + 1,
                             3 * n + 1, 32 * n - 1,  32 * n,          all - 1, all,
                             all + 1,   all + n + 1, 2 * all + n - 1, 3 * all, 5 * all - n + 1};
  if (!check::thin)
    v.insert(v.end(), {part - n, part - 1, part, part + 1, part + n + 1, 2 * part - 1, 2 * part,
                       2 * part + all + 3});
  return v;
}

/// Calls `test(T{})` for every type.
template <class Test>
void for_types(Test&& test) {
  test(float{});
  test(Float16{});
  test(Bfloat16{});
}

}  // namespace

TEST(parts_exp_accurate) {
  const uint32_t step = count_samples(23, 331, 3301);
  double worst = 0;
  for (uint32_t bits = 0x80000000u; bits <= 0xc2ae0000u; bits += step) {  // 0 to -87
    const float x = bits_to_float(bits), y = exp_accurate(x);
    const double exact = std::exp(double(x));
    if (x < -86.6f) {
      CHECK(y == 0, "exp(%.9g) = %g", double(x), double(y));
      continue;
    }
    const double unit = std::ldexp(1.0, std::ilogb(exact) - 23),
                 error = std::fabs(double(y) - exact) / unit;
    if (error > worst) worst = error;
    CHECK(error <= 1.5, "exp(%a) is off by %g units in the last place", double(x), error);
  }
  CHECK(worst > 0.5, "%g: the samples tell nothing", worst);
  CHECK(exp_accurate(0) == 1 && exp_accurate(-0.0f) == 1 && exp_accurate(-infinity) == 0 &&
        exp_accurate(-FLT_MAX) == 0 && std::isnan(exp_accurate(nan_value)));
}

TEST(parts_exp2_approx) {
  // The emulation is to be as wrong as the hardware may be, and no more.
  const double bound = std::exp2(-22.5);
  double worst = 0;
  const uint32_t step = count_samples(101, 1009, 10007);
  for (uint32_t bits = 0x80000000u; bits <= 0xc3160000u; bits += step) {  // 0 to -150
    const float x = bits_to_float(bits), y = exp2_approx(x);
    const double exact = std::exp2(double(x));
    if (exact < double(FLT_MIN)) {
      CHECK(y == 0 || double(y) <= double(FLT_MIN), "2^%.9g = %g", double(x), double(y));
      continue;
    }
    const double error = std::fabs(double(y) / exact - 1);
    if (y != 0) worst = std::max(worst, error);
    CHECK(error <= bound || (y == 0 && exact < 1.0001 * double(FLT_MIN)), "2^%a is off by %g",
          double(x), error);
  }
  CHECK(worst > std::exp2(-22.6), "%g: as good as exact", worst);
  CHECK(exp2_approx(0) == 1 && exp2_approx(-infinity) == 0 && std::isnan(exp2_approx(nan_value)));
}

TEST(parts_max_of) {
  // Pairs of 16 bits are compared as they are, and must come to what float32 comes to: a NaN is
  // passed over wherever it is.
  for_types([](auto type) {
    using T = decltype(type);
    constexpr uint32_t n = lanes<T>;
    const float values[] = {0,      -0.0f, 1,      -1,       3.5f,      -256,     65504,
                            -65504, 6e-5f, -6e-8f, infinity, -infinity, nan_value};
    check::Random random(3);
    for (int i = 0; i < 2000; i++) {
      const uint32_t count = uint32_t(random.below(max_steps)) + 1,
                     kinds = i % 3 == 0 ? 13 : uint32_t(random.below(13)) + 1;
      uint4 data[max_steps];
      float expected = -FLT_MAX;
      for (uint32_t k = 0; k < max_steps; k++) {
        float x[n];
        for (float& each : x) {
          each = to_float(from_float<T>(values[12 - random.below(kinds)]));
          if (k < count && each > expected) expected = each;
        }
        data[k] = pack<T>(x);
      }
      CHECK(max_of<T>(count, data) == expected, "%u vectors: %g, not %g", count,
            double(max_of<T>(count, data)), double(expected));
    }
  });
}

TEST(parts_cut_row) {
  check::Random random(1);
  auto check_cut = [](uint32_t vocab, uint32_t element) {
    const RowCut cut = cut_row(vocab, element);
    const uint64_t step = threads * 16 / element, part = cut.steps * step, most = max_steps * step;
    CHECK(cut.parts >= 1 && cut.steps >= 1 && cut.steps <= max_steps, "V %u", vocab);
    CHECK(cut.parts * part >= vocab, "V %u: %u parts of %u steps leave a rest", vocab, cut.parts,
          cut.steps);
    CHECK((cut.parts - 1) * part < vocab, "V %u: %u parts of %u steps, one of them empty", vocab,
          cut.parts, cut.steps);
    CHECK(cut.parts == (vocab + most - 1) / most, "V %u: %u parts", vocab, cut.parts);
  };
  for (uint32_t element : {2u, 4u}) {
    for (uint32_t vocab = 1; vocab <= count_samples(300000, 70000, 70000); vocab++)
      check_cut(vocab, element);
    for (int i = 0; i < 20000; i++) check_cut(uint32_t(random.below(1 << 24)) + 1, element);
  }
}

// A part that reaches across a line of the grid, or depends on how many columns there are, would
// give the sums of a cell other bits on another number of ranks.
TEST(parts_cut_row_by_a_grid) {
  for (const uint32_t element : {2u, 4u}) {
    const uint32_t step = threads * 16 / element;
    for (const uint32_t cell : {1u, 2u, 7u, 8u, 9u, 11u, 12u, 64u}) {
      const uint32_t grid = cell * step, steps = cut_row(1, element, grid).steps;
      CHECK(steps >= 1 && steps <= max_steps && cell % steps == 0, "%u of %u steps", steps, cell);
      for (const uint32_t vocab : {1u, grid - 1, grid, grid + 1, 5 * grid + 3}) {
        const RowCut cut = cut_row(vocab, element, grid);
        CHECK(cut.steps == steps, "%u columns: %u steps, not %u", vocab, cut.steps, steps);
        const uint64_t columns = uint64_t(cut.columns(element));
        CHECK(columns == uint64_t(steps) * step && cut.parts * columns >= vocab &&
                  (cut.parts - 1) * columns < vocab,
              "%u columns in %u parts", vocab, cut.parts);
      }
    }
  }
}

TEST(parts_load_vectors) {
  for_types([](auto type) {
    using T = decltype(type);
    constexpr uint32_t n = lanes<T>;
    const float minus_infinity = -infinity;
    for (uint32_t vocab : vocabularies<T>()) {
      const RowCut cut = cut_row(vocab, sizeof(T));
      for (uint32_t offset = 0; offset < n; offset++) {
        if (vocab > 3 * stride<T> && offset % count_samples(1, 2, 5) != 0) continue;
        const Row<T> row(vocab, offset);
        fill_with_logits(row, vocab);
        readable = row.bounds();
        std::vector<uint32_t> labels = {0, vocab - 1, vocab / 2, std::min(vocab - 1, n - 1)};
        std::vector<int> found(labels.size(), 0);
        uint64_t wrong = 0;
        for (uint32_t part = 0; part < cut.parts; part++) {
          struct Vectors {
            uint4 of[threads][max_steps];
          };
          const auto vectors = std::make_unique<Vectors>();
          run_block([in = row.data(), vocab, part, steps = cut.steps, to = vectors.get()] {
            uint4 data[max_steps];
            std::fill(std::begin(data), std::end(data), uint4{1, 2, 3, 4});
            load_vectors(static_cast<const T*>(in), vocab,
                         (part * steps * threads + threadIdx.x) * n, steps, part % 2 == 0, data);
            std::copy(std::begin(data), std::end(data), to->of[threadIdx.x]);
          });
          for (uint32_t t = 0; t < threads; t++) {
            const uint32_t e = (part * cut.steps * threads + t) * n;
            const auto& data = vectors->of[t];
            for (uint32_t k = 0; k < max_steps; k++) {
              float x[n];
              unpack<T>(data[k], x);
              for (uint32_t j = 0; j < n; j++) {
                const uint32_t element = e + k * stride<T> + j;
                const float expected = k < cut.steps && element < vocab
                                           ? to_float(row.data()[element])
                                           : minus_infinity;
                wrong += !check::same_bits(x[j], expected);
              }
            }
            for (size_t i = 0; i < labels.size(); i++) {
              uint4 copy[max_steps];
              std::copy(std::begin(data), std::end(data), std::begin(copy));
              float value = 12345;
              const bool here = find_element<T>(labels[i], e, cut.steps, copy, i % 2 == 0, value);
              const uint32_t distance = labels[i] - e, k = distance / stride<T>;
              CHECK(here == (labels[i] >= e && k < cut.steps && distance % stride<T> < n),
                    "V %u label %u thread %u", vocab, labels[i], t);
              if (!here) {
                wrong += std::memcmp(copy, data, sizeof data) != 0;
                continue;
              }
              found[i]++;
              CHECK(value == to_float(row.data()[labels[i]]), "V %u label %u: %g", vocab, labels[i],
                    double(value));
              // Only that element is gone, where it was to go.
              for (uint32_t m = 0; m < max_steps; m++) {
                float x[n], before[n];
                unpack<T>(copy[m], x);
                unpack<T>(data[m], before);
                for (uint32_t j = 0; j < n; j++)
                  wrong +=
                      x[j] != (i % 2 == 0 && m == k && j == distance % stride<T> ? minus_infinity
                                                                                 : before[j]);
              }
            }
          }
        }
        CHECK(wrong == 0, "%u bytes each, V %u at %u: %llu elements are wrong", unsigned(sizeof(T)),
              vocab, offset, (unsigned long long)wrong);
        CHECK(std::all_of(found.begin(), found.end(), [](int times) { return times == 1; }),
              "V %u at %u: a label is not found once", vocab, offset);
        CHECK(row.guards_intact());
      }
    }
  });
}

TEST(parts_write) {
  for_types([](auto type) {
    using T = decltype(type);
    constexpr uint32_t n = lanes<T>;
    const LogitTransform transforms[] = {{}, {1.5, 0, 2}, {1, 3, 0.5}};
    size_t turn = 0;
    for (uint32_t vocab : vocabularies<T>()) {
      const RowCut cut = cut_row(vocab, sizeof(T));
      const LogitTransform transform = transforms[turn++ % 3];
      const TransformFactors factors = factors_of(transform);
      const bool transforms_row = !transform.is_identity();
      const RowGradient g{false,
                          false,
                          4.5f,
                          -0.37f,
                          transforms_row ? 0.11f : 0,
                          int32_t(vocab / 3),
                          vocab > 1 ? int32_t(vocab - 1) : -1,
                          0.625f,
                          -0.125f};
      std::vector<uint32_t> first;
      for (uint32_t from = 0; from < n; from++) {
        for (uint32_t to = 0; to < n; to++) {
          if (vocab > 2 * stride<T> && (from + 3 * to) % count_samples(3, 7, 17) != 0) continue;
          const bool in_place = from == to && to % 2 == 1;
          const Row<T> input(vocab, from), separate(vocab, to);
          const Row<T>& output = in_place ? input : separate;
          fill_with_logits(input, vocab);
          std::vector<float> logits;
          for (uint32_t v = 0; v < vocab; v++) logits.push_back(to_float(input.data()[v]));
          readable = input.bounds();
          writable = output.bounds();
          T *out = output.data(), *in = input.data();
          run_block([=] {
            for (uint32_t part = 0; part < cut.parts; part++) {
              __syncthreads();
              if (transforms_row)
                write_part(Transforming{factors, transform}, out, static_cast<const T*>(in), vocab,
                           part, cut, g, [] {});
              else
                write_part(Untransformed{}, out, static_cast<const T*>(in), vocab, part, cut, g,
                           [] {});
            }
          });
          CHECK(input.guards_intact() && separate.guards_intact(),
                "V %u from %u to %u: wrote outside of the row", vocab, from, to);
          std::vector<uint32_t> bits;
          for (uint32_t v = 0; v < vocab; v++) bits.push_back(bits_of(out[v]));
          if (first.empty()) {
            first = bits;
            for (uint32_t v = 0; v < vocab; v++) {
              const double x = double(logits[v]), d = transform.value(x) - double(g.shift),
                           slope = transform.slope(x), bent = double(g.bend) * d,
                           e = std::exp(d) * slope;
              const double exact = int32_t(v) == g.label          ? double(g.label_value) * slope
                                   : int32_t(v) == g.second_label ? double(g.second_value) * slope
                                                                  : (double(g.factor) + bent) * e;
              // What may cancel, and a float32 logit before the exponential.
              const double slack = transforms_row ? 1e-5 * (std::fabs(bent) + 0.37) * e : 0;
              const int digits = sizeof(T) == 4 ? 24 : std::is_same_v<T, Float16> ? 11 : 8;
              const double unit = std::ldexp(
                  1.0, std::max(std::ilogb(exact), std::is_same_v<T, Float16> ? -14 : -126) -
                           digits + 1);
              CHECK(std::fabs(double(to_float(out[v])) - exact) <=
                        2e-6 * std::fabs(exact) + slack + 0.51 * unit,
                    "V %u column %u: %g, not %g", vocab, v, double(to_float(out[v])), exact);
            }
          }
          CHECK(bits == first, "V %u from %u to %u: other bits", vocab, from, to);

          if (from == 0 && to == 0 && !transforms_row) {
            fill_with_logits(input, vocab);
            run_block([=] {
              for (uint32_t part = 0; part < cut.parts; part++) {
                __syncthreads();
                const uint32_t e = (part * cut.steps * threads + threadIdx.x) * n;
                uint4 data[max_steps];
                load_vectors(static_cast<const T*>(in), vocab, e, cut.steps, true, data);
                write_loaded(out, vocab, e, cut.steps, data, g);
              }
            });
            bits.clear();
            for (uint32_t v = 0; v < vocab; v++) bits.push_back(bits_of(out[v]));
            // The label's entries are the caller's to correct where the vector is the last,
            // unfinished one, or not: both are written.
            CHECK(bits == first, "V %u from registers: other bits", vocab);
            CHECK(separate.guards_intact());
          }

          run_block([=] {
            for (uint32_t part = 0; part < cut.parts; part++) zero_part(out, vocab, part, cut);
          });
          CHECK(output.guards_intact() &&
                    std::all_of(out, out + vocab, [](T x) { return bits_of(x) == 0; }),
                "V %u at %u: not all zeros", vocab, to);
        }
      }
    }
  });
}

// A copy that misses an end of the row, or a vector shifted by the words of another alignment,
// would change sums; one that is stored a vector aside would write a neighbour's gradient.
TEST(parts_copied) {
  for_types([](auto type) {
    using T = decltype(type);
    constexpr uint32_t n = lanes<T>;
    for (uint32_t vocab : vocabularies<T>()) {
      const RowCut cut = cut_row(vocab, sizeof(T));
      const RowGradient g{false, false, 4.5f, -0.37f, 0, int32_t(vocab / 3), -1, 0.625f, 0};
      for (uint32_t offset = 0; offset < n; offset++) {
        if (vocab > 3 * stride<T> && offset % count_samples(1, 2, 5) != 0) continue;
        const Row<T> row(vocab, offset), written(vocab, offset), expected(vocab, offset);
        fill_with_logits(row, vocab);
        readable = row.bounds();
        writable = written.bounds();
        const T* const in = row.data();
        uint64_t wrong = 0;
        for (uint32_t part = 0; part < cut.parts; part++) {
          struct Vectors {
            uint4 of[threads][max_steps];
          };
          const auto vectors = std::make_unique<Vectors>();
          run_block([=, out = written.data(), to = vectors.get()] {
            using Copy = uint4[copied_vectors];
            CUDA_SHARED(Copy, copy);
            copy_part(in, vocab, part * cut.steps * stride<T>, cut.steps, copy);
            await_copies();
            __syncthreads();
            uint4 data[max_steps];
            read_part<T>(copy, misalignment(in), data);
            std::copy(std::begin(data), std::end(data), to->of[threadIdx.x]);
            write_copied(out, vocab, part, cut, copy, g);
          });
          for (uint32_t t = 0; t < threads; t++) {
            for (uint32_t k = 0; k < cut.steps; k++) {
              float x[n];
              unpack<T>(vectors->of[t][k], x);
              for (uint32_t j = 0; j < n; j++) {
                const uint32_t element = (part * cut.steps * threads + t) * n + k * stride<T> + j;
                const float of_row = element < vocab ? to_float(in[element]) : -infinity;
                wrong += !check::same_bits(x[j], of_row);
              }
            }
          }
        }
        CHECK(wrong == 0, "%u bytes each, V %u at %u: %llu elements are wrong", unsigned(sizeof(T)),
              vocab, offset, (unsigned long long)wrong);
        writable = expected.bounds();
        run_block([=, out = expected.data()] {
          for (uint32_t part = 0; part < cut.parts; part++) {
            __syncthreads();
            write_part(Untransformed{}, out, in, vocab, part, cut, g, [] {});
          }
        });
        CHECK(row.guards_intact() && written.guards_intact() &&
                  std::equal(written.memory, written.memory + written.bytes, expected.memory),
              "%u bytes each, V %u at %u: another gradient from a copy", unsigned(sizeof(T)), vocab,
              offset);
      }
    }
  });
}

TEST(parts_sort_units) {
  check::Random random(5);
  std::vector<uint32_t> counts(check::thin ? 20 : 70);
  std::iota(counts.begin(), counts.end(), 1);
  counts.insert(counts.end(), {255, 256, 257, 600});
  for (uint32_t units : counts) {
    for (int kind = 0; kind < (check::thin ? 1 : 3); kind++) {
      std::vector<double> values;
      for (uint32_t i = 0; i < units; i++) {
        // All different; many ties; ties, NaNs, infinities and zeros of both signs.
        constexpr double special[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -NAN};
        values.push_back(kind == 0   ? random.normal()
                         : kind == 1 ? double(random.below(4))
                                     : special[random.below(7)]);
      }
      std::vector<uint32_t> expected(units);
      std::iota(expected.begin(), expected.end(), 0u);
      // By definition: numbers ascending, NaNs last; equal ones in their order.
      std::stable_sort(expected.begin(), expected.end(), [&](uint32_t i, uint32_t j) {
        if (std::isnan(values[i]) || std::isnan(values[j]))
          return !std::isnan(values[i]) && std::isnan(values[j]);
        return values[i] < values[j];
      });
      uint32_t length = 1;
      while (length < units) length *= 2;
      std::vector<uint32_t> order(length, 99999);
      uint32_t* const out = order.data();
      const double* const in = values.data();
      run_block([=] { sort_units(in, out, units, length); });
      order.resize(units);
      CHECK(order == expected, "%u units, kind %d", units, kind);
    }
  }
}

TEST(parts_sum_sequences) {
  std::vector<uint32_t> lengths = {513, 0,   1, 31,   32,  33, 511,  512,
                                   514, 600, 0, 1025, 257, 2,  3000, 512};
  if (check::thin) lengths.resize(8);
  for (const Arity arity : {Arity::pair, Arity::single}) {
    for (const bool separate : {false, true}) {
      // Whole numbers, whose sums are exact; and others, whose bits tell the order of the
      // additions.
      for (const bool whole : {true, false}) {
        if (check::thin && (whole || separate)) continue;
        const uint32_t sequences = uint32_t(lengths.size()),
                       count = arity == Arity::single ? sequences : sequences / 2;
        auto sums_of = [&](const std::vector<uint32_t>& permutation, Group group) {
          std::vector<uint32_t> begin(sequences), end(sequences);
          std::vector<double> rows, sft_rows, logps(sequences, -1), sft_logps(sequences, -1);
          for (uint32_t i = 0; i < sequences; i++) {
            check::Random random(permutation[i]);
            begin[i] = uint32_t(rows.size());
            for (uint32_t k = 0; k < lengths[permutation[i]]; k++) {
              rows.push_back(whole ? double(random.below(1 << 20)) : random.normal());
              sft_rows.push_back(2 * rows.back());
            }
            end[i] = uint32_t(rows.size());
          }
          Plan p{};
          p.sequence_begin = begin.data(), p.sequence_end = end.data();
          p.row_logps = rows.data(), p.sft_row_logps = sft_rows.data();
          p.logps = logps.data(), p.sft_logps = sft_logps.data();
          p.separate_sft = separate;
          p.terms.units = {arity, count, nullptr};
          const Plan* const plan = &p;
          run_block([=] {
            using Scratch = double[warps];
            CUDA_SHARED(Scratch, scratch);
            sum_sequences(*plan, group, scratch);
          });
          for (uint32_t i = 0; i < sequences; i++) {
            const uint32_t unit = i % count;
            if (unit < group.first_unit || unit >= group.first_unit + group.units) {
              CHECK(logps[i] == -1 && sft_logps[i] == -1, "sequence %u is of another group", i);
              continue;
            }
            const double exact =
                std::accumulate(rows.begin() + begin[i], rows.begin() + end[i], 0.0);
            double size = 0;
            for (uint32_t k = begin[i]; k < end[i]; k++) size += std::fabs(rows[k]);
            CHECK(std::fabs(logps[i] - exact) <= (whole ? 0 : 1e-14 * size),
                  "%u rows: %.17g, not %.17g", end[i] - begin[i], logps[i], exact);
            CHECK(sft_logps[i] == (separate ? 2 * logps[i] : -1),
                  "%u rows: %.17g of the second labels", end[i] - begin[i], sft_logps[i]);
          }
          return logps;
        };
        std::vector<uint32_t> straight(sequences), reversed;
        std::iota(straight.begin(), straight.end(), 0u);
        reversed.assign(straight.rbegin(), straight.rend());
        const std::vector<double> all = sums_of(straight, {0, 0, 0, count, 0}),
                                  backwards = sums_of(reversed, {0, 0, 0, count, 0});
        for (uint32_t i = 0; i < sequences; i++)
          CHECK(check::same_bits(all[i], backwards[sequences - 1 - i]),
                "%u rows: the bits depend on the place", lengths[i]);
        const std::vector<double> some = sums_of(straight, {0, 0, 1, 2, 0});
        CHECK(check::same_bits(some[1], all[1]) && check::same_bits(some[2], all[2]));
      }
    }
  }
}
