#pragma once

namespace diralign {

struct Cpo : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "cpo",
      .family = "wider",
      .score = "log-prob",
      .ranking = "pairwise",
      .reference = false,
      .normalize = false,
      .formula = "sp(-beta (S_w - S_l))",
      .source = "arXiv 2401.08417 (its likelihood term is sftWeight: 1)",
      .options = {options::label_smoothing(0)},
  };
};
DIRALIGN_METHOD(Cpo);

}  // namespace diralign
