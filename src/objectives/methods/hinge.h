#pragma once

namespace diralign {

struct Hinge : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseHinge;
  static constexpr MethodInfo info = {
      .name = "hinge",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "max(0, 1 - beta (r_w - r_l))",
      .source = "arXiv 2309.06657 (RSO); without a reference arXiv 2305.10425 (SLiC-HF)",
  };
};
DIRALIGN_METHOD(Hinge);

}  // namespace diralign
