#pragma once

namespace diralign {

struct ApoDown : OfPairs {
  using Score = LogRatio;
  using Ranking = PointwiseSigmoidDown;
  static constexpr MethodInfo info = {
      .name = "apo_down",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "sg(beta r_w) + 1 - sg(beta (r_w - r_l))",
      .source = "arXiv 2408.06266, equation 8",
  };
};
DIRALIGN_METHOD(ApoDown);

}  // namespace diralign
