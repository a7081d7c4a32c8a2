#pragma once

namespace diralign {

struct Simpo : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseLogisticWithMargin;
  static constexpr MethodInfo info = {
      .name = "simpo",
      .family = "paper",
      .score = "mean log-prob",
      .ranking = "pairwise",
      .reference = false,
      .normalize = true,
      .formula = "sp(-(beta (a_w - a_l) - gamma))",
      .source = "arXiv 2405.14734",
      .options = {options::label_smoothing(0), options::gamma(0.5)},
  };
};
DIRALIGN_METHOD(Simpo);

}  // namespace diralign
