#pragma once

namespace diralign {

struct Kto : OfSequences {
  using Score = LogRatio;
  using Ranking = BeyondBaseline;
  static constexpr MethodInfo info = {
      .name = "kto",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "dW d sg(beta (z - r)) + uW (1 - d) sg(beta (r - z))",
      .source = "arXiv 2402.01306, equation 8",
      .options = {options::desirable_weight(), options::undesirable_weight()},
      .fields = {&Fields::desirable, &Fields::kl},
  };
};
DIRALIGN_METHOD(Kto);

}  // namespace diralign
