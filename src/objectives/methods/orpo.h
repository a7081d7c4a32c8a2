#pragma once

namespace diralign {

struct Orpo : OfPairs {
  using Score = LogOdds;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "orpo",
      .family = "paper",
      .score = "log-odds",
      .ranking = "pairwise",
      .reference = false,
      .normalize = true,
      .formula = "lambda sp(-beta (o_w - o_l))",
      .source = "arXiv 2403.07691, equations 3-7; tempered form arXiv 2502.01237 section 3.1.2",
      .options = {options::lambda(1)},
  };
};
DIRALIGN_METHOD(Orpo);

}  // namespace diralign
