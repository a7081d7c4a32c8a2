#pragma once

namespace diralign {

struct Aot : OfSortedMargins {
  using Score = LogRatio;
  using Ranking = PairwiseLogistic;
  static constexpr MethodInfo info = {
      .name = "aot",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pairwise",
      .reference = true,
      .normalize = false,
      .formula =
          "cDPO on beta D_i, D_i the difference of the i-th smallest policy and reference margins",
      .source = "arXiv 2406.05882, paired",
      .options = {options::label_smoothing(0)},
  };
};
DIRALIGN_METHOD(Aot);

}  // namespace diralign
