#include "job.h"

namespace diralign {

const LossWanted& Job::wanted() const {
  if (loss) return *loss;
  static const LossWanted nothing{};
  return nothing;
}

BatchTerms Job::terms() const {
  if (loss)
    return batch_terms(loss->objective, rows.units, rows.counts.data(), rows.sft_counts.data(),
                       loss->reference.empty() ? nullptr : loss->reference.data());
  BatchTerms terms{};
  terms.units = rows.units;
  terms.counts = rows.counts.data();
  terms.sft_counts = rows.sft_counts.data();
  return terms;
}

RowCoefficients row_coefficients(const LossWanted& wanted, const BatchLoss& loss,
                                 const ScoredRow& row) {
  const double align = row.has_label() ? wanted.outputs.coefficients[row.sequence] : 0;
  const double likelihood = row.sft_label >= 0 ? loss.likelihood_coefficient(row.sequence) : 0;
  return {gradient_coefficient(align, wanted.gradient_scale),
          gradient_coefficient(likelihood, wanted.gradient_scale)};
}

}  // namespace diralign
