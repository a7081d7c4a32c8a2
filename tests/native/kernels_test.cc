// The row kernels of every instruction set that runs here, against float64 and against each other.
// DIRALIGN_EXHAUSTIVE=1 tries every float32 in the exponential's and the roundings' range
// (minutes).
#include <cstdlib>
#include "kernel_rows.h"

using namespace kernel_rows;

namespace {

bool exhaustive() { return std::getenv("DIRALIGN_EXHAUSTIVE") != nullptr; }

/// Of e^x, in units in the last place.
double exp_bound(const KernelSet& set, double x) {
  // Without FMA each step of the polynomial rounds twice.
  if (std::strcmp(set.isa, "baseline") == 0) return 1.37;
  // The shorter polynomials have a rounded table, and that of AVX2 one constant for ln 2.
  return std::strcmp(set.isa, "avx2") == 0 ? 1.95 + std::fabs(x) / 21.7 : 1.08;
}

}  // namespace

TEST(kernels_exp) {
  const auto sets = kernel_sets();
  constexpr int chunk = 4096;
  constexpr uint32_t last = 0x42b00000;  // 88
  constexpr float underflow = -86.6f, zero = -88.1f;
  const uint32_t step = exhaustive() ? 1 : check::slow ? 6101 : 61;
  std::vector<double> worst(sets.size(), 0), at(sets.size(), 0);
  std::vector<float> x, y(chunk);
  std::vector<double> truth(chunk), ulp(chunk);
  auto flush = [&] {
    for (size_t i = 0; i < x.size(); i++) {
      truth[i] = std::exp(double(x[i]));
      // The distance of float32s where it lies, exponent bits only.
      uint64_t bits;
      std::memcpy(&bits, &truth[i], sizeof bits);
      bits = (bits & 0x7ff0000000000000) - (uint64_t{23} << 52);
      std::memcpy(&ulp[i], &bits, sizeof bits);
    }
    for (size_t k = 0; k < sets.size(); k++) {
      sets[k]->rows[0].exp(x.data(), y.data(), int64_t(x.size()));
      for (size_t i = 0; i < x.size(); i++) {
        if (x[i] < underflow) {
          CHECK(x[i] < zero ? to_bits(y[i]) == 0
                            : y[i] == 0 || std::fabs(double(y[i]) - truth[i]) < double(FLT_MIN),
                "%s: exp(%.9g) = %g", sets[k]->isa, double(x[i]), double(y[i]));
          continue;
        }
        const double error =
            std::fabs(double(y[i]) - truth[i]) / ulp[i] / exp_bound(*sets[k], double(x[i]));
        if (!(error <= worst[k]))
          worst[k] = std::isnan(error) ? INFINITY : error, at[k] = double(x[i]);
      }
    }
    x.clear();
  };
  auto add = [&](uint32_t bits) {
    x.push_back(from_bits(bits));
    if (x.size() == chunk) flush();
  };
  for (uint64_t bits = 0; bits <= last; bits += step) {
    add(uint32_t(bits));
    add(uint32_t(bits) | 0x80000000);
  }
  // Where the reduction of the range takes its next step, of ln 2 or a sixteenth of it, every
  // float; and around the ends.
  for (int n = -125 * 32; n <= 126 * 32; n++) {
    if (n == 0) continue;
    const uint32_t step_here = to_bits(float(n * 0.69314718055994531 / 32));
    for (uint32_t d = 0; d < 200; d++) add(step_here - 100 + d);
  }
  for (uint32_t d = 0; d < 1000; d++) {
    add(to_bits(underflow) - 500 + d);
    add(last - d);
  }
  flush();
  for (size_t k = 0; k < sets.size(); k++) {
    const double bound = exp_bound(*sets[k], at[k]), ulp_off = worst[k] * bound;
    CHECK(worst[k] <= 1, "%s: off by %.4f ulp at %.9g", sets[k]->isa, ulp_off, at[k]);
    std::printf("       exp, %s: %.4f ulp at %.9g, bound %.2f\n", sets[k]->isa, ulp_off, at[k],
                bound);
  }
}

