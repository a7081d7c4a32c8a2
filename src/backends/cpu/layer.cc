// Jobs with an output layer on the CPU.
#include "layer_sums.h"
#include "jobs/row_results.h"
#include "run.h"
#include "tuning.h"
#include "jobs/driver.h"

namespace diralign::cpu {

namespace {

/// The coefficients of a unit are known when its sequences are; what its rows' gradients are then
/// made of:
///   kept      the logits of the whole unit, which fit the workspace
///   deferred  products of the gradients of the log-probabilities alone; the coefficients follow
///             when they are known, in one pass over the gradient of the weight
///   neither   the logits once more
class LayerPhases : public Phases {
 public:
  LayerPhases(Job& job, Pool& pool)
      : job_(job),
        gradients_(job.gradients.layer),
        terms_(job.terms()),
        vocab_(job.batch.vocab),
        hidden_size_(job.layer->hidden_size),
        rows_(job),
        products_(job, pool, row_floats()),
        sums_(job, products_) {
    plan();
  }

  const std::vector<UnitGroup>& groups() const override { return groups_; }
  const double* sft_logps() const override { return rows_.sft_logps(); }
  const Array<RowMeasures>& measures() const override { return rows_.measures(); }

  void reduce(const UnitGroup& group, const BatchLoss* loss) override {
    if (deferred_rows(group) > 0) {
      deferred_ = defer(group);
      for (size_t place = 0; place < deferred_.sequences.size() && !job_.stopped(); place++)
        add_deferred(group, deferred_, place);
    } else {
      for (const RowRange& chunk : chunks(group)) {
        if (job_.knows_rows()) products_.logits(chunk, workspace_);
        else forward(chunk, workspace_);
        if (job_.stopped()) return;
        if ((loss || job_.given) && known()) backward(chunk, false, loss);
      }
    }
    if (!job_.stopped()) rows_.sum(group);
  }

  void differentiate(const UnitGroup& group, const BatchLoss* loss) override {
    if (known()) return;
    if (deferred_rows(group) > 0) return finish_deferred(group, deferred_, *loss);
    for (const RowRange& chunk : chunks(group)) {
      backward(chunk, !group.kept, loss);
      if (job_.stopped()) return;
    }
  }

  void write_zeros() override { sums_.finish(); }

 private:
  int64_t row_floats() const { return vocab_ + (gradients_.hidden.data ? hidden_size_ : 0); }
  /// The coefficients are there before the log-probabilities.
  bool known() const { return job_.given || (job_.loss && job_.loss->is_linear()); }
  /// One number scales both of a pair's sequences.
  bool opposite() const { return job_.loss && job_.loss->is_opposite(); }
  int64_t layer_floats() const {
    return (gradients_.weight.data ? vocab_ * hidden_size_ : 0) +
           (gradients_.bias.data ? vocab_ : 0);
  }
  int64_t deferred_floats(const UnitGroup& group) const {
    return sums_of(group.first_unit) * layer_floats() +
           (gradients_.hidden.data ? group.rows.size() * hidden_size_ : 0);
  }

  void plan() {
    int64_t most_rows = products_.budget() / std::max<int64_t>(1, row_floats());
    // Ranks of vocab go through the same chunks.
    if (rows_.is_spread()) most_rows = least_of_all(job_.parallel->session, most_rows);
    chunk_rows_ = std::min(preferred_rows, most_rows);
    groups_ = group_units(job_.rows, most_rows, job_.evaluates_together() || !gradients_.any(),
                          preferred_rows);
    int64_t floats = 0;
    for (const UnitGroup& group : groups_) {
      const int64_t rows = group.rows.size();
      int64_t needed = std::min(chunk_rows_, rows) * row_floats();
      if (keeps(group)) needed = rows * row_floats();
      else if (const int64_t chunk = deferred_rows(group))
        needed = deferred_floats(group) + chunk * vocab_;
      floats = std::max(floats, needed);
    }
    workspace_ = products_.allocate(floats);
  }
  /// Whether the group's logits are still there when its coefficients are known.
  bool keeps(const UnitGroup& group) const { return group.kept && gradients_.any() && !known(); }
  /// Of a chunk of a group that is deferred; otherwise 0.
  int64_t deferred_rows(const UnitGroup& group) const {
    const bool may = job_.loss && gradients_.any() && !group.kept && !known() &&
                     !job_.evaluates_together() && !rows_.is_spread();
    // A row of weight 0 is to leave nothing, even of a NaN: backward() passes it by.
    if (!may || job_.batch.sft_labels || job_.batch.fields.token_weights) return 0;
    const int64_t rows =
        std::min(preferred_rows, (products_.budget() - deferred_floats(group)) / vocab_);
    return rows >= std::min(fewest_deferred_rows, group.rows.size()) ? rows : 0;
  }
  std::vector<RowRange> chunks(const UnitGroup& group) const {
    return cut_rows(group.rows,
                    keeps(group) ? std::max<int64_t>(1, group.rows.size()) : chunk_rows_);
  }

