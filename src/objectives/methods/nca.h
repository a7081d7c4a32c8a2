#pragma once

namespace diralign {

struct Nca : OfPairs {
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
  };
};
DIRALIGN_METHOD(Nca);

}  // namespace diralign
