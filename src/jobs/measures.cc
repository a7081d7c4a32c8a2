#include "measures.h"

namespace diralign {

void write_measures(Job& job, const Array<RowMeasures>& rows) {
  double entropies = 0, largest = 0;
  double logits[2] = {}, counts[2] = {};  // by place: chosen, rejected
  for (size_t i = 0; i < rows.size(); i++) {
    const ScoredRow& r = job.rows.scored[i];
    if (!r.has_label()) continue;
    const int64_t place = job.rows.units.place(r.sequence);
    counts[place]++;
    entropies += rows[i].entropy;
    if (place == 0) largest += rows[i].is_largest;
    logits[place] += rows[i].mean_logit;
  }
  auto mean = [](double sum, double count) { return count > 0 ? sum / count : 0; };
  double* const m = job.loss->outputs.metrics;
  m[mean_entropy] = mean(entropies, counts[0] + counts[1]);
  m[token_accuracy] = mean(largest, counts[0]);
  m[logits_chosen] = mean(logits[0], counts[0]);
  m[logits_rejected] = mean(logits[1], counts[1]);
}

}  // namespace diralign
