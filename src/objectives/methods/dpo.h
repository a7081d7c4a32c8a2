#pragma once

namespace diralign {

struct Dpo : OfPairs {
  using Score = DivergenceScore;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "dpo",
      .family = "paper",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-beta (s_w - s_l))",
      .source = "arXiv 2305.18290, equation 7; divergences arXiv 2309.16240",
      .options = {options::label_smoothing(0), options::divergence(), options::alpha(0.5)},
  };
};
DIRALIGN_METHOD(Dpo);

}  // namespace diralign
