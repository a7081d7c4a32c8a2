#pragma once

namespace diralign {

struct CalDpo {
  using Score = LogRatio;
  using Ranking = CalibratedLogistic;
  static constexpr MethodInfo info = {
      .name = "cal_dpo",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula =
          "sp(-(r_w - r_l)) + calibrationWeight ((r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2)",
      .source = "arXiv 2412.14516 as in arXiv 2502.01237 (weight 1; the official code has 0.5)",
      .options = {{Option::calibration_weight, 1}},
      .beta_grid = {5e-05, 0.0001, 0.0003, 0.0005, 0.001, 0.003},
      .best = {{3e-07, 3e-05},
               {5e-07, 0.0003},
               {3e-07, 0.0003},
               {3e-07, 0.0005},
               {1e-06, 0.0003},
               {3e-07, 1e-05}},
  };
};
DIRALIGN_METHOD(CalDpo);

}  // namespace diralign
