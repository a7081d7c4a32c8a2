#pragma once

namespace diralign {

struct AotUnpaired : OfSortedScores {
  using Score = LogRatio;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "aot_unpaired",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula =
          "cDPO on beta D_i, D_i the difference of the i-th smallest chosen and rejected "
          "log-ratios",
      .source = "arXiv 2406.05882, unpaired",
      .options = {options::label_smoothing(0)},
  };
};
DIRALIGN_METHOD(AotUnpaired);

}  // namespace diralign
