#pragma once

namespace diralign {

struct CalDpo : OfPairs {
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
      .options = {options::calibration_weight(1)},
  };
};
DIRALIGN_METHOD(CalDpo);

}  // namespace diralign
