#pragma once

namespace diralign {

struct NcaListwise : OfGroups {
  using Score = LogRatio;
  using Ranking = SoftContrast;
  static constexpr MethodInfo info = {
      .name = "nca_listwise",
      .family = "wider",
      .score = "log-ratio to the reference",
      .ranking = "pointwise",
      .reference = true,
      .normalize = false,
      .formula = "sum(y_k sp(-u_k) + sp(u_k) / K)",
      .source = "arXiv 2402.05369",
      .options = {options::reward_temperature()},
      .fields = {&Fields::rewards},
  };
};
DIRALIGN_METHOD(NcaListwise);

}  // namespace diralign