TEST(kernels_exp_specials) {
  for (const KernelSet* set : kernel_sets()) {
    auto exp = [&](float x) {
      float y;
      set->rows[0].exp(&x, &y, 1);
      return y;
    };
    CHECK(exp(0.f) == 1);
    CHECK(exp(-0.f) == 1);
    CHECK(to_bits(exp(-infinity)) == 0, "%s: %g", set->isa, double(exp(-infinity)));
    for (float x :
         {-88.1f, -103.f, -150.f, -1e4f, -65504.f, -1e30f, -std::numeric_limits<float>::max()})
      CHECK(to_bits(exp(x)) == 0, "%s: exp(%g) = %g", set->isa, double(x), double(exp(x)));
    // Past the promised range a sum must still come out as not finite.
    CHECK(!std::isfinite(exp(infinity)), "%s: %g", set->isa, double(exp(infinity)));
    const uint32_t step = exhaustive() ? 1 : 1009;
    for (uint32_t payload = 1; payload < 0x800000;
         payload += payload == 1                                       ? 1
                    : payload + step < 0x800000 || payload == 0x7fffff ? step
                                                                       : 0x7fffff - payload) {
      CHECK(std::isnan(exp(from_bits(0x7f800000 | payload))), "%s: payload %x", set->isa, payload);
      CHECK(std::isnan(exp(from_bits(0xff800000 | payload))), "%s: payload %x, negative", set->isa,
            payload);
    }
    // The rest of a vector and its neighbours do not mix.
    std::vector<float> x, y(37, -1);
    for (int i = 0; i < 37; i++)
      x.push_back(i % 3 == 0 ? nan_value : i % 3 == 1 ? -infinity : float(-i));
    set->rows[0].exp(x.data(), y.data(), 36);
    for (int i = 0; i < 36; i++)
      CHECK(i % 3 == 0 ? std::isnan(y[size_t(i)])
            : i % 3 == 1
                ? y[size_t(i)] == 0
                : std::fabs(y[size_t(i)] - std::exp(float(-i))) <= 2e-7f * std::exp(float(-i)));
    CHECK(y[36] == -1);
  }
}

TEST(kernels_load_16_bit) {
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : {Dtype::float16, Dtype::bfloat16}) {
      const RowKernels& kernels = set->rows[int(d)];
      for (uint32_t bits = 0; bits < 65536; bits++) {
        const uint16_t value = uint16_t(bits);
        const float loaded = kernels.load(&value, 0);
        const double truth = format(d).decode(value);
        if (std::isnan(truth)) {
          CHECK(std::isnan(loaded), "%s %s %04x", set->isa, dtype_names[int(d)], bits);
        } else {
          CHECK(check::same_bits(double(loaded), truth), "%s %s %04x: %g, not %g", set->isa,
                dtype_names[int(d)], bits, double(loaded), truth);
        }
      }
    }
  }
}

