#pragma once

namespace diralign {

struct Orpo {
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
      .options = {{Option::lambda, 1}},
      .beta_grid = {0.05, 0.1, 0.2, 0.5, 1, 2},
      .best =
          {{3e-07, 0.5}, {5e-07, 0.2}, {5e-07, 0.5}, {3e-07, 0.7}, {3e-07, 0.001}, {3e-07, 0.005}},
  };
};
DIRALIGN_METHOD(Orpo);

}  // namespace diralign
