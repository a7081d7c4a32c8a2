#include "batch.h"

namespace diralign {

std::optional<BadLabel> list_rows(const Batch& batch, const Units& units, RowList& rows) {
  rows.units = units;
  const int64_t sequences = batch.sequences, tokens = sequences > 0 ? batch.rows / sequences : 0;
  rows.begin.assign(size_t(sequences), 0);
  rows.end.assign(size_t(sequences), 0);
  rows.counts.assign(size_t(sequences), 0);
  rows.lengths.assign(size_t(sequences), 0);
  rows.sft_lengths.assign(size_t(sequences), 0);
  rows.scored.reserve(size_t(batch.rows));
  auto bad = [&](int32_t label) {
    return label != batch.ignore_index && (label < 0 || label >= batch.words());
  };

  auto list_sequence = [&](int64_t s) -> std::optional<BadLabel> {
    const int64_t first = batch.offsets ? batch.offsets[s] : s * tokens,
                  last = batch.offsets ? batch.offsets[s + 1] : first + tokens;
    rows.begin[size_t(s)] = int64_t(rows.scored.size());
    for (int64_t r = first; r < last; r++) {
      const int32_t label = batch.labels[r], sft = batch.sft_labels ? batch.sft_labels[r] : label;
      if (bad(label)) return BadLabel{false, r, label};
      if (bad(sft)) return BadLabel{true, r, sft};
      const bool aligned = label != batch.ignore_index,
                 likely = is_likely(units, batch.fields, s) && sft != batch.ignore_index;
      rows.counts[size_t(s)] += aligned;
      const double weight = field(batch.fields.token_weights, r, 1);
      rows.lengths[size_t(s)] += aligned ? weight : 0;
      rows.sft_lengths[size_t(s)] += likely ? weight : 0;
      if (aligned || likely) {
        rows.scored.push_back({r, s, aligned ? label : -1, likely ? sft : -1, weight});
      } else {
        rows.ignored.push_back(r);
      }
    }
    rows.end[size_t(s)] = int64_t(rows.scored.size());
    return std::nullopt;
  };
  for (int64_t u = 0; u < units.count; u++)
    for (int64_t place = 0; place < units.size(u); place++)
      if (auto error = list_sequence(units.sequence(u, place))) return error;
  return std::nullopt;
}

RowRange RowList::of_units(int64_t first, int64_t last) const {
  const int64_t all = int64_t(scored.size());
  auto begin_of = [&](int64_t unit) {
    return unit < units.count ? begin[size_t(units.sequence(unit, 0))] : all;
  };
  return {begin_of(first), begin_of(last)};
}

}  // namespace diralign
