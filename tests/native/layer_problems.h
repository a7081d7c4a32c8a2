// Batches by their hidden states and an output layer, drawn at random, and what a backend's results
// are held to.
#pragma once
#include <optional>
#include "problems.h"

namespace problems {

constexpr size_t plenty = size_t{64} << 20;

struct LayerShape {
  Dtype dtype = Dtype::float32;
  int64_t hidden = 24;
  bool bias = false;
};

/// A batch by its hidden states. `p.logits` are what they stand for: the exact products, rounded to
/// float32.
struct LayerProblem {
  LayerShape layer;
  Problem p;
  std::vector<char> hidden, weight, bias;

  LayerProblem(const Objective& o, Shape shape, const LayerShape& l)
      : layer(l), p(o, without_layer(shape)) {
    check::Random random(shape.seed + 1000);
    const Dtype d = l.dtype;
    const int64_t size = l.hidden, vocab = shape.vocab;
    auto fill = [&](std::vector<char>& data, int64_t count, double spread) {
      data.resize(size_t(count) * dtype_bytes(d));
      for (int64_t i = 0; i < count; i++) store(d, data.data(), i, float(spread * random.normal()));
    };
    fill(hidden, p.rows * size, 1);
    fill(weight, vocab * size, shape.spread / std::sqrt(double(size)));
    if (l.bias) fill(bias, vocab, 1);
    for (int64_t r = 0; r < p.rows; r++) {
      const bool scored = !std::isnan(load(Dtype::float32, p.logits.data(), r * p.stride));
      for (int64_t v = 0; v < vocab && scored; v++) {
        double sum = l.bias ? load(d, bias.data(), v) : 0;
        for (int64_t k = 0; k < size; k++)
          sum += load(d, hidden.data(), r * size + k) * load(d, weight.data(), v * size + k);
        store(Dtype::float32, p.logits.data(), r * p.stride + v, float(sum));
      }
      for (int64_t k = 0; k < size && !scored; k++)
        store(d, hidden.data(), r * size + k, std::numeric_limits<float>::quiet_NaN());
    }
  }
  static Shape without_layer(Shape shape) {
    shape.dtype = Dtype::float32;
    shape.padding = 0;
    return shape;
  }
  size_t row_bytes() const { return size_t(layer.hidden) * dtype_bytes(layer.dtype); }
};

struct LayerRun {
  size_t memory = plenty;
  bool hidden = true, weight = true, bias = true;                 ///< the gradients that are wanted
  bool add_hidden = false, add_weight = false, add_bias = false;  ///< to what is there
};

struct LayerResult {
  Result numbers;
  std::vector<char> hidden;
  std::vector<float> weight, bias;
  std::vector<char> hidden_before;
  std::vector<float> weight_before, bias_before;
  size_t memory_used = 0;
};

/// The job of a run, its gradients in host memory between guards.
struct PreparedLayer {
  Prepared numbers;
  LayerResult result;
  std::vector<char> hidden, weight, bias;

