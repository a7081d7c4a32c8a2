// The gradients of a loss of the caller's own, by its derivatives: those of a method whose
// coefficients they are, bit for bit; and, with entropies and transformed logits, by definition.
#include "backends/backend.h"
#include "problems.h"

using namespace problems;

namespace {

Result run(Prepared& prepared) {
  host_backend().run(prepared.job, 0, *Pool::shared());
  return prepared.collect();
}

/// Makes the job of a loss one of derivatives: of each row's log-probability, by `derivative(row)`.
template <class Derivative>
void give(Prepared& prepared, const Problem& p, Derivative&& derivative) {
  prepared.job.loss.reset();
  prepared.job.batch.fields = {};
  prepared.job.rows = {};
  CHECK(!list_rows(prepared.job.batch, p.units(), prepared.job.rows));
  DerivativesGiven& given = prepared.job.given.emplace();
  for (int64_t r = 0; r < p.rows; r++) given.logps.push_back(derivative(r));
}

/// What a run for tokens finds of the rows.
struct Tokens {
  std::vector<double> numbers;
  size_t rows;
  explicit Tokens(const Problem& p, const LogitTransform& transform = {})
      : numbers(3 * size_t(p.rows), 0), rows(size_t(p.rows)) {
    Job job;
    job.batch = p.batch();
    job.batch.fields = {};
    job.batch.transform = transform;
    job.tokens = TokensWanted{numbers.data(), numbers.data() + rows, numbers.data() + 2 * rows};
    CHECK(!list_rows(job.batch, single_units(p.shape.sequences), job.rows));
    host_backend().run(job, 0, *Pool::shared());
  }
  void give_to(DerivativesGiven& given) const {
    const auto at = [&](size_t k) { return numbers.begin() + int64_t(k * rows); };
    given.known_logps.assign(at(0), at(1));
    given.known_logsumexp.assign(at(1), at(2));
    given.known_entropy.assign(at(2), at(3));
  }
};

}  // namespace

TEST(compute_given_like_a_loss) {
  for (Dtype d : dtypes) {
    for (const char* name : {"dpo", "simpo", "aot", "kto", "plackett_luce"}) {
      Shape shape;
      shape.dtype = d;
      shape.sequences = 6;
      shape.vocab = 133;
      shape.padding = 3;
      shape.packed = name[0] == 's';
      shape.fields = name[0] != 'a';
      shape.seed = 91;
      const Problem p(reference::objective(name, 0.6), shape);
      const Truth truth(p, false);
      for (Mode mode : {Mode::dense, Mode::factored}) {
        for (bool in_place : {false, true}) {
          const Run how{mode, in_place, false, 2};
          Prepared loss(p, how), given(p, how), known(p, how);
          const Result expected = run(loss);
          auto derivative = [&](int64_t r) {
            return expected.coefficients[size_t(p.sequence_of(r))] * p.row_weight(r);
          };
          give(given, p, derivative);
          give(known, p, derivative);
          Tokens(p).give_to(*known.job.given);
          Result result = run(given);
          // In place a factored gradient of float32 is that of another rounding, of both.
          CHECK(result.gradient == expected.gradient && result.row_scale == expected.row_scale,
                "%s", describe(p, how).c_str());
          // From what is known of the rows, up to its roundings.
          result = run(known);
          result.coefficients = expected.coefficients;
          check_gradient(describe(p, how).c_str(), p, truth, result, mode);
        }
      }
    }
  }
}

TEST(compute_given_by_definition) {
  // c log p_y + e H of softmax(y), y = cap tanh(scale x / cap) / temperature.
  const LogitTransform transforms[] = {{1, 0, 1}, {0.5, 0, 0.8}, {1, 5, 1}, {2, 30, 1.5}};
  for (Dtype d : dtypes) {
    for (const LogitTransform& t : transforms) {
      for (bool with_entropy : {false, true}) {
        for (bool is_known : {false, true}) {
          Shape shape;
          shape.dtype = d;
          shape.vocab = 70;
          shape.padding = 2;
          shape.seed = 92;
          const Problem p(reference::objective("sft", 1), shape);
          check::Random random(93);
          std::vector<double> c, e;
          for (int64_t r = 0; r < p.rows; r++)
            c.push_back(random.normal()), e.push_back(with_entropy ? random.normal() : 0);
          Prepared prepared(p, {Mode::dense, is_known, false, 1});
          prepared.job.batch.transform = t;
          give(prepared, p, [&](int64_t r) { return c[size_t(r)]; });
          if (with_entropy) prepared.job.given->entropy.assign(e.begin(), e.end());
          if (is_known) Tokens(p, t).give_to(*prepared.job.given);
          const Result result = run(prepared);
          for (int64_t r = 0; r < p.rows; r++) {
            const int32_t label = p.labels[size_t(r)];
            std::vector<Real> y, slope;
            Real sum = 0, entropy = 0;
            for (int64_t v = 0; v < shape.vocab && label != ignored; v++) {
              const Real x = load(d, p.logits.data(), r * p.stride + v), z = t.scale * x,
                         cosh = t.cap == 0 ? 1 : coshl(z / t.cap);
              y.push_back((t.cap == 0 ? z : t.cap * tanhl(z / t.cap)) / t.temperature);
              slope.push_back(t.scale / t.temperature / (cosh * cosh));
              sum += expl(y.back());
            }
            for (Real v : y) entropy -= expl(v) / sum * (v - logl(sum));
            for (int64_t v = 0; v < p.stride && r * p.stride + v < p.elements; v++) {
              const double value = load(d, result.gradient.data(), r * p.stride + v);
              if (label == ignored || v >= shape.vocab) {
                CHECK(value == 0, "row %lld column %lld: %g", (long long)r, (long long)v, value);
                continue;
              }
              const Real p_v = expl(y[size_t(v)]) / sum, log_p = y[size_t(v)] - logl(sum),
                         by_logp = c[size_t(r)] * (v == label ? 1 - p_v : -p_v),
                         by_entropy = -e[size_t(r)] * p_v * (log_p + entropy),
                         size =
                             fabsl(by_logp) + fabsl(e[size_t(r)]) * p_v * (fabsl(log_p) + entropy);
              const double truth = double((by_logp + by_entropy) * slope[size_t(v)]);
              CHECK(std::fabs(value - truth) <=
                        1e-5 * double(size * slope[size_t(v)]) + 0.51 * unit(d, truth),
                    "%s scale %g cap %g temperature %g, row %lld column %lld: %.9g, not %.9g",
                    dtype_names[int(d)], t.scale, t.cap, t.temperature, (long long)r, (long long)v,
                    value, truth);
            }
          }
        }
      }
    }
  }
}

TEST(compute_token_weights_of_one) {
  // Change no bit of any number.
  for (const char* name : {"orpo", "sft", "bco", "info_nca"}) {
    Objective o = reference::objective(name, 0.6);
    if (reference::takes_likelihood(o)) o.settings.sft_weight = 0.3;
    Shape shape;
    shape.sequences = 6;
    shape.seed = 94;
    const Problem without(o, shape);
    Problem with = without;
    with.fields[&Fields::token_weights].assign(size_t(with.rows), 1);
    for (Mode mode : {Mode::none, Mode::dense, Mode::factored}) {
      Prepared a(without, {mode, false, false, 1}), b(with, {mode, false, false, 1});
      CHECK(run(a).same(run(b)), "%s", name);
    }
  }
}