  void forward(const RowRange& range, float* z) {
    if (rows_.merges()) return forward_parts(range, z);
    products_.forward(range, z, [&](int64_t i, const float* row) {
      if (rows_.needs_mean()) rows_.take_mean(i, products_.mean(row));
      const RowSums sums = products_.reduce(i, row, rows_.needs_moment());
      rows_.take(i, sums, [&](int32_t v) { return value(row[v]); });
      if (!job_.tokens || !job_.tokens->collision) return;
      const RowStatistics s = row_statistics(sums);
      const ScoredRow& r = job_.rows.scored[size_t(i)];
      const double squares = products_.squares(row, vocab_, r.primary(), s.max);
      job_.tokens->collision[r.row] = log_collision(s, squares + label_square(s, sums.label));
    });
  }

  void forward_parts(const RowRange& range, float* z) {
    ShardedRows& shards = rows_.shards();
    products_.forward(range, z, [&](int64_t i, const float* row) {
      shards.put(
          i,
          [&](int64_t first, int64_t count, int32_t label) {
            return products_.reduce_columns(row + first, count, label, rows_.needs_moment());
          },
          [&](int64_t first, int64_t count) { return products_.sum(row + first, count); },
          [&](int64_t first, int64_t count, int32_t label, float top) {
            return products_.squares(row + first, count, label, top);
          },
          [&](int64_t column) { return float(value(row[column])); });
    });
    if (job_.stopped()) return;
    shards.exchange(range);
    for_rows(products_.team(), job_, range.begin, range.end, false,
             [&](int64_t i, int) { rows_.take_merged(i); });
  }

  /// What a logit becomes.
  double value(float logit) const { return job_.batch.transform.value(double(logit)); }

  /// From the logits of a chunk, which are at the start of the workspace or to be computed again,
  /// to its share of the gradients.
  void backward(const RowRange& chunk, bool again, const BatchLoss* loss) {
    auto idle = [&](int64_t i) { return rows_.coefficients(i, loss).idle(); };
    bool beside_nan = false;
    for (int64_t i = chunk.begin; i < chunk.end && !beside_nan; i++)
      beside_nan = std::isnan(rows_.statistics(i).logp) && idle(i);
    const std::vector<RowRange> active =
        active_ranges(chunk, beside_nan ? shortest_gap_beside_nan : shortest_gap,
                      [&](int64_t i) { return idle(i); });
    for (int64_t i = chunk.begin; i < chunk.end; i++)
      sums_.fit(largest_entry(job_.batch, rows_.coefficients(i, loss)));
    int64_t done = chunk.begin;
    for (const RowRange& range : active) {
      sums_.zero_hidden(done, range.begin);
      done = range.end;
      float* z = workspace_ + (range.begin - chunk.begin) * vocab_;
      if (again) products_.logits(range, z);
      for_rows(products_.team(), job_, range.begin, range.end, true, [&](int64_t i, int) {
        products_.differentiate(z + (i - range.begin) * vocab_,
                                rows_.gradient(i, sums_.scaled(rows_.coefficients(i, loss))));
      });
      if (gradients_.hidden.data) {
        float* out =
            workspace_ + chunk.size() * vocab_ + (range.begin - chunk.begin) * hidden_size_;
        products_.hidden_gradient(range, z, out);
        if (rows_.is_spread() && job_.parallel->sums_hidden)
          sum_over_columns(job_.parallel->session, out, range.size() * hidden_size_,
                           job_.parallel->wire(job_.batch.dtype));
        for_rows(products_.team(), job_, range.begin, range.end, false, [&](int64_t i, int) {
          sums_.write_hidden(i, out + (i - range.begin) * hidden_size_, sums_.unit());
        });
      }
      sums_.add_products(range, z);
      if (job_.stopped()) return;
    }
    sums_.zero_hidden(done, chunk.end);
  }
  struct Deferred {
    std::vector<int64_t> sequences;
    std::vector<double> weights;  ///< of each: what its rows' gradients carry
    int64_t sums;                 ///< of the weight and the bias: one, or one for each sequence
    float *hidden, *first_sum, *logits;
    std::vector<bool> started;  ///< the sums that there is something in
  };
  /// A group that does not fit is one unit.
  Deferred defer(const UnitGroup& group) const {
    const int64_t unit = group.first_unit;
    Deferred d;
    for (int64_t place = 0; place < terms_.units.size(unit); place++) {
      const int64_t s = terms_.units.sequence(unit, place);
      d.sequences.push_back(s);
      const Objective& first = terms_.objectives[0];
      const double part = 1 / normalizer(terms_.sequence(first, job_.logps, s), first.settings);
      d.weights.push_back(!opposite() ? 1 : place == 0 ? part : -part);
    }
    d.sums = sums_of(unit);
    d.hidden = workspace_;
    d.first_sum = d.hidden + (gradients_.hidden.data ? group.rows.size() * hidden_size_ : 0);
    d.logits = d.first_sum + d.sums * layer_floats();
    d.started.resize(size_t(d.sums));
    return d;
  }
  int64_t sums_of(int64_t unit) const { return opposite() ? 1 : job_.rows.units.size(unit); }
  int64_t sum_of(const Deferred& d, size_t place) const { return d.sums == 1 ? 0 : int64_t(place); }
  float* weight_sum(const Deferred& d, int64_t sum) const {
    return d.first_sum + sum * layer_floats();
  }
  float* bias_sum(const Deferred& d, int64_t sum) const {
    return weight_sum(d, sum) + (gradients_.weight.data ? vocab_ * hidden_size_ : 0);
  }

