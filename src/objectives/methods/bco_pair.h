#pragma once

namespace diralign {

struct BcoPair : OfPairs {
  using Score = LogRatio;
  using Ranking = PointwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "bco_pair",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-beta r_w) + sp(beta r_l)",
      .source = "arXiv 2404.04656, paired, without the running shift",
  };
};
DIRALIGN_METHOD(BcoPair);

}  // namespace diralign
