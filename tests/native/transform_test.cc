// Transformed logits, y = softcap(scale x) / temperature: the number and its derivative against
// long double, and the kernels over rows of them, for every instruction set and dtype.
#include "kernel_rows.h"

using namespace kernel_rows;

namespace {

using Real = long double;

struct Defined {
  Real y, slope;
};
Defined defined(Real x, const LogitTransform& t) {
  const Real plain = t.scale * x / t.temperature;
  if (t.cap == 0) return {plain, Real(t.scale) / t.temperature};
  if (std::isinf(x)) return {x, 0};  // a word of probability 0 stays one
  const Real z = t.scale * x / t.cap, cosh = coshl(z);
  // A cap beyond what long double tells from none.
  return {fabsl(z) < 1e-12L ? plain : t.cap * tanhl(z) / t.temperature,
          Real(t.scale) / t.temperature / (cosh * cosh)};
}

/// Scales, temperatures, and caps from far below the logits to far beyond float32.
const LogitTransform transforms[] = {{1, 0, 0.7},  {0.0625, 0, 1}, {3, 0, 2},      {1, 30, 1},
                                     {1, 50, 0.5}, {2.5, 7, 1.3},  {1, 0.01, 1},   {1, 1e-30, 1},
                                     {1, 1e4, 1},  {1, 1e30, 1},   {1.5, 1e45, 2}, {1, 1e308, 1}};

std::string text(const KernelSet& set, Dtype d, const LogitTransform& t) {
  return check::text("%s %s scale %g cap %g temperature %g", set.isa, dtype_names[int(d)], t.scale,
                     t.cap, t.temperature);
}

/// The logits of a test: of common sizes, with numbers at both ends of them.
std::vector<float> some_logits(int64_t n, uint64_t seed) {
  std::vector<float> logits = normal_logits(n, 6, seed);
  const float ends[] = {0.f, -0.f, 1e-30f, -1e-6f, 0.1f, 14.9f, -15.1f, 80.f, -200.f, -infinity};
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = ends[i / 3 % std::size(ends)];
  return logits;
}

/// y of one logit, by the kernel: the label's entry of a row of one.
float transformed_one(const RowKernels& kernels, const void* x, const TransformFactors& factors) {
  return kernels.reduce_transformed(x, 1, 0, factors, false).label;
}

/// Up to the last bit of the logits: a compiler may round the steps of tanh otherwise in another
/// place.
bool near_sums(const RowSums& a, const RowSums& b) {
  if (std::isnan(b.sum)) return std::isnan(a.sum);
  const double off = 0x1p-23 * (std::fabs(double(b.top)) + 100),
               moved = std::exp(double(a.anchor) - double(b.anchor));
  return check::same_bits(a.label, b.label) && std::fabs(a.top - b.top) <= off &&
         std::fabs(a.anchor - b.anchor) <= off && std::fabs(a.sum * moved - b.sum) <= off * b.sum &&
         std::fabs(a.moment - b.moment) <= off * (std::fabs(b.moment) + b.sum);
}

/// The gradients' kernel of rows, or of products, whose type the gradient has.
struct Gradient {
  std::string name;
  Dtype in, out;
  decltype(RowKernels::transformed_gradient) write;
};
std::vector<Gradient> gradients() {
  std::vector<Gradient> all;
  for (const char* isa : {"baseline", "avx2", "avx512", "avx512_bf16"}) {
    const KernelSet* const set = find_kernel_set(isa);
    if (!set) continue;
    for (Dtype d : dtypes) {
      all.push_back({check::text("%s %s", isa, dtype_names[int(d)]), d, d,
                     set->rows[int(d)].transformed_gradient});
      const ProductKernels& products = set->products[int(d)];
      all.push_back({check::text("products, %s %s", isa, dtype_names[int(d)]), Dtype::float32,
                     products.gradient, products.transformed_gradient});
    }
  }
  return all;
}

}  // namespace