TEST(kernels_round_to_16_bit) {
  std::vector<float> inputs;
  auto add = [&](double x) {
    // The number, its neighbours, and all of them below 0.
    const float f = float(x);
    for (float y : {f, std::nextafter(f, infinity), std::nextafter(f, -infinity)}) {
      inputs.push_back(y);
      inputs.push_back(-y);
    }
  };
  for (const Format* f : {&float16, &bfloat16})
    for (uint32_t bits = 0; bits < f->infinity_bits(); bits += 1) {
      // Every number and every tie, the one between the largest and what would follow included.
      const double low = f->decode(uint16_t(bits));
      const double high = bits + 1 == f->infinity_bits()
                              ? std::ldexp(1.0, (1 << f->exponent_bits()) - 1 - f->bias)
                              : f->decode(uint16_t(bits + 1));
      add(low);
      add((low + high) / 2);
    }
  for (double x : {65503.0, 65504.0, 65519.996, 65520.0, 65536.0, 1e5, 1e38, 3.38e38, 3.4028234e38,
                   0x1p-24, 0x1p-25, 0x1.8p-25, 0x1p-26, 0x1p-126, 0x1p-149, 0x1p-133, 0x1p-134})
    add(x);
  inputs.insert(inputs.end(), {infinity, -infinity, 0.f, -0.f});
  const uint32_t step = exhaustive() ? 1 : check::slow ? 100003 : 4001;
  const size_t chunk = size_t{1} << 16;
  std::vector<uint16_t> rounded(chunk);
  auto compare = [&](const std::vector<float>& x) {
    for (Dtype d : {Dtype::float16, Dtype::bfloat16}) {
      std::vector<uint16_t> truth;
      for (float v : x) truth.push_back(format(d).encode(v));
      rounded.resize(std::max(rounded.size(), x.size()));
      for (const KernelSet* set : kernel_sets()) {
        set->rows[int(d)].round(x.data(), rounded.data(), int64_t(x.size()));
        for (size_t i = 0; i < x.size(); i++)
          CHECK(rounded[i] == truth[i], "%s %s: %.9g (%08x) to %04x, not %04x", set->isa,
                dtype_names[int(d)], double(x[i]), to_bits(x[i]), rounded[i], truth[i]);
      }
    }
  };
  compare(inputs);
  std::vector<float> sample;
  for (uint64_t bits = 0; bits <= 0xff800000; bits += step) {
    if (bits > 0x7f800000 && bits < 0x80000000) bits = 0x80000000;
    sample.push_back(from_bits(uint32_t(bits)));
    if (sample.size() == chunk) compare(sample), sample.clear();
  }
  compare(sample);
  for (const KernelSet* set : kernel_sets())
    for (Dtype d : {Dtype::float16, Dtype::bfloat16})
      for (uint32_t payload = 1; payload < 0x800000; payload = payload * 2 + (payload & 1))
        for (uint32_t sign : {0u, 0x80000000u}) {
          const float x = from_bits(0x7f800000 | sign | payload);
          uint16_t y = 0, stored = 0;
          set->rows[int(d)].round(&x, &y, 1);
          set->rows[int(d)].store(&stored, 0, x);
          CHECK(format(d).is_nan(y) && format(d).is_nan(stored), "%s %s: NaN %08x to %04x",
                set->isa, dtype_names[int(d)], to_bits(x), y);
        }
}

TEST(kernels_load_and_store_one_element) {
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      Row row(d, normal_logits(40, 3, 5));
      const std::vector<double> before = row.values;
      set->rows[int(d)].store(row.data, 39, -0.375f);
      set->rows[int(d)].store(row.data, 0, 1.5f);
      for (int64_t i = 0; i < 40; i++) {
        const double expected = i == 39 ? -0.375 : i == 0 ? 1.5 : before[size_t(i)];
        CHECK(double(set->rows[int(d)].load(row.data, i)) == expected, "%s %s at %lld", set->isa,
              dtype_names[int(d)], (long long)i);
      }
    }
  }
}

