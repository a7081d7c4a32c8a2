#pragma once

namespace diralign {

struct RDpo : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseLogisticWithLength;
  static constexpr MethodInfo info = {
      .name = "r_dpo",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-(beta (r_w - r_l) + alpha (L_w - L_l)))",
      .source =
          "arXiv 2403.19159; sign of the length term as derived from a reward that pays alpha per "
          "token",
      .options = {options::alpha(0.05, "reward of a token")},
  };
};
DIRALIGN_METHOD(RDpo);

}  // namespace diralign