  /// A sequence's rows, in chunks whose gradients carry what is known of the coefficients. Where
  /// the coefficients are opposite that is all but one factor; otherwise each sequence has a sum of
  /// its own.
  void add_deferred(const UnitGroup& group, Deferred& d, size_t place) {
    const size_t s = size_t(d.sequences[place]);
    const int64_t sum = sum_of(d, place);
    for (const RowRange& chunk :
         cut_rows({job_.rows.begin[s], job_.rows.end[s]}, deferred_rows(group))) {
      forward(chunk, d.logits);
      for_rows(products_.team(), job_, chunk.begin, chunk.end, true, [&](int64_t i, int) {
        products_.differentiate(
            d.logits + (i - chunk.begin) * vocab_,
            rows_.gradient(i, {d.weights[place] * job_.rows.scored[size_t(i)].weight, 0}));
      });
      if (gradients_.hidden.data)
        products_.hidden_gradient(chunk, d.logits,
                                  d.hidden + (chunk.begin - group.rows.begin) * hidden_size_);
      const bool started = d.started[size_t(sum)];
      if (gradients_.weight.data)
        products_.weight_gradient(chunk, d.logits, started, weight_sum(d, sum));
      if (gradients_.bias.data) products_.bias_gradient(chunk, d.logits, started, bias_sum(d, sum));
      d.started[size_t(sum)] = true;
      if (job_.stopped()) return;
    }
  }

  void finish_deferred(const UnitGroup& group, const Deferred& d, const BatchLoss& loss) {
    std::vector<double> factors;
    for (size_t place = 0; place < d.sequences.size(); place++) {
      const int64_t s = d.sequences[place];
      const double coefficient =
          job_.loss->outputs.coefficients[s] + loss.likelihood_coefficient(s);
      factors.push_back(
          finite(gradient_coefficient(coefficient, job_.gradients.scale) / d.weights[place]));
    }
    // An empty sequence has no coefficient; the other one has the factor then.
    if (d.sums == 1 && factors.size() == 2)
      factors[0] = factors[1] =
          job_.rows.lengths[size_t(d.sequences[0])] > 0 ? factors[0] : factors[1];
    if (gradients_.hidden.data)
      for_rows(
          products_.team(), job_, group.rows.begin, group.rows.end, false, [&](int64_t i, int) {
            const int64_t s = job_.rows.scored[size_t(i)].sequence;
            size_t place = 0;
            while (d.sequences[place] != s) place++;
            sums_.write_hidden(i, d.hidden + (i - group.rows.begin) * hidden_size_, factors[place]);
          });
    for (int64_t sum = 0; sum < d.sums; sum++)
      if (d.started[size_t(sum)] && factors[size_t(sum)] != 0)
        sums_.add_scaled(weight_sum(d, sum), bias_sum(d, sum), factors[size_t(sum)]);
  }

  Job& job_;
  const LayerGradients& gradients_;
  const BatchTerms terms_;
  int64_t vocab_, hidden_size_;
  RowResults rows_;
  LayerProducts products_;
  LayerSums sums_;
  std::vector<UnitGroup> groups_;
  int64_t chunk_rows_ = 0;
  float* workspace_ =
      nullptr;  // a chunk's logits, then its rows of the hidden gradient, or Deferred
  Deferred deferred_;
};

}  // namespace

void run_layer(Job& job, Pool& pool) {
  LayerPhases phases(job, pool);
  run_phases(job, phases);
}

}  // namespace diralign::cpu
