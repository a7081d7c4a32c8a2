#pragma once

namespace diralign {

struct PlackettLuceModel : OfGroups {
  using Score = LogRatio;
  using Ranking = PlackettLuce;
  static constexpr MethodInfo info = {
      .name = "plackett_luce",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "listwise",
      .reference = true,
      .normalize = false,
      .formula = "sum(lse(u_k) - u_k)",
      .source = "arXiv 2305.18290, appendix A.3",
      .fields = {&Fields::best_first},
  };
};
DIRALIGN_METHOD(PlackettLuceModel);

}  // namespace diralign
