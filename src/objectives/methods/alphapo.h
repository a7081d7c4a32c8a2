#pragma once

namespace diralign {

struct Alphapo : OfPairs {
  using Score = AlphaLogProb;
  using Ranking = PairwiseLogisticWithMargin;
  static constexpr MethodInfo info = {
      .name = "alphapo",
      .family = "wider",
      .score = "alpha log-prob",
      .ranking = "pairwise",
      .reference = false,
      .normalize = true,
      .formula = "sp(-(beta (s_w - s_l) - gamma)), s = (1 - exp(-alpha a)) / alpha",
      .source = "arXiv 2501.03884",
      .options = {options::label_smoothing(0), options::gamma(0.5), options::alpha(0.25)},
  };
};
DIRALIGN_METHOD(Alphapo);

}  // namespace diralign
