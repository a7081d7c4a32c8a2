#pragma once

namespace diralign {

struct ExoPair : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseExo;
  static constexpr MethodInfo info = {
      .name = "exo_pair",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "KL((sg(u), sg(-u)) || (1 - eps, eps))",
      .source = "arXiv 2402.00856",
      .options = {options::label_smoothing(0.001,
                                           {.min = 0, .above = true, .max = 1, .below = true})},
      .preferences = {.min = 0, .above = true, .max = 1, .below = true},
  };
};
DIRALIGN_METHOD(ExoPair);

}  // namespace diralign
