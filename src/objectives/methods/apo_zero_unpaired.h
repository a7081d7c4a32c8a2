#pragma once

namespace diralign {

struct ApoZeroUnpaired : OfSequences {
  using Score = LogRatio;
  using Ranking = BeyondZero;
  static constexpr MethodInfo info = {
      .name = "apo_zero_unpaired",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "dW d sg(-beta r) + uW (1 - d) sg(beta r)",
      .source = "arXiv 2408.06266, over single sequences",
      .options = {options::desirable_weight(), options::undesirable_weight()},
      .fields = {&Fields::desirable},
  };
};
DIRALIGN_METHOD(ApoZeroUnpaired);

}  // namespace diralign
