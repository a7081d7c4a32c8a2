// The products of an output layer, for every instruction set, against float64 sums.
#include <cstdlib>
#include <functional>
#include "problems.h"

using namespace problems;
using cpu::KernelSet;
using cpu::ProductKernels;
using cpu::RowsView;

namespace {

std::vector<const KernelSet*> kernel_sets() {
  std::vector<const KernelSet*> sets;
  for (const char* isa : {"baseline", "avx2", "avx512", "avx512_bf16"})
    if (const KernelSet* set = cpu::find_kernel_set(isa)) sets.push_back(set);
  return sets;
}

/// Storage of a dtype, each matrix with a guard behind it.
struct Matrix {
  Dtype dtype;
  int64_t rows, columns, stride;
  std::vector<char> data;

  Matrix(Dtype d, int64_t m, int64_t n, int64_t row_stride = 0)
      : dtype(d),
        rows(m),
        columns(n),
        stride(row_stride ? row_stride : n),
        data(size_t(rows * stride) * dtype_bytes(d) + guard, guard_byte) {}
  Matrix& fill(check::Random& random, double spread) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++)
        store(dtype, data.data(), i * stride + j, float(spread * random.normal()));
    return *this;
  }
  double at(int64_t i, int64_t j) const { return load(dtype, data.data(), i * stride + j); }
  /// All of it, read once.
  struct Values {
    int64_t columns;
    std::vector<double> data;
    double operator()(int64_t i, int64_t j) const { return data[size_t(i * columns + j)]; }
  };
  Values values() const {
    Values v{columns, {}};
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) v.data.push_back(at(i, j));
    return v;
  }
  float* floats() { return reinterpret_cast<float*>(data.data()); }
  bool intact() const {
    return std::all_of(data.end() - guard, data.end(), [](char c) { return c == guard_byte; });
  }
};

struct Scratch {
  void* memory;
  explicit Scratch(const ProductKernels& p) : memory(std::aligned_alloc(64, p.scratch_bytes)) {}
  ~Scratch() { std::free(memory); }
};

/// `term(i, j, k)` summed over k: each element within float32's rounding of the sum of magnitudes.
template <class Term>
void check_product(const char* what, const Matrix& out, const Matrix* before, int64_t inner,
                   Term&& term) {
  for (int64_t i = 0; i < out.rows; i++) {
    for (int64_t j = 0; j < out.columns; j++) {
      double sum = before ? before->at(i, j) : 0, magnitude = std::fabs(sum);
      for (int64_t k = 0; k < inner; k++) {
        const double x = term(i, j, k);
        sum += x;
        magnitude += std::fabs(x);
      }
      CHECK(std::fabs(out.at(i, j) - sum) <= 1e-6 * magnitude, "%s: [%lld, %lld] is %.9g, not %.9g",
            what, (long long)i, (long long)j, out.at(i, j), sum);
    }
  }
  CHECK(out.intact(), "%s: wrote behind the end", what);
}

/// Calls `part(first, last)` for [0, n) whole or in uneven parts.
void in_parts(bool whole, int64_t n, const std::function<void(int64_t, int64_t)>& part) {
  if (whole) return part(0, n);
  for (int64_t first = 0, step = 1; first < n; first += step, step = step * 2 + 1)
    part(first, std::min(n, first + step));
}

struct ProductShape {
  int64_t rows, vocab, hidden;
};
constexpr ProductShape product_shapes[] = {{1, 1, 1},      {2, 7, 3},     {12, 32, 16},
                                           {13, 33, 17},   {5, 1030, 31}, {40, 65, 513},
                                           {200, 50, 130}, {530, 9, 21}};