TEST(kernels_reduce_every_length) {
  double worst = 0;
  for (Dtype d : dtypes) {
    // Rising and falling stretches: the maximum of the others is wherever the label is not.
    std::vector<float> logits = normal_logits(1100, 4, 6);
    for (size_t i = 0; i < logits.size(); i++) logits[i] += float(6 * std::sin(double(i) / 90));
    const Row whole(d, logits);
    const std::vector<double> weights = exponentials(whole.values, largest(whole.values));
    for (int64_t vocab = 1; vocab <= 1100;
         vocab += check::slow && vocab > 70 && vocab % 512 > 40 ? 7 : 1) {
      const Row row(d, {logits.begin(), logits.begin() + vocab});
      for (int64_t label : interesting_labels(vocab)) {
        for (const KernelSet* set : kernel_sets()) {
          const RowKernels& kernels = set->rows[int(d)];
          const RowSums sums = kernels.reduce(row.data, vocab, label);
          CHECK(sums.moment == 0);
          worst = std::max(worst, check_sums(sums, whole.values, vocab, label, weights,
                                             largest(whole.values), set->isa));
          RowSums with_moment = kernels.reduce_with_moment(row.data, vocab, label);
          with_moment.moment = 0;
          CHECK(same_sums(sums, with_moment), "%s %s: V %lld label %lld", set->isa,
                dtype_names[int(d)], (long long)vocab, (long long)label);
        }
      }
    }
  }
  std::printf("       sums: relative error at most %.3g, bound %.3g\n", worst, sum_bound);
}

TEST(kernels_reduce_large_rows) {
  double worst = 0;
  for (int64_t vocab : {8191, 8193, 32001, 50257, 128257}) {
    for (double spread : {0.01, 2.0, 12.0}) {
      std::vector<float> logits = normal_logits(vocab, spread, uint64_t(vocab));
      for (int64_t i = 1700; i < vocab; i += 9000) logits[size_t(i)] = -infinity;
      for (Dtype d : dtypes) {
        const Row row(d, logits, 3);
        const double shift = largest(row.values);
        const std::vector<double> weights = exponentials(row.values, shift);
        for (int64_t label : {int64_t{0}, vocab / 2, vocab - 1})
          for (const KernelSet* set : kernel_sets())
            worst = std::max(worst, check_sums(set->rows[int(d)].reduce(row.data, vocab, label),
                                               row.values, vocab, label, weights, shift, set->isa));
      }
    }
  }
  std::printf("       sums: relative error at most %.3g, bound %.3g\n", worst, sum_bound);
}

TEST(kernels_reduce_moving_maxima) {
  struct Shape {
    const char* name;
    double (*logit)(int64_t i);
  };
  const Shape shapes[] = {
      {"rising", [](int64_t i) { return 0.05 * double(i); }},
      {"rising by less than the slack in each block",
       [](int64_t i) { return 3.9 * double(i / 512); }},
      {"rising by the slack exactly", [](int64_t i) { return 4.0 * double(i / 512); }},
      {"rising by hundreds", [](int64_t i) { return 300.0 * double(i / 512) + double(i % 7); }},
      {"falling", [](int64_t i) { return -0.05 * double(i); }},
      {"high, then low", [](int64_t i) { return i < 512 ? 1e4 : -1e4; }},
      {"low, then high", [](int64_t i) { return i < 512 ? -65504.0 : 65504.0; }},
      {"one peak at the very end", [](int64_t i) { return i == 2500 ? 80.0 : 0.0; }},
      {"the largest numbers", [](int64_t i) { return i % 2 ? 3e38 : -3e38; }},
      {"-inf in the first blocks", [](int64_t i) { return i < 1024 ? -INFINITY : double(i % 11); }},
      {"-inf in all but one", [](int64_t i) { return i == 1800 ? -70.0 : -INFINITY; }},
      {"-inf in the last blocks", [](int64_t i) { return i < 700 ? double(i % 11) : -INFINITY; }},
      {"equal", [](int64_t) { return 17.25; }},
      {"subnormal", [](int64_t i) { return i % 2 ? 1e-40 : -1e-40; }},
      {"negative, highest in the middle",
       [](int64_t i) { return -60 - 3 * std::fabs(double(i / 512) - 2) - double(i % 11); }},
      {"large", [](int64_t i) { return 75 + double(i % 11); }},
      {"positive, and far apart", [](int64_t i) { return i < 512 ? 120.0 : double(i % 7); }},
      // Exponents wrap around after 512 ln 2.
      {"so low that powers wrap around",
       [](int64_t i) { return i % 5 ? double(i % 11) : -350.0 - double(i % 13); }},
      {"the same, after a block without",
       [](int64_t i) { return i < 1024 || i % 5 ? double(i % 11) : -88.0 - double(i % 300); }},
      {"masked by a large number", [](int64_t i) { return i % 3 ? double(i % 11) : -1e9; }},
  };
  for (const Shape& shape : shapes) {
    for (Dtype d : dtypes) {
      if (d == Dtype::float16 && std::fabs(shape.logit(1)) > 65504) continue;
      std::vector<float> logits;
      for (int64_t i = 0; i < 2501; i++) logits.push_back(float(shape.logit(i)));
      for (int64_t label : {0, 511, 512, 1800, 2048, 2500}) {
        // The label's own entry must not matter, whatever it is.
        for (float own : {logits[size_t(label)], -infinity, 0.f, 60000.f}) {
          std::vector<float> with_own = logits;
          with_own[size_t(label)] = own;
          const Row row(d, with_own);
          double shift = -std::numeric_limits<float>::max();
          for (int64_t i = 0; i < 2501; i++)
            if (i != label) shift = std::max(shift, row.values[size_t(i)]);
          const std::vector<double> weights = exponentials(row.values, shift);
          for (const KernelSet* set : kernel_sets()) {
            const RowKernels& kernels = set->rows[int(d)];
            const RowSums sums = kernels.reduce(row.data, 2501, label);
            check_sums(sums, row.values, 2501, label, weights, shift, shape.name);
            RowSums with_moment = kernels.reduce_with_moment(row.data, 2501, label);
            with_moment.moment = 0;
            CHECK(same_sums(sums, with_moment), "%s: %s", set->isa, shape.name);
          }
        }
      }
    }
  }
}

