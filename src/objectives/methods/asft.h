#pragma once

namespace diralign {

struct Asft {
  using Score = LogOdds;
  using Ranking = PointwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "asft",
      .family = "paper",
      .score = "log-odds",
      .ranking = "pointwise",
      .reference = false,
      .normalize = true,
      .formula = "lambda (sp(-beta o_w) + sp(beta o_l))",
      .source = "arXiv 2409.10571; tempered form arXiv 2502.01237 section 3.1.2",
      .options = {{Option::lambda, 1}},
      .beta_grid = {0.05, 0.1, 0.2, 0.5, 1, 2},
      .best =
          {{3e-07, 0.001}, {1e-06, 0.2}, {7e-07, 0.1}, {5e-07, 0.3}, {3e-07, 0.1}, {7e-07, 0.5}},
  };
};
DIRALIGN_METHOD(Asft);

}  // namespace diralign
