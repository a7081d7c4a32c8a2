#include "loss_request.h"

namespace diralign::cuda {

namespace {

void add_derivatives(LossRequest& r, const Job& job) {
  const bool residuals = job.gradients.logits.mode == GradientMode::factored;
  r.with_entropy = job.by_entropy();
  const bool known = job.knows_rows();
  for (const ScoredRow& row : job.rows.scored) {
    if (residuals) {
      r.derivatives.push_back({1, 0});
    } else {
      const RowCoefficients c = row_coefficients(job, nullptr, row);
      r.derivatives.push_back({c.align, c.entropy});
    }
    if (!known) continue;
    const DerivativesGiven& given = *job.given;
    const size_t at = size_t(row.row);
    r.known_terms.push_back(
        row_terms(known_statistics(given.known_logps[at], given.known_logsumexp[at]), false, 0));
    if (r.with_entropy) r.known_entropies.push_back(given.known_entropy[at]);
  }
}

}  // namespace

LossRequest request_of(const Job& job) {
  LossRequest r{};
  r.pass = job.tokens                                            ? Pass::tokens
           : job.gradients.logits.mode == GradientMode::factored ? Pass::factored
           : job.gradients.any()                                 ? Pass::dense
                                                                 : Pass::logps;
  r.vocab = job.batch.vocab;
  r.separate_sft = job.batch.sft_labels != nullptr;
  r.terms = job.terms();
  r.rows = &job.rows;
  r.last_unit = r.terms.units.count;
  r.gradient_scale = job.gradients.scale;
  r.transform = job.batch.transform;
  r.collision = job.tokens && job.tokens->collision;
  r.measures = job.asked().any();
  const bool known = job.knows_rows();
  if (r.pass == Pass::factored && (known || !r.transform.is_identity())) {
    // The gradient of each row's log-probability, whatever the units': those are the host's.
    r.pass = Pass::dense;
    r.terms.objective_count = 0;
    add_derivatives(r, job);
  } else if (job.given && r.pass == Pass::dense) {
    add_derivatives(r, job);
  }
  return r;
}

}  // namespace diralign::cuda