TEST(kernels_reduce_unaligned) {
  for (Dtype d : dtypes) {
    for (int64_t vocab : {1, 31, 33, 513, 1100}) {
      const std::vector<float> logits = normal_logits(vocab, 5, 8);
      for (const KernelSet* set : kernel_sets()) {
        const RowSums aligned = set->rows[int(d)].reduce(Row(d, logits).data, vocab, vocab / 2);
        for (int64_t offset = 1; offset < 33; offset++)
          CHECK(same_sums(aligned,
                          set->rows[int(d)].reduce(Row(d, logits, offset).data, vocab, vocab / 2)),
                "%s %s: V %lld offset %lld", set->isa, dtype_names[int(d)], (long long)vocab,
                (long long)offset);
      }
    }
  }
}

TEST(kernels_reduce_not_finite) {
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      const RowKernels& kernels = set->rows[int(d)];
      for (int64_t vocab : {1, 2, 40, 512, 513, 1500}) {
        for (int64_t place : interesting_labels(vocab)) {
          const int64_t label = place == 0 ? vocab - 1 : 0;
          for (float bad : {nan_value, -nan_value, infinity}) {
            std::vector<float> logits = normal_logits(vocab, 3, 9);
            logits[size_t(place)] = bad;
            const Row row(d, logits);
            // In place of another class it spoils the row ...
            if (label != place) {
              CHECK(std::isnan(kernels.reduce(row.data, vocab, label).sum),
                    "%s %s: V %lld, %g at %lld", set->isa, dtype_names[int(d)], (long long)vocab,
                    double(bad), (long long)place);
              CHECK(std::isnan(row_statistics(kernels.reduce(row.data, vocab, label)).logp));
            }
            // ... and as the label's own entry too, though the others' sum is sound.
            const RowSums own = kernels.reduce(row.data, vocab, place);
            CHECK(std::isfinite(own.sum));
            CHECK(std::isnan(row_statistics(own).logp), "%s %s: V %lld, label %g", set->isa,
                  dtype_names[int(d)], (long long)vocab, double(bad));
          }
          // Nothing but -inf has no distribution; a -inf label has probability 0; a label alone
          // has 1.
          std::vector<float> none(size_t(vocab), -infinity);
          CHECK(std::isnan(row_statistics(kernels.reduce(Row(d, none).data, vocab, place)).logp));
          none[size_t(place)] = -3;
          const RowStatistics certain =
              row_statistics(kernels.reduce(Row(d, none).data, vocab, place));
          CHECK(certain.logp == 0 && certain.max == -3 && certain.normalizer == 1);
          if (label != place)
            CHECK(row_statistics(kernels.reduce(Row(d, none).data, vocab, label)).logp ==
                  -INFINITY);
        }
      }
    }
  }
}

