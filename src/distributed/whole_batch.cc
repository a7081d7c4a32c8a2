#include "whole_batch.h"
#include <algorithm>
#include "parallel.h"

namespace diralign {

namespace {

/// Bits: the reference, then the fields that have a number for each unit or sequence.
uint64_t kinds_of(const Job& job) {
  uint64_t kinds = job.loss->reference.empty() ? 0 : 1;
  for (size_t k = 0; k < std::size(field_infos); k++) {
    const FieldInfo& field = field_infos[k];
    const bool travels = field.per == Per::sequence || field.per == Per::unit;
    if (travels && job.batch.fields.*field.data) kinds |= uint64_t{2} << k;
  }
  return kinds;
}

/// Calls `take(k)` for the fields among `kinds` that are per that.
template <class Take>
void for_fields(uint64_t kinds, Per per, Take&& take) {
  for (size_t k = 0; k < std::size(field_infos); k++)
    if (field_infos[k].per == per && (kinds & uint64_t{2} << k)) take(k);
}

/// What a rank sends: for each sequence its lengths and numbers, for each unit its size and
/// numbers, then the log-ratios of the baseline.
struct Layout {
  uint64_t kinds;
  int64_t sequence_fields = 0, unit_fields = 0;

  explicit Layout(uint64_t kinds) : kinds(kinds) {
    for_fields(kinds, Per::sequence, [&](size_t) { sequence_fields++; });
    for_fields(kinds, Per::unit, [&](size_t) { unit_fields++; });
  }
  int64_t per_sequence() const { return 2 + int64_t(kinds & 1) + sequence_fields; }
  int64_t per_unit() const { return 1 + unit_fields; }
  size_t numbers(int64_t sequences, int64_t units, int64_t ratios) const {
    return size_t(sequences * per_sequence() + units * per_unit() + ratios);
  }
};

Array<double> packed(const Job& job, const Layout& layout, const Array<double>& ratios) {
  const Units& units = job.rows.units;
  Array<double> numbers;
  for (int64_t s = 0; s < units.sequences(); s++) {
    numbers.push_back(job.lengths()[s]);
    numbers.push_back(job.sft_lengths()[s]);
    if (layout.kinds & 1) numbers.push_back(job.loss->reference[size_t(s)]);
    for_fields(layout.kinds, Per::sequence,
               [&](size_t k) { numbers.push_back((job.batch.fields.*field_infos[k].data)[s]); });
  }
  for (int64_t u = 0; u < units.count; u++) {
    numbers.push_back(double(units.size(u)));
    for_fields(layout.kinds, Per::unit,
               [&](size_t k) { numbers.push_back((job.batch.fields.*field_infos[k].data)[u]); });
  }
  numbers.insert(numbers.end(), ratios.begin(), ratios.end());
  return numbers;
}

}  // namespace

WholeBatch::WholeBatch(Job& job, Session& session, const Array<double>& log_ratios)
    : job_(job), session_(session), field_data_(std::size(field_infos)) {
  const Units& own = job.rows.units;
  Record mine;
  mine.numbers[0] = uint64_t(own.count);
  mine.numbers[1] = uint64_t(own.sequences());
  mine.numbers[2] = kinds_of(job);
  mine.numbers[3] = log_ratios.size();
  mine.set_real(4, job.scored_tokens());
  const std::vector<Record> records = session.meet(Step::sizes, mine);

  uint64_t kinds = 0;
  int64_t units = 0, sequences = 0;
  for (const Record& r : records) {
    parts_.push_back({int64_t(r.numbers[0]), int64_t(r.numbers[1]), units, sequences});
    units += parts_.back().units, sequences += parts_.back().sequences;
    tokens_ += r.real(4);
    // A batch without units has arrays without elements, which may be none.
    if (parts_.back().units > 0) kinds |= r.numbers[2];
  }
  for (size_t rank = 0; rank < records.size(); rank++)
    if (parts_[rank].units > 0 && records[rank].numbers[2] != kinds)
      session.refuse(Step::sizes, "ERR_DIRALIGN_DISAGREE",
                     session.place(Axis::data, int(rank)) +
                         " has not the reference and fields that others have");

  const Layout layout(kinds);
  size_t most = 0;
  for (size_t rank = 0; rank < parts_.size(); rank++)
    most = std::max(most, layout.numbers(parts_[rank].sequences, parts_[rank].units,
                                         int64_t(records[rank].numbers[3])));
  Array<double> sent = packed(job, layout, log_ratios);
  sent.resize(most);
  const Bytes bytes = session.gather(Step::batch, sent.data(), most * sizeof(double));

  // The chosen of all ranks, then the rejected: what one process would have been given.
  offsets_.assign(own.arity == Arity::group ? size_t(units) + 1 : 0, 0);
  units_ = {own.arity, units, offsets_.empty() ? nullptr : offsets_.data()};
  for (Array<double>* numbers : {&lengths_, &sft_lengths_, &logps_, &sft_logps_, &coefficients_})
    numbers->assign(size_t(sequences), 0);
  if (kinds & 1) reference_.assign(size_t(sequences), 0);
  for_fields(kinds, Per::sequence, [&](size_t k) { field_data_[k].resize(size_t(sequences)); });
  for_fields(kinds, Per::unit, [&](size_t k) { field_data_[k].resize(size_t(units)); });
  double ratios = 0, ratio_count = 0;
  for (size_t rank = 0; rank < parts_.size(); rank++) {
    const Part& part = parts_[rank];
    const double* at = reinterpret_cast<const double*>(bytes.data() + rank * most * sizeof(double));
    for (int64_t s = 0; s < part.sequences; s++) {
      const size_t whole = size_t(sequence_of(part, s));
      lengths_[whole] = *at++;
      sft_lengths_[whole] = *at++;
      if (kinds & 1) reference_[whole] = *at++;
      for_fields(kinds, Per::sequence, [&](size_t k) { field_data_[k][whole] = *at++; });
    }
    for (int64_t u = part.first_unit; u < part.first_unit + part.units; u++) {
      const int32_t size = int32_t(*at++);
      if (!offsets_.empty()) offsets_[size_t(u) + 1] = offsets_[size_t(u)] + size;
      for_fields(kinds, Per::unit, [&](size_t k) { field_data_[k][size_t(u)] = *at++; });
    }
    for (uint64_t i = 0; i < records[rank].numbers[3]; i++, ratio_count++) ratios += *at++;
  }
  for (size_t k = 0; k < std::size(field_infos); k++) {
    const FieldInfo& field = field_infos[k];
    fields_.*field.data = field.per == Per::batch   ? job.batch.fields.*field.data
                          : !field_data_[k].empty() ? field_data_[k].data()
                                                    : nullptr;
    if (field.data == FieldData{&Fields::kl} && ratio_count > 0) {
      field_data_[k].assign(1, std::max(0.0, ratios / ratio_count));
      fields_.kl = field_data_[k].data();
    }
  }
  const size_t objectives = job.loss->objectives.size();
  losses_.assign(objectives * size_t(units), 0);
  rewards_.assign(objectives * size_t(sequences), 0);
}

int64_t WholeBatch::sequence_of(const Part& part, int64_t own) const {
  if (units_.arity != Arity::pair) return part.first_sequence + own;
  const int64_t place = own >= part.units ? 1 : 0;
  return units_.sequence(part.first_unit + own - place * part.units, place);
}

BatchTerms WholeBatch::terms() const {
  const LossWanted& loss = *job_.loss;
  return batch_terms(loss.objectives.data(), int(loss.objectives.size()),
                     {units_, lengths_.data(), sft_lengths_.data(),
                      reference_.empty() ? nullptr : reference_.data(), fields_});
}

void WholeBatch::share_terms(BatchTerms& own) const {
  const BatchTerms whole = terms();
  own.denominator = whole.denominator;
  own.sft_denominator = whole.sft_denominator;
  own.fields.kl = whole.fields.kl;
}

void WholeBatch::evaluate(const double* logps, const double* sft_logps) {
  const bool separate = sft_logps != logps;
  const int64_t own = job_.rows.units.sequences();
  const Part& most =
      *std::max_element(parts_.begin(), parts_.end(),
                        [](const Part& a, const Part& b) { return a.sequences < b.sequences; });
  Array<double> sent(size_t(most.sequences) * (separate ? 2 : 1));
  std::copy(logps, logps + own, sent.begin());
  if (separate) std::copy(sft_logps, sft_logps + own, sent.begin() + most.sequences);
  const Bytes bytes = session_.gather(Step::logps, sent.data(), sent.size() * sizeof(double));
  for (size_t rank = 0; rank < parts_.size(); rank++) {
    const double* at =
        reinterpret_cast<const double*>(bytes.data() + rank * sent.size() * sizeof(double));
    for (int64_t s = 0; s < parts_[rank].sequences; s++) {
      const size_t whole = size_t(sequence_of(parts_[rank], s));
      logps_[whole] = at[s];
      sft_logps_[whole] = separate ? at[most.sequences + s] : at[s];
    }
  }
  LossOutputs outputs = job_.loss->outputs;
  outputs.losses = losses_.data();
  outputs.rewards = rewards_.data();
  outputs.coefficients = coefficients_.data();
  loss_.emplace(terms(), outputs);
  loss_->evaluate(logps_.data(), sft_logps_.data(), 0, units_.count);
  copy_own();
}

void WholeBatch::finish(double largest) {
  loss_->finish(logps_.data(), sft_logps_.data(), largest, tokens_);
  copy_own();
}

void WholeBatch::copy_own() {
  const LossOutputs& out = job_.loss->outputs;
  const Part& own = parts_[size_t(session_.rank(Axis::data))];
  for (size_t o = 0; o < job_.loss->objectives.size(); o++) {
    const double* const losses = losses_.data() + o * size_t(units_.count) + own.first_unit;
    std::copy(losses, losses + own.units, out.losses + o * size_t(own.units));
    for (int64_t s = 0; s < own.sequences; s++)
      out.rewards[o * size_t(own.sequences) + size_t(s)] =
          rewards_[o * size_t(units_.sequences()) + size_t(sequence_of(own, s))];
  }
  for (int64_t s = 0; s < own.sequences; s++)
    out.coefficients[s] = coefficients_[size_t(sequence_of(own, s))];
}

}  // namespace diralign
