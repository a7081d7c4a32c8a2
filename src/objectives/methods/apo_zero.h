#pragma once

namespace diralign {

struct ApoZero {
  using Score = LogRatio;
  using Ranking = PointwiseSigmoid;
  static constexpr MethodInfo info = {
      .name = "apo_zero",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "1 - sg(beta r_w) + sg(beta r_l)",
      .source = "arXiv 2408.06266, equation 7 (arXiv 2502.01237 drops the constant 1)",
      .beta_grid = {0.001, 0.003, 0.005, 0.01, 0.05, 0.1, 0.2},
      .best = {{3e-07, 0.001},
               {3e-07, 0.005},
               {3e-07, 0.003},
               {3e-07, 0.01},
               {1e-06, 0.01},
               {3e-07, 0.0005}},
  };
};
DIRALIGN_METHOD(ApoZero);

}  // namespace diralign