  PreparedLayer(const LayerProblem& l, const LayerRun& run)
      : numbers(l.p, {Mode::none, false, false, 1}) {
    Job& job = numbers.job;
    job.batch.logits = nullptr;
    job.batch.dtype = l.layer.dtype;
    job.layer =
        OutputLayer{l.hidden.data(), l.weight.data(), l.layer.bias ? l.bias.data() : nullptr,
                    l.layer.hidden,  run.memory,      0};
    check::Random random(5);
    auto prepare = [&](bool wanted, std::vector<char>& memory, LayerGradients::Buffer& buffer,
                       Dtype d, size_t count, bool add) {
      if (!wanted) return;
      memory.assign(count * dtype_bytes(d) + 2 * guard, guard_byte);
      buffer.data = memory.data() + guard;
      buffer.accumulate = add;
      for (size_t i = 0; i < count; i++)
        store(d, buffer.data, int64_t(i),
              add ? float(random.normal()) : std::numeric_limits<float>::quiet_NaN());
    };
    const size_t vocab = size_t(l.p.shape.vocab), size = size_t(l.layer.hidden);
    prepare(run.hidden, hidden, job.gradients.layer.hidden, l.layer.dtype, size_t(l.p.rows) * size,
            run.add_hidden);
    prepare(run.weight, weight, job.gradients.layer.weight, Dtype::float32, vocab * size,
            run.add_weight);
    prepare(run.bias && l.layer.bias, bias, job.gradients.layer.bias, Dtype::float32, vocab,
            run.add_bias);
    keep(result.hidden_before, result.weight_before, result.bias_before);
  }
  void keep(std::vector<char>& to_hidden, std::vector<float>& to_weight,
            std::vector<float>& to_bias) {
    auto take = [](const std::vector<char>& memory, auto& to) {
      if (memory.empty()) return;
      to.resize((memory.size() - 2 * guard) / sizeof to[0]);
      if (!to.empty()) std::memcpy(to.data(), memory.data() + guard, to.size() * sizeof to[0]);
    };
    take(hidden, to_hidden);
    take(weight, to_weight);
    take(bias, to_bias);
  }
  LayerResult collect() {
    for (const std::vector<char>* memory : {&hidden, &weight, &bias})
      CHECK(memory->empty() || guards_intact(*memory), "wrote outside a gradient");
    result.numbers = numbers.collect();
    keep(result.hidden, result.weight, result.bias);
    result.memory_used = numbers.job.layer->memory_used;
    return result;
  }
};

/// `rounding`: what sums of rounded terms may be off by, relative to the sum of their magnitudes.
inline void check_layer(const std::string& what, const LayerProblem& l, const Truth& truth,
                        const LayerRun& run, const LayerResult& result, double rounding) {
  const Problem& p = l.p;
  const Dtype d = l.layer.dtype;
  check_numbers(what.c_str(), truth, result.numbers);
  CHECK(result.memory_used <= run.memory, "%s: %zu of %zu bytes", what.c_str(), result.memory_used,
        run.memory);
  const int64_t size = l.layer.hidden, vocab = p.shape.vocab;
  std::vector<double> weight(size_t(vocab * size)), weight_bound(weight.size()),
      bias(static_cast<size_t>(vocab)), bias_bound(bias.size());
  for (int64_t r = 0; r < p.rows; r++) {
    const int64_t s = p.sequence_of(r);
    const int32_t label = p.labels[size_t(r)], sft = p.sft_label(r);
    const double row = p.row_weight(r),
                 align = label == ignored ? 0 : row * result.numbers.coefficients[size_t(s)],
                 likelihood = sft == ignored ? 0 : row * double(truth.likelihood[size_t(s)]);
    const bool none = align == 0 && likelihood == 0;
    std::vector<double> gradient(static_cast<size_t>(vocab));
    for (int64_t v = 0; v < vocab && !none; v++) {
      const double probability =
          double(expl(Real(load(Dtype::float32, p.logits.data(), r * p.stride + v)) -
                      truth.logsumexp[size_t(r)]));
      gradient[size_t(v)] =
          align * ((v == label) - probability) + likelihood * ((v == sft) - probability);
      bias[size_t(v)] += gradient[size_t(v)],
          bias_bound[size_t(v)] += std::fabs(gradient[size_t(v)]);
      for (int64_t k = 0; k < size; k++) {
        const double term = gradient[size_t(v)] * load(d, l.hidden.data(), r * size + k);
        weight[size_t(v * size + k)] += term, weight_bound[size_t(v * size + k)] += std::fabs(term);
      }
    }
    for (int64_t k = 0; k < size && run.hidden; k++) {
      const double before = run.add_hidden ? load(d, result.hidden_before.data(), r * size + k) : 0,
                   value = load(d, result.hidden.data(), r * size + k);
      if (none) {
        CHECK(value == before && (run.add_hidden || !std::signbit(value)),
              "%s: row %lld counts for nothing and has %g, not %g", what.c_str(), (long long)r,
              value, before);
        continue;
      }
      double sum = before, bound = 1e-12;
      for (int64_t v = 0; v < vocab; v++) {
        const double term = gradient[size_t(v)] * load(d, l.weight.data(), v * size + k);
        sum += term, bound += std::fabs(term) * rounding;
      }
      CHECK(std::fabs(value - sum) <= bound + 0.51 * unit(d, sum),
            "%s: hidden gradient %lld %lld: %.9g, not %.9g", what.c_str(), (long long)r,
            (long long)k, value, sum);
    }
  }
  auto compare = [&](const char* name, const std::vector<float>& values,
                     const std::vector<float>& before, bool add, const std::vector<double>& sums,
                     const std::vector<double>& bounds) {
    for (size_t i = 0; i < values.size(); i++) {
      const double expected = sums[i] + (add ? double(before[i]) : 0);
      CHECK(std::fabs(double(values[i]) - expected) <=
                bounds[i] * rounding + 1e-6 * std::fabs(expected) + 1e-12,
            "%s: %s gradient %zu: %.9g, not %.9g", what.c_str(), name, i, double(values[i]),
            expected);
    }
  };
  compare("weight", result.weight, result.weight_before, run.add_weight, weight, weight_bound);
  compare("bias", result.bias, result.bias_before, run.add_bias, bias, bias_bound);
}

inline Objective with_likelihood(const char* name, double beta) {
  Objective o = reference::objective(name, beta);
  o.settings.sft_weight = 0.6;
  return o;
}

inline Shape shape_of(uint64_t seed, int64_t vocab = 37) {
  Shape shape;
  shape.vocab = vocab;
  shape.seed = seed;
  return shape;
}

template <class E, class F>
std::optional<E> thrown(F&& work) {
  try {
    work();
  } catch (const E& error) {
    return error;
  }
  return {};
}

}  // namespace problems
