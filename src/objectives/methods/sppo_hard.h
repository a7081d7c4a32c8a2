#pragma once

namespace diralign {

struct SppoHard : OfPairs {
  using Score = LogRatio;
  using Ranking = PointwiseSquared;
  static constexpr MethodInfo info = {
      .name = "sppo_hard",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "(r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2",
      .source = "arXiv 2405.00675",
  };
};
DIRALIGN_METHOD(SppoHard);

}  // namespace diralign