TEST(kernels_log_probability) {
  // Of a label far above or below the others: the digits that target - logsumexp would lose.
  for (const KernelSet* set : kernel_sets()) {
    for (float own : {-60000.f, -500.f, -30.f, 0.f, 10.f, 16.f, 20.f, 30.f, 50.f, 80.f}) {
      std::vector<float> logits = normal_logits(1000, 1, 10);
      logits[700] = own;
      const Row row(Dtype::float32, logits);
      long double others = 0;
      for (int64_t i = 0; i < 1000; i++)
        if (i != 700) others += expl(row.values[size_t(i)]);
      const long double truth =
          -(own > 0 ? log1pl(others * expl(-(long double)own)) : logl(others + expl(own)) - own);
      const double logp = row_statistics(set->rows[0].reduce(row.data, 1000, 700)).logp;
      CHECK(std::fabs(logp - double(truth)) <=
                6e-7 * std::min(1.0, std::fabs(double(truth))) + 1e-15 * std::fabs(double(truth)),
            "%s: label %g: %.17g, not %.17Lg", set->isa, double(own), logp, truth);
    }
  }
}

TEST(kernels_negative_softmax_in_place) {
  std::vector<int64_t> lengths = {8191, 32001};
  for (int64_t v = 1; v <= 1100; v += v > 70 && v % 512 > 34 && v % 512 < 480 ? 29 : 1)
    lengths.push_back(v);
  for (const KernelSet* set : kernel_sets()) {
    const RowKernels& kernels = set->rows[0];
    for (int64_t vocab : lengths) {
      for (int rising = 0; rising < 2; rising++) {
        std::vector<float> logits = normal_logits(vocab, 3, 11);
        if (rising)
          for (size_t i = 0; i < logits.size(); i++) logits[i] += float(double(i) * 0.06);
        if (vocab > 20) logits[size_t(vocab / 2)] = -infinity;
        for (int64_t label : interesting_labels(vocab)) {
          Guarded<float> row(size_t(vocab), size_t(vocab % 16));
          Guarded<float> references(size_t((vocab - 1) / block_elements + 1), 0);
          std::memcpy(row.data(), logits.data(), logits.size() * sizeof(float));
          const RowSums expected = kernels.reduce(row.data(), vocab, label);
          const RowSums sums =
              kernels.negative_softmax_in_place(row.data(), vocab, label, references.data());
          CHECK(same_sums(sums, expected), "%s: V %lld label %lld", set->isa, (long long)vocab,
                (long long)label);
          CHECK(row.intact() && references.intact(), "%s: V %lld label %lld: wrote past the row",
                set->isa, (long long)vocab, (long long)label);
          const RowStatistics s = row_statistics(sums);
          const double logsum = s.max + std::log(s.normalizer);
          for (int64_t i = 0; i < vocab; i++) {
            if (i == label) continue;
            const double truth = -std::exp(double(logits[size_t(i)]) - logsum),
                         value = double(row.data()[i]);
            CHECK(std::fabs(value - truth) <= 5e-6 * std::fabs(truth) + 1e-37,
                  "%s: V %lld label %lld at %lld: %g, not %g", set->isa, (long long)vocab,
                  (long long)label, (long long)i, value, truth);
          }
        }
      }
    }
    CHECK(!set->rows[1].negative_softmax_in_place && !set->rows[2].negative_softmax_in_place);
    // Rows that are not numbers: the same NaNs as reduce()'s, and still nothing past the row.
    for (float bad : {nan_value, infinity, -infinity}) {
      for (int64_t place : {0, 600, 1299}) {
        for (bool everywhere : {false, true}) {
          std::vector<float> logits =
              everywhere ? std::vector<float>(1300, bad) : normal_logits(1300, 3, 12);
          logits[size_t(place)] = bad;
          for (int64_t label : {int64_t{0}, int64_t{600}, int64_t{1299}}) {
            Guarded<float> row(1300, 1), references(3, 0);
            std::memcpy(row.data(), logits.data(), logits.size() * sizeof(float));
            const RowSums expected = kernels.reduce(row.data(), 1300, label);
            CHECK(same_sums(expected, kernels.negative_softmax_in_place(row.data(), 1300, label,
                                                                        references.data())),
                  "%s: %g at %lld, label %lld", set->isa, double(bad), (long long)place,
                  (long long)label);
            CHECK(row.intact() && references.intact());
          }
        }
      }
    }
  }
}

