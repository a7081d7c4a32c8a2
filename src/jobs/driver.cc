#include "driver.h"
#include "distributed/parallel.h"

namespace diralign {

namespace {

/// The largest coefficient that the gradient has numbers for.
double largest_allowed(const Job& job) {
  if (job.given_logps) return largest_coefficient(DBL_MAX, job.gradients.scale);
  return job.gradients.any() ? largest_coefficient(FLT_MAX, job.gradients.scale) : DBL_MAX;
}

/// The scale of every scored row of a factored gradient; the others stay 0.
void write_row_scales(Job& job, const BatchLoss* loss) {
  for (const ScoredRow& row : job.rows.scored) {
    const RowCoefficients c = row_coefficients(job, loss, row);
    job.gradients.logits.row_scale[row.row] = float(c.align + c.likelihood);
  }
}

/// Rows whose numbers, or whose derivatives, are all that is wanted of them.
void run_rows(Job& job, Phases& phases) {
  for (const UnitGroup& group : phases.groups()) {
    phases.reduce(group, nullptr);
    if (job.stopped()) return;
    if (job.given) phases.differentiate(group, nullptr);
    if (job.stopped()) return;
  }
  if (job.given) phases.write_zeros();
  if (job.parallel) settle(job, {});
  if (job.given) finish_given(job);
}

/// The end of a job whose batch is spread over processes.
void finish_parallel(Job& job, BatchLoss& loss, const Phases& phases) {
  const LossWanted& wanted = *job.loss;
  Parallel& parallel = *job.parallel;
  WholeBatch* const whole = parallel.whole.get();
  // One without units has no group to be evaluated with.
  if (whole && !whole->is_evaluated()) whole->evaluate(job.known_logps(), phases.sft_logps());
  Settled settled{phases.underflows(), {}};
  if (wanted.asked.any()) settled.measures = sum_measures(job, phases.measures());
  settled = settle(job, settled);
  if (whole) whole->finish(largest_allowed(job));
  else
    loss.finish(job.known_logps(), phases.sft_logps(), largest_allowed(job), job.scored_tokens());
  if (whole && job.terms().is_sorted()) parallel.sorted_losses = whole->losses();
  wanted.outputs.metrics[underflow] = double(settled.underflows);
  wanted.outputs.metrics[mixed_hardware] = parallel.mixed_hardware;
  if (wanted.asked.any()) write_measures(job, settled.measures);
  if (job.gradients.logits.mode == GradientMode::factored) write_row_scales(job, &loss);
}

/// Of log-probabilities that are given: there are no rows.
class GivenLogps : public Phases {
 public:
  explicit GivenLogps(const Job& job) : job_(job), all_{{0, job.rows.units.count, {0, 0}, true}} {}

  const std::vector<UnitGroup>& groups() const override { return all_; }
  void reduce(const UnitGroup&, const BatchLoss*) override {}
  void differentiate(const UnitGroup&, const BatchLoss*) override {}
  void write_zeros() override {}
  const double* sft_logps() const override { return job_.known_logps(); }
  const Array<RowMeasures>& measures() const override { return none_; }

 private:
  const Job& job_;
  const std::vector<UnitGroup> all_;
  const Array<RowMeasures> none_;
};

}  // namespace

void run_logps(Job& job) {
  GivenLogps phases(job);
  run_phases(job, phases);
  const BatchTerms terms = job.terms();
  for (int64_t s = 0; s < job.batch.sequences; s++) {
    const double coefficient = job.loss->outputs.coefficients[s] +
                               (terms.lengths[s] > 0 ? terms.likelihood_coefficient(s) : 0);
    job.gradients.logps[s] = gradient_coefficient(coefficient, job.gradients.scale);
  }
}

void run_phases(Job& job, Phases& phases) {
  if (!job.loss) return run_rows(job, phases);
  BatchLoss loss(job.terms(), job.loss->outputs);
  const bool differentiates = job.gradients.any();
  WholeBatch* const whole = job.parallel ? job.parallel->whole.get() : nullptr;
  if (differentiates && job.loss->is_linear())
    loss.evaluate(job.known_logps(), phases.sft_logps(), 0, loss.units().count);
  for (const UnitGroup& group : phases.groups()) {
    phases.reduce(group, differentiates ? &loss : nullptr);
    if (job.stopped()) return;
    if (whole && job.terms().is_sorted()) whole->evaluate(job.known_logps(), phases.sft_logps());
    else loss.evaluate(job.known_logps(), phases.sft_logps(), group.first_unit, group.last_unit);
    if (differentiates) phases.differentiate(group, &loss);
    if (job.stopped()) return;
  }
  if (differentiates) phases.write_zeros();
  if (job.stopped()) return;
  if (job.parallel) return finish_parallel(job, loss, phases);
  finish_loss(job, loss, phases.sft_logps(), phases.underflows(), phases.measures());
}

void finish_given(Job& job) {
  if (job.gradients.logits.mode == GradientMode::factored) write_row_scales(job, nullptr);
}

void finish_loss(Job& job, BatchLoss& loss, const double* sft_logps, int64_t underflows,
                 const Array<RowMeasures>& measures) {
  const LossWanted& wanted = *job.loss;
  loss.finish(job.known_logps(), sft_logps, largest_allowed(job), job.scored_tokens());
  wanted.outputs.metrics[underflow] = double(underflows);
  if (wanted.asked.any()) write_measures(job, sum_measures(job, measures));
  if (job.gradients.logits.mode == GradientMode::factored) write_row_scales(job, &loss);
}

}  // namespace diralign
