#pragma once

namespace diralign {

struct InfoNca : OfGroups {
  using Score = LogRatio;
  using Ranking = SoftLabels;
  static constexpr MethodInfo info = {
      .name = "info_nca",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "listwise",
      .reference = true,
      .normalize = false,
      .formula = "sum(y_k (lse(u) - u_k))",
      .source = "arXiv 2402.05369",
      .options = {options::reward_temperature()},
      .fields = {&Fields::rewards},
  };
};
DIRALIGN_METHOD(InfoNca);

}  // namespace diralign