void check_shape(const KernelSet& set, Dtype d, const ProductShape& shape) {
  const ProductKernels& p = set.products[int(d)];
  const Scratch scratch(p);
  check::Random random(uint64_t(shape.rows * 1000 + shape.vocab));
  const std::string name =
      check::text("%s %s %lld x %lld x %lld", set.isa, dtype_names[int(d)], (long long)shape.rows,
                  (long long)shape.vocab, (long long)shape.hidden);
  // Hidden states of a longer batch, of which some rows count; gradients as far apart as float32
  // logits.
  Matrix states = Matrix(d, 2 * shape.rows, shape.hidden).fill(random, 1),
         weight = Matrix(d, shape.vocab, shape.hidden).fill(random, 0.5),
         bias = Matrix(d, 1, shape.vocab).fill(random, 1);
  const int64_t stride = shape.vocab * int64_t(4 / dtype_bytes(p.gradient));
  Matrix gradient = Matrix(p.gradient, shape.rows, shape.vocab, stride).fill(random, 0.1);
  std::vector<int64_t> index;
  for (int64_t i = 0; i < shape.rows; i++) index.push_back(2 * i + (i % 3 == 0));
  const Matrix::Values h = states.values(), w = weight.values(), b = bias.values(),
                       g = gradient.values();
  const RowsView hidden{states.data.data(), shape.hidden, index.data()};

  for (bool with_bias : {false, true}) {
    Matrix first(Dtype::float32, shape.rows, shape.vocab);
    for (bool whole : {true, false}) {
      Matrix out(Dtype::float32, shape.rows, shape.vocab);
      in_parts(whole, shape.vocab, [&](int64_t a, int64_t b) {
        p.logits(hidden, shape.rows, weight.data.data(), with_bias ? bias.data.data() : nullptr,
                 shape.hidden, a, b, out.floats(), shape.vocab, scratch.memory);
      });
      if (whole) {
        first = out;
        check_product((name + " logits").c_str(), out, nullptr, shape.hidden + 1,
                      [&](int64_t i, int64_t v, int64_t k) {
                        return k == shape.hidden ? (with_bias ? b(0, v) : 0)
                                                 : h(index[size_t(i)], k) * w(v, k);
                      });
      }
      CHECK(out.data == first.data, "%s: logits depend on the cut", name.c_str());
    }
    // A row alone has the same bits.
    Matrix alone(Dtype::float32, 1, shape.vocab);
    const int64_t last = shape.rows - 1;
    p.logits({states.data.data(), shape.hidden, &index[size_t(last)]}, 1, weight.data.data(),
             with_bias ? bias.data.data() : nullptr, shape.hidden, 0, shape.vocab, alone.floats(),
             shape.vocab, scratch.memory);
    CHECK(std::memcmp(alone.data.data(), first.data.data() + size_t(last * shape.vocab) * 4,
                      size_t(shape.vocab) * 4) == 0,
          "%s: logits depend on the other rows", name.c_str());
  }
  {
    Matrix first(Dtype::float32, shape.rows, shape.hidden);
    for (bool whole : {true, false}) {
      Matrix out(Dtype::float32, shape.rows, shape.hidden);
      in_parts(whole, shape.hidden, [&](int64_t a, int64_t b) {
        p.hidden_gradient(gradient.data.data(), stride, shape.rows, shape.vocab, weight.data.data(),
                          shape.hidden, a, b, out.floats(), scratch.memory);
      });
      if (whole) {
        first = out;
        check_product((name + " hidden gradient").c_str(), out, nullptr, shape.vocab,
                      [&](int64_t i, int64_t k, int64_t v) { return g(i, v) * w(v, k); });
      }
      CHECK(out.data == first.data, "%s: the hidden gradient depends on the cut", name.c_str());
    }
  }
  for (bool accumulate : {false, true}) {
    const Matrix before = Matrix(Dtype::float32, shape.vocab, shape.hidden).fill(random, 1),
                 bias_before = Matrix(Dtype::float32, 1, shape.vocab).fill(random, 1);
    Matrix first(Dtype::float32, 1, 1);
    for (bool whole : {true, false}) {
      Matrix out = before, out_bias = bias_before;
      in_parts(whole, shape.vocab, [&](int64_t a, int64_t b) {
        p.weight_gradient(gradient.data.data(), stride, shape.rows, hidden, shape.hidden, a, b,
                          accumulate, out.floats(), scratch.memory);
        p.bias_gradient(gradient.data.data(), stride, shape.rows, a, b, accumulate,
                        out_bias.floats());
      });
      if (whole) {
        first = out;
        check_product(
            (name + " weight gradient").c_str(), out, accumulate ? &before : nullptr, shape.rows,
            [&](int64_t v, int64_t k, int64_t i) { return g(i, v) * h(index[size_t(i)], k); });
        check_product((name + " bias gradient").c_str(), out_bias,
                      accumulate ? &bias_before : nullptr, shape.rows,
                      [&](int64_t, int64_t v, int64_t i) { return g(i, v); });
      }
      CHECK(out.data == first.data, "%s: the weight gradient depends on the cut", name.c_str());
    }
  }
}

}  // namespace

TEST(products_every_instruction_set) {
  for (const KernelSet* set : kernel_sets())
    for (Dtype d : dtypes)
      for (const ProductShape& shape : product_shapes) check_shape(*set, d, shape);
}

TEST(products_of_pairs_of_bfloat16_where_the_processor_has_them) {
  for (const KernelSet* set : kernel_sets()) {
    CHECK(set->products[int(Dtype::float32)].gradient == Dtype::float32);
    CHECK(set->products[int(Dtype::float16)].gradient == Dtype::float32);
    CHECK((set->products[int(Dtype::bfloat16)].gradient == Dtype::bfloat16) ==
          (std::strcmp(set->isa, "avx512_bf16") == 0));
  }
}

TEST(products_softmax_in_place_and_finish) {
  check::Random random(3);
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      const ProductKernels& p = set->products[int(d)];
      for (int64_t n : {1, 5, 16, 33, 1000}) {
        Matrix logits = Matrix(Dtype::float32, 1, n).fill(random, 3), row = logits;
        p.softmax(row.floats(), row.data.data(), n, 5, -0.25f);
        p.store(row.data.data(), n - 1, 0.5f);
        for (int64_t v = 0; v < n; v++) {
          const double expected = v == n - 1 ? 0.5 : -0.25 * std::exp(logits.at(0, v) - 5),
                       value = load(p.gradient, row.data.data(), v);
          CHECK(std::fabs(value - expected) <=
                    1e-6 * std::fabs(expected) + 0.51 * unit(p.gradient, expected),
                "%s %s: entry %lld is %.9g, not %.9g", set->isa, dtype_names[int(d)], (long long)v,
                value, expected);
        }
        CHECK(row.intact());
        for (bool accumulate : {false, true}) {
          const Matrix before = Matrix(d, 1, n).fill(random, 1);
          Matrix out = before;
          p.finish(logits.floats(), out.data.data(), n, -3, accumulate);
          for (int64_t v = 0; v < n; v++) {
            const double expected = -3 * logits.at(0, v) + (accumulate ? before.at(0, v) : 0);
            CHECK(std::fabs(out.at(0, v) - expected) <=
                      2e-6 * (std::fabs(logits.at(0, v)) + 1) + 0.51 * unit(d, expected),
                  "%s %s: %.9g, not %.9g", set->isa, dtype_names[int(d)], out.at(0, v), expected);
          }
          CHECK(out.intact());
        }
      }
    }
  }
}
