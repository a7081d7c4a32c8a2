#pragma once

namespace diralign {

struct Nca {
  using Score = LogRatio;
  using Ranking = PointwiseContrastive;
  static constexpr MethodInfo info = {
      .name = "nca",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-beta r_w) + sp(beta r_w) / 2 + sp(beta r_l) / 2",
      .source = "arXiv 2402.05369, pairwise form",
      .beta_grid = {0.0001, 0.0003, 0.0005, 0.001, 0.005, 0.007, 0.01, 0.03, 0.05},
      .best = {{3e-07, 0.0001},
               {3e-07, 0.0005},
               {3e-07, 0.0003},
               {7e-07, 0.001},
               {1e-06, 0.001},
               {3e-07, 0.0001}},
  };
};
DIRALIGN_METHOD(Nca);

}  // namespace diralign
