#pragma once

namespace diralign {

struct Dpop : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseWithFloor;
  static constexpr MethodInfo info = {
      .name = "dpop",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "sp(-beta (r_w - r_l - penalty max(0, -r_w)))",
      .source = "arXiv 2402.13228 (Smaug)",
      .options = {options::penalty(50)},
  };
};
DIRALIGN_METHOD(Dpop);

}  // namespace diralign
