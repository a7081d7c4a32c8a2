#pragma once

namespace diralign {

struct Asft : OfPairs {
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
      .options = {options::lambda(1)},
  };
};
DIRALIGN_METHOD(Asft);

}  // namespace diralign