TEST(kernels_transformed_logits) {
  // A few roundings of float32, whatever the size of the logit and the cap.
  double worst = 0;
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      for (const LogitTransform& t : transforms) {
        std::vector<float> logits = some_logits(200, 21);
        for (int k = -40; k <= 40; k++) {  // around where one form of tanh meets the other
          const float x = float((0.5 + 1e-3 * k) * std::min(t.cap, 1e4) / t.scale);
          logits.push_back(x), logits.push_back(-x);
        }
        const Row row(d, logits);
        for (size_t i = 0; i < logits.size(); i++) {
          const double x = row.values[i];
          const double y = double(
              transformed_one(set->rows[int(d)], row.data + i * dtype_bytes(d), factors_of(t)));
          const Real truth = defined(Real(x), t).y;
          if (std::isinf(x)) {
            CHECK(y == x, "%s: %g for %g", text(*set, d, t).c_str(), y, x);
            continue;
          }
          const double error = double(fabsl(y - truth) / (fabsl(truth) + 1e-36L));
          CHECK(error <= 5 * 0x1p-24, "%s at %.9g: %.9g, not %.9Lg", text(*set, d, t).c_str(), x, y,
                truth);
          worst = std::max(worst, error);
          CHECK(
              std::fabs(t.value(x) - double(truth)) <= 1e-15 * std::fabs(double(truth)) + 1e-300 &&
                  std::fabs(t.slope(x) - double(defined(Real(x), t).slope)) <=
                      1e-13 * double(defined(Real(x), t).slope) + 1e-300,
              "%s at %.9g: %.17g, not %.17Lg, in float64", text(*set, d, t).c_str(), x, t.value(x),
              truth);
        }
      }
    }
  }
  std::printf("       off by %.2f roundings\n", worst * 0x1p24);
}

TEST(kernels_reduce_transformed) {
  // The sums of a float32 row that has the transformed logits, which the test above looks at.
  // Without a cap the bits are the same, except those of bfloat16, which is added in another order.
  std::vector<int64_t> lengths = {1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 511, 512, 513, 1100};
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      const RowKernels &kernels = set->rows[int(d)], &float32 = set->rows[0];
      for (const LogitTransform& t : transforms) {
        if (check::slow && t.cap > 100) continue;
        const TransformFactors factors = factors_of(t);
        for (int64_t vocab : lengths) {
          // Without, and with, what spoils a row.
          for (float bad : {0.f, nan_value, infinity}) {
            std::vector<float> logits = some_logits(vocab, uint64_t(vocab)), y;
            if (bad != 0) logits[size_t(vocab / 2)] = bad;
            const Row row(d, logits, vocab % 5);
            for (int64_t i = 0; i < vocab; i++)
              y.push_back(transformed_one(kernels, row.data + size_t(i) * dtype_bytes(d), factors));
            const Row transformed(Dtype::float32, y);
            for (int64_t label : interesting_labels(vocab)) {
              for (bool with_moment : {false, true}) {
                const auto reduce = with_moment ? float32.reduce_with_moment : float32.reduce;
                const RowSums sums = kernels.reduce_transformed(row.data, vocab, label, factors,
                                                                with_moment),
                              expected = reduce(transformed.data, vocab, label);
                CHECK(t.cap == 0 && d != Dtype::bfloat16 ? same_sums(sums, expected)
                                                         : near_sums(sums, expected),
                      "%s: V %lld label %lld", text(*set, d, t).c_str(), (long long)vocab,
                      (long long)label);
              }
            }
          }
        }
      }
    }
  }
}

