#pragma once

namespace diralign {

struct Discopop : OfPairs {
  using Score = LogRatio;
  using Ranking = PairwiseDiscovered;
  static constexpr MethodInfo info = {
      .name = "discopop",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula = "(1 - m) sp(-u) + m exp(-u), m = sg(u / tau)",
      .source = "arXiv 2406.08414",
      .options = {options::tau(0.05)},
  };
};
DIRALIGN_METHOD(Discopop);

}  // namespace diralign
