#pragma once

namespace diralign {

struct Sft : OfSequences {
  using Score = LogRatio;
  using Ranking = Likelihood;
  static constexpr MethodInfo info = {
      .name = "sft",
      .family = "paper",
      .score = "mean log-prob",
      .ranking = "likelihood",
      .reference = false,
      .normalize = true,
      .formula = "-a_w",
      .source = "maximum likelihood; reductions of arXiv 2502.01237 section 2.1",
      .beta = false,
  };
};
DIRALIGN_METHOD(Sft);

}  // namespace diralign