TEST(kernels_transformed_gradient) {
  // (factor + bend (y - shift)) e^(y - shift) dy/dx, rounded once, at any alignment, in place, and
  // where the gradient is narrower than the logits.
  double worst = 0;
  for (const Gradient& g : gradients()) {
    const RowKernels &in = find_kernel_set("baseline")->rows[int(g.in)],
                     &out = find_kernel_set("baseline")->rows[int(g.out)];
    const size_t in_bytes = dtype_bytes(g.in), out_bytes = dtype_bytes(g.out);
    const double unit = g.out == Dtype::float32   ? 0x1p-24
                        : g.out == Dtype::float16 ? 0x1p-11
                                                  : 0x1p-8,
                 least = g.out == Dtype::float16 ? 0x1p-24 : 1e-37;
    for (const LogitTransform& t : transforms) {
      for (double bend : {0.0, 0.3}) {
        for (int64_t vocab : {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 511}) {
          const Row row(g.in, some_logits(vocab, uint64_t(vocab) + 1));
          double top = -INFINITY;
          for (double x : row.values) top = std::max(top, double(defined(Real(x), t).y));
          const RowGradient factors{
              false, false, std::isinf(top) ? 0 : float(top), -0.37f, float(bend), -1, -1, 0, 0};
          std::vector<unsigned char> first;
          for (size_t offset = 0; offset < 64 / out_bytes; offset += 3) {
            Guarded<unsigned char> to(size_t(vocab) * out_bytes, offset * out_bytes);
            g.write(row.data, to.data(), vocab, factors_of(t), factors);
            CHECK(to.intact(), "%s: V %lld wrote past the row", g.name.c_str(), (long long)vocab);
            const std::vector<unsigned char> entries(to.data(),
                                                     to.data() + size_t(vocab) * out_bytes);
            if (first.empty()) first = entries;
            CHECK(entries == first, "%s: V %lld offset %zu", g.name.c_str(), (long long)vocab,
                  offset);
          }
          Guarded<unsigned char> place(size_t(vocab) * in_bytes, 3 * in_bytes);
          std::memcpy(place.data(), row.data, size_t(vocab) * in_bytes);
          g.write(place.data(), place.data(), vocab, factors_of(t), factors);
          CHECK(place.intact() && std::memcmp(place.data(), first.data(), first.size()) == 0,
                "%s: V %lld in place", g.name.c_str(), (long long)vocab);
          for (int64_t i = 0; i < vocab; i++) {
            const Real x = row.values[size_t(i)];
            const Defined l = defined(x, t);
            const Real d = l.y - factors.shift, e = std::isinf(x) ? 0 : expl(d) * l.slope,
                       truth = e == 0 ? 0 : (factors.factor + factors.bend * d) * e;
            const double value = double(out.load(first.data(), i));
            // Of the two exponentials, whose arguments are rounded; the sum of the two factors may
            // cancel.
            const double z = t.cap == 0 ? 0 : double(fabsl(t.scale * x / t.cap)),
                         argument = double(fabsl(l.y)) + std::fabs(double(factors.shift)) + 2 * z,
                         size = e == 0
                                    ? 0
                                    : double((fabsl(factors.factor) + fabsl(factors.bend * d)) * e),
                         off = std::isinf(x) ? 0
                                             : std::fabs(value - double(truth)) -
                                                   unit * std::fabs(double(truth));
            const double bound = size == 0 ? 0 : (4e-6 + 5 * 0x1p-24 * argument) * size,
                         // Exponentials below e^-86.6 are 0.
                smallest = least * (1 + 90 * bend) * std::max(1.0, t.scale / t.temperature);
            CHECK(std::isfinite(value) && off <= bound + smallest,
                  "%s scale %g cap %g: V %lld at %lld, logit %g: %.9g, not %.9Lg", g.name.c_str(),
                  t.scale, t.cap, (long long)vocab, (long long)i, double(in.load(row.data, i)),
                  value, truth);
            if (std::isinf(x)) CHECK(value == 0, "%s: %g", g.name.c_str(), value);
            if (bound > 100 * smallest) worst = std::max(worst, off / bound);
          }
        }
      }
    }
  }
  std::printf("       %.2f of the bound\n", worst);
}