namespace {

template <class T>
void check_scaled_exp(Dtype d) {
  const double unit = d == Dtype::float32 ? 0x1p-24 : d == Dtype::float16 ? 0x1p-11 : 0x1p-8;
  const double smallest = d == Dtype::float32 ? 0x1p-149 : d == Dtype::float16 ? 0x1p-24 : 0x1p-133;
  const float shift = 7.5f, factor = -0.37f;
  for (const KernelSet* set : kernel_sets()) {
    const RowKernels& kernels = set->rows[int(d)];
    for (int64_t vocab : {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100, 129, 511, 1003}) {
      std::vector<float> logits = normal_logits(vocab, 4, 13);
      for (size_t i = 0; i < logits.size(); i += 5)
        logits[i] = i % 2 ? -infinity : float(-int64_t(i));
      std::vector<T> first(static_cast<size_t>(vocab));
      {
        const Row row(d, logits);
        kernels.scaled_exp(row.data, first.data(), vocab, shift, factor, false);
        for (int64_t i = 0; i < vocab; i++) {
          const double truth = double(factor) * std::exp(row.values[size_t(i)] - double(shift)),
                       value = double(kernels.load(first.data(), i));
          // Once rounded: half a unit of the dtype, on top of float32's own error.
          CHECK(std::fabs(value - truth) <= (unit + 4e-6) * std::fabs(truth) + 0.51 * smallest +
                                                (d == Dtype::float16 ? 0 : 1e-37),
                "%s %s: V %lld at %lld: %g, not %g", set->isa, dtype_names[int(d)],
                (long long)vocab, (long long)i, value, truth);
        }
      }
      for (size_t offset = 0; offset < 64 / sizeof(T); offset++) {
        const Row row(d, logits, int64_t(offset * 5 % 16));
        for (bool stream : {false, true}) {
          Guarded<T> out(size_t(vocab), offset);
          kernels.scaled_exp(row.data, out.data(), vocab, shift, factor, stream);
          CHECK(std::memcmp(out.data(), first.data(), first.size() * sizeof(T)) == 0,
                "%s %s: V %lld offset %zu stream %d", set->isa, dtype_names[int(d)],
                (long long)vocab, offset, int(stream));
          CHECK(out.intact(), "%s %s: V %lld offset %zu stream %d: wrote past the row", set->isa,
                dtype_names[int(d)], (long long)vocab, offset, int(stream));
        }
        Guarded<T> in_place(size_t(vocab), offset);
        std::memcpy(in_place.data(), row.data, size_t(vocab) * sizeof(T));
        kernels.scaled_exp(in_place.data(), in_place.data(), vocab, shift, factor, false);
        CHECK(std::memcmp(in_place.data(), first.data(), first.size() * sizeof(T)) == 0 &&
                  in_place.intact(),
              "%s %s: V %lld offset %zu in place", set->isa, dtype_names[int(d)], (long long)vocab,
              offset);
      }
    }
  }
}

}  // namespace

