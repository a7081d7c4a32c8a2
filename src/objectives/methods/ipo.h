#pragma once

namespace diralign {

struct Ipo : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseSquared;
  static constexpr MethodInfo info = {
      .name = "ipo",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "(r_w - r_l - 1 / (2 beta))^2",
      .source = "arXiv 2310.12036, equation 17",
      .fields = {&Fields::targets},
  };
};
DIRALIGN_METHOD(Ipo);

}  // namespace diralign
