#include "driver.h"

namespace diralign {

namespace {

/// The largest coefficient that the gradient has numbers for.
double largest_allowed(const LossWanted& wanted) {
  return wanted.wants_gradient() ? largest_coefficient(FLT_MAX, wanted.gradient_scale) : DBL_MAX;
}

/// The scale of every scored row of a factored gradient; the others stay 0.
void write_row_scales(Job& job, const BatchLoss& loss) {
  for (const ScoredRow& row : job.rows.scored) {
    const RowCoefficients c = row_coefficients(*job.loss, loss, row);
    job.loss->gradient.row_scale[row.row] = float(c.align + c.likelihood);
  }
}

}  // namespace

void run_phases(Job& job, Phases& phases) {
  if (!job.loss) {
    for (const UnitGroup& group : phases.groups()) {
      phases.reduce(group, nullptr);
      if (job.stopped()) return;
    }
    return;
  }
  BatchLoss loss(job.terms(), job.loss->outputs);
  const bool differentiates = job.loss->wants_gradient();
  if (differentiates && job.loss->objective.facts().is_linear)
    loss.evaluate(job.logps, phases.sft_logps(), 0, loss.units().count);
  for (const UnitGroup& group : phases.groups()) {
    phases.reduce(group, differentiates ? &loss : nullptr);
    if (job.stopped()) return;
    loss.evaluate(job.logps, phases.sft_logps(), group.first_unit, group.last_unit);
    if (differentiates) phases.differentiate(group, loss);
    if (job.stopped()) return;
  }
  if (differentiates) phases.write_zeros();
  if (job.stopped()) return;
  finish_loss(job, loss, phases.sft_logps(), phases.underflows(), phases.measures());
}

void finish_loss(Job& job, BatchLoss& loss, const double* sft_logps, int64_t underflows,
                 const Array<RowMeasures>& measures) {
  const LossWanted& wanted = *job.loss;
  *wanted.value = loss.finish(job.logps, sft_logps, largest_allowed(wanted));
  wanted.outputs.metrics[underflow] = double(underflows);
  if (wanted.asked.any()) write_measures(job, measures);
  if (wanted.gradient.mode == GradientMode::factored) write_row_scales(job, loss);
}

}  // namespace diralign
