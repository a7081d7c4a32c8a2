#pragma once

namespace diralign {

struct Simper : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseProbability;
  static constexpr MethodInfo info = {
      .name = "simper",
      .family = "wider",
      .score = "mean log-prob",
      .ranking = "pairwise",
      .reference = false,
      .normalize = true,
      .formula = "exp(a_l) - exp(a_w)",
      .source = "arXiv 2502.00883",
      .beta = false,
  };
};
DIRALIGN_METHOD(Simper);

}  // namespace diralign
