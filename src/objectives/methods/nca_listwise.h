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
      .formula = "sum_k (y_k sp(-beta s_k) + sp(beta s_k) / K), y as in info_nca",
      .source = "arXiv 2402.05369",
      .options = {options::reward_temperature()},
      .fields = {&Fields::rewards},
  };
};
DIRALIGN_METHOD(NcaListwise);

}  // namespace diralign
