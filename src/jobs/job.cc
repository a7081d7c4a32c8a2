#include "job.h"
#include <numeric>
#include "distributed/parallel.h"
#include "objectives/catalogue.h"

namespace diralign {

bool LossWanted::is_linear() const {
  return std::all_of(objectives.begin(), objectives.end(),
                     [](const Objective& o) { return facts_of(o.method).is_linear; });
}

bool LossWanted::is_opposite() const {
  return std::all_of(objectives.begin(), objectives.end(), [&](const Objective& o) {
    return o.settings.sft_weight == 0 &&
           o.settings.normalize == objectives.front().settings.normalize &&
           opposite_coefficients(o.method, o.settings);
  });
}

const MeasuresAsked& Job::asked() const {
  static const MeasuresAsked nothing{};
  return loss ? loss->asked : nothing;
}

double Job::scored_tokens() const {
  if (given_logps)
    return std::accumulate(given_logps->lengths.begin(), given_logps->lengths.end(), 0.0);
  return std::accumulate(rows.counts.begin(), rows.counts.end(), 0.0);
}

BatchTerms Job::terms() const {
  SequenceData data{rows.units, lengths(), sft_lengths(), nullptr, batch.fields};
  if (!loss) return batch_terms(nullptr, 0, data);
  if (!loss->reference.empty()) data.reference = loss->reference.data();
  BatchTerms terms = batch_terms(loss->objectives.data(), int(loss->objectives.size()), data);
  if (parallel && parallel->whole) parallel->whole->share_terms(terms);
  return terms;
}

bool Job::evaluates_together() const {
  return terms().is_sorted() || (parallel && parallel->session.has(Axis::sequence));
}

RowCoefficients row_coefficients(const Job& job, const BatchLoss* loss, const ScoredRow& row) {
  if (job.given) {
    auto scaled = [&](const Array<double>& values) {
      return values.empty() ? 0
                            : gradient_coefficient(values[size_t(row.row)], job.gradients.scale);
    };
    return {scaled(job.given->logps), 0, scaled(job.given->entropy)};
  }
  const double align = row.has_label() ? job.loss->outputs.coefficients[row.sequence] : 0;
  const double likelihood = row.sft_label >= 0 ? loss->likelihood_coefficient(row.sequence) : 0;
  auto scaled = [&](double coefficient) {
    return gradient_coefficient(row.weight, coefficient, job.gradients.scale);
  };
  return {scaled(align), scaled(likelihood)};
}

}  // namespace diralign
