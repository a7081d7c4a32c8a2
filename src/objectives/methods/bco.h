#pragma once

namespace diralign {

struct Bco : OfSequences {
  using Score = LogRatio;
  using Ranking = BeyondShift;
  static constexpr MethodInfo info = {
      .name = "bco",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "dW d sp(shift - beta r) + uW (1 - d) sp(beta r - shift)",
      .source = "arXiv 2404.04656, equation 12",
      .options = {options::desirable_weight(), options::undesirable_weight()},
      .fields = {&Fields::desirable, &Fields::shift},
  };
};
DIRALIGN_METHOD(Bco);

}  // namespace diralign