TEST(kernels_scaled_exp) {
  check_scaled_exp<float>(Dtype::float32);
  check_scaled_exp<uint16_t>(Dtype::float16);
  check_scaled_exp<uint16_t>(Dtype::bfloat16);
}

TEST(kernels_entropy) {
  double worst = 0;
  for (const KernelSet* set : kernel_sets()) {
    for (Dtype d : dtypes) {
      for (int64_t vocab : {1, 2, 33, 513, 1100, 32001}) {
        for (double spread : {0.0, 1.0, 8.0, 60.0}) {
          for (double slope : {0.0, 0.01}) {
            std::vector<float> logits = normal_logits(vocab, spread, 14);
            for (size_t i = 0; i < logits.size(); i++) logits[i] += float(slope * double(i));
            if (vocab > 40) logits[40] = -infinity;
            const Row row(d, logits);
            for (int64_t label : {int64_t{0}, vocab / 2, vocab - 1}) {
              const double max = largest(row.values);
              double sum = 0, moment = 0;
              for (double x : row.values) {
                const double e = std::exp(x - max);
                sum += e;
                if (e > 0) moment += e * (x - max);
              }
              const double truth = std::log(sum) - moment / sum;
              const RowSums sums = set->rows[int(d)].reduce_with_moment(row.data, vocab, label);
              const RowStatistics s = row_statistics(sums);
              const double value = entropy(s, sums),
                           error = std::fabs(value - truth) / std::max(1.0, truth);
              CHECK(error <= 2e-6, "%s %s: V %lld spread %g label %lld: %.17g, not %.17g", set->isa,
                    dtype_names[int(d)], (long long)vocab, spread, (long long)label, value, truth);
              CHECK(std::fabs(logsumexp(s) - (max + std::log(sum))) <= 1e-6, "%s %s: V %lld",
                    set->isa, dtype_names[int(d)], (long long)vocab);
              worst = std::max(worst, error);
            }
          }
        }
      }
    }
  }
  std::printf("       entropy: error at most %.3g, bound 2e-6\n", worst);
}

TEST(kernels_memory_loops) {
  for (const KernelSet* set : kernel_sets()) {
    for (int64_t n : {0, 1, 15, 64, 67, 1001}) {
      std::vector<float> x;
      for (int64_t i = 0; i < n; i++) x.push_back(float(i % 17));
      double sum = 0;
      for (float v : x) sum += double(v);
      CHECK(double(set->loops.read(x.data(), n)) == sum, "%s: %lld", set->isa, (long long)n);
      set->loops.scale(x.data(), n, -2);
      for (int64_t i = 0; i < n; i++) CHECK(x[size_t(i)] == float(-2 * (i % 17)));
    }
  }
}

TEST(kernels_dispatch) {
  CHECK(find_kernel_set("baseline"));
  CHECK(!find_kernel_set("sse9"));
  for (const KernelSet* set : kernel_sets()) CHECK(find_kernel_set(set->isa) == set);
  const char* wanted = std::getenv("DIRALIGN_ISA");
  // That of AVX-512, but for the products: tests/native/products_test.cc.
  const KernelSet* best =
      find_kernel_set("avx512_bf16") ? find_kernel_set("avx512_bf16") : kernel_sets().back();
  const KernelSet* expected = wanted && find_kernel_set(wanted) ? find_kernel_set(wanted) : best;
  CHECK(&kernel_set() == expected);
  std::printf("       instruction sets here:");
  for (const KernelSet* set : kernel_sets()) std::printf(" %s", set->isa);
  std::printf("; chosen: %s\n", kernel_set().isa);
}
