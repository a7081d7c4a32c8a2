#include "measures.h"

namespace diralign {

void write_measures(Job& job, const Array<RowMeasures>& rows) {
  double entropies = 0, largest = 0;
  double logits[2] = {}, counts[2] = {};  // chosen, rejected
  const Units& units = job.rows.units;
  int64_t unit = -1, chosen = -1;
  for (size_t i = 0; i < rows.size(); i++) {
    const ScoredRow& r = job.rows.scored[i];
    if (!r.has_label()) continue;
    // Rows come unit by unit but for pairs, whose chosen are known without a look at a field.
    if (const int64_t own = units.unit_of(r.sequence); own != unit)
      unit = own, chosen = chosen_sequence(units, job.batch.fields, unit);
    const bool rejected = r.sequence != chosen;
    counts[rejected]++;
    entropies += rows[i].entropy;
    if (!rejected) largest += rows[i].is_largest;
    logits[rejected] += rows[i].mean_logit;
  }
  auto mean = [](double sum, double count) { return count > 0 ? sum / count : 0; };
  double* const m = job.loss->outputs.metrics;
  m[mean_entropy] = mean(entropies, counts[0] + counts[1]);
  m[token_accuracy] = mean(largest, counts[0]);
  m[logits_chosen] = mean(logits[0], counts[0]);
  m[logits_rejected] = mean(logits[1], counts[1]);
}

}  // namespace diralign
