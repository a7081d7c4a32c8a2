#pragma once

namespace diralign {

struct ApoZero : OfPairs {
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
  };
};
DIRALIGN_METHOD(ApoZero);

}  // namespace diralign
