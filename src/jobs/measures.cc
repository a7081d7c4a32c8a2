#include "measures.h"

namespace diralign {

MeasureSums sum_measures(const Job& job, const Array<RowMeasures>& rows) {
  MeasureSums sums;
  const Units& units = job.rows.units;
  int64_t unit = -1, chosen = -1;
  for (size_t i = 0; i < rows.size(); i++) {
    const ScoredRow& r = job.rows.scored[i];
    if (!r.has_label()) continue;
    // Rows come unit by unit but for pairs, whose chosen are known without a look at a field.
    if (const int64_t own = units.unit_of(r.sequence); own != unit)
      unit = own, chosen = chosen_sequence(units, job.batch.fields, unit);
    const bool rejected = r.sequence != chosen;
    sums.counts[rejected]++;
    sums.entropies += rows[i].entropy;
    if (!rejected) sums.largest += rows[i].is_largest;
    sums.logits[rejected] += rows[i].mean_logit;
  }
  return sums;
}

void write_measures(Job& job, const MeasureSums& sums) {
  const double *const logits = sums.logits, *const counts = sums.counts;
  auto mean = [](double sum, double count) { return count > 0 ? sum / count : 0; };
  double* const m = job.loss->outputs.metrics;
  m[mean_entropy] = mean(sums.entropies, counts[0] + counts[1]);
  m[token_accuracy] = mean(sums.largest, counts[0]);
  m[logits_chosen] = mean(logits[0], counts[0]);
  m[logits_rejected] = mean(logits[1], counts[1]);
}

}  // namespace diralign
