// What launches of the loss kernel have in device memory: where everything lies, and what of it the
// host fills.
#include "loss_work.h"
#include <algorithm>
#include <cstring>

namespace diralign::cuda {

namespace {

/// Places in one allocation.
class Layout {
 public:
  template <class T>
  size_t add(size_t count) {
    const size_t at = (bytes_ + 255) & ~size_t(255);
    bytes_ = at + count * sizeof(T);
    return at;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

/// Of a row whose label's column is in another process: no column is there.
constexpr int32_t label_elsewhere = std::numeric_limits<int32_t>::max();

/// One of the arrays that the evaluation of units reads, `count` long, and where it is uploaded to.
struct TermArray {
  const double* BatchTerms::* own;  ///< or, where that is null, a field
  FieldData field;
  size_t count, at = 0;

  const double*& in(BatchTerms& terms) const { return own ? terms.*own : terms.fields.*field; }
  const double* in(const BatchTerms& terms) const { return own ? terms.*own : terms.fields.*field; }
};
/// Those that a batch has. The weights of tokens are the rows'.
std::vector<TermArray> arrays_of(const BatchTerms& terms) {
  const size_t sequences = size_t(terms.units.sequences());
  std::vector<TermArray> all{{&BatchTerms::lengths, {}, sequences},
                             {&BatchTerms::sft_lengths, {}, sequences}};
  if (terms.reference) all.push_back({&BatchTerms::reference, {}, sequences});
  for (const FieldInfo& field : field_infos)
    if (terms.fields.*field.data && field.per != Per::row)
      all.push_back({nullptr, field.data, field.length(terms.units, 0)});
  return all;
}

}  // namespace

/// Where everything lies in the device memory of the work. What is copied there comes first, that
/// of the launches last, and then what only lives there. The results are before all of it, so that
/// the counts of rows, which start at 0, can be the first that is copied there and the last that is
/// copied back.
struct LossWork::Places {
  size_t rows, ignored, sequences, units, tiles, groups, counters;  ///< how many
  uint32_t sort_length = 1;
  size_t result_space, result_bytes, upload_bytes, bytes;
  size_t at_counts, at_rows, at_ignored, at_begin, at_end, at_groups, at_objectives, at_offsets,
      at_counters, at_launches, at_sums, at_targets, at_sft_targets, at_row_logps, at_sft_row_logps,
      at_row_terms, at_coefficients, at_numbers, at_order, at_derivatives, at_row_gradients,
      at_entropies, at_squares;
  std::vector<TermArray> terms;

  Places(const LossRequest& r, const std::vector<Group>& groups_, uint32_t parts, size_t launches,
         size_t stages)
      : rows(size_t(r.rows->of_units(r.first_unit, r.last_unit).size())),
        ignored(r.write_ignored ? r.rows->ignored.size() : 0),
        sequences(size_t(r.terms.units.sequences())),
        units(size_t(r.terms.units.count)),
        tiles(tiles_of(groups_)),
        groups(groups_.size()),
        counters(rows + tiles + 2 * groups) {
    constexpr size_t most = std::numeric_limits<uint32_t>::max();
    if (r.rows->scored.size() + r.rows->ignored.size() > most || sequences > most)
      throw std::length_error("the batch has too many rows for one launch");
    while (sort_length < units) sort_length *= 2;
    const size_t labels = r.separate_sft ? 2 : 1;
    const size_t part = sizeof(PartSums) + (r.collision ? sizeof(double) : 0);
    const size_t results = r.parts_of               ? rows * (parts * part + labels * sizeof(float))
                           : r.pass == Pass::tokens ? (r.collision ? 4 : 3) * rows * sizeof(double)
                                                    : labels * sequences * sizeof(double);
    result_space = (results + 255) & ~size_t{255};
    result_bytes = rows == 0 ? 0 : result_space + counts * sizeof(uint32_t);
    place_upload(r, launches, stages);
    place_rest(r, parts);
  }

 private:
  void place_upload(const LossRequest& r, size_t launches, size_t stages) {
    at_counts = layout_.add<uint32_t>(counts);
    at_rows = layout_.add<RowRecord>(rows);
    at_ignored = layout_.add<uint32_t>(ignored);
    at_begin = layout_.add<uint32_t>(sequences);
    at_end = layout_.add<uint32_t>(sequences);
    at_groups = layout_.add<Group>(groups);
    at_objectives = layout_.add<Objective>(size_t(r.terms.objective_count));
    at_offsets = layout_.add<int32_t>(r.terms.units.offsets ? units + 1 : 0);
    terms = arrays_of(r.terms);
    for (TermArray& array : terms) array.at = layout_.add<double>(array.count);
    at_derivatives = layout_.add<RowDerivatives>(r.derivatives.empty() ? 0 : rows);
    at_row_gradients = layout_.add<RowGradient>(r.row_gradients.empty() ? 0 : rows);
    if (!r.known_terms.empty()) {
      at_row_terms = layout_.add<RowTerms>(rows);
      at_entropies = layout_.add<double>(r.with_entropy ? rows : 0);
    }
    at_counters = layout_.add<uint32_t>(counters);
    at_launches =
        layout_.add<char>(launches * (counter_bytes + sizeof(Stage)) + stages * sizeof(Stage));
    upload_bytes = layout_.bytes();
  }
  void place_rest(const LossRequest& r, uint32_t parts) {
    const bool dense = r.pass == Pass::dense, sorted = dense && r.terms.is_sorted(),
               groups_of_units = dense && r.terms.units.arity == Arity::group;
    at_sums = layout_.add<PartSums>(r.parts_of || !r.reduces() ? 0 : rows * parts);
    at_targets = layout_.add<float>(rows);
    at_sft_targets = layout_.add<float>(r.separate_sft ? rows : 0);
    at_row_logps = layout_.add<double>(rows);
    at_sft_row_logps = layout_.add<double>(r.separate_sft ? rows : 0);
    if (r.known_terms.empty()) {
      at_row_terms = layout_.add<RowTerms>(dense ? rows : 0);
      at_entropies = layout_.add<double>(r.with_entropy ? rows : 0);
    }
    at_squares = layout_.add<double>(r.collision && !r.parts_of ? rows * parts : 0);
    at_coefficients = layout_.add<double>(dense ? sequences : 0);
    at_numbers = layout_.add<double>(sorted ? 2 * units : groups_of_units ? sequences : 0);
    at_order = layout_.add<uint32_t>(sorted ? 2 * size_t(sort_length) : 0);
    bytes = layout_.bytes();
  }

  Layout layout_;
};

LossWork::LossWork(const LossRequest& r, const std::vector<Group>& groups, size_t launches,
                   size_t stages, const Place& place)
    : pass_(r.general() ? Pass::general : r.pass),
      dtype_(r.dtype),
      device_(place.device),
      stream_(as_stream(place.stream)),
      begin_(place.begin) {
  refuse_capture(stream_);
  plan_.cut = r.cut();
  const Places places(r, groups, plan_.cut.parts, launches, stages);
  allocate(places);
  fill_upload(r, groups, places);
  fill_plan(r, places);
}

void LossWork::allocate(const Places& places) {
  result_bytes_ = places.result_bytes;
  upload_bytes_ = places.upload_bytes;
  next_launch_ = places.at_launches;
  upload_ = PinnedBlock(upload_bytes_);
  results_ = PinnedBlock(std::max<size_t>(1, result_bytes_));
  workspace_ = Workspace(device_, stream_, places.result_space + places.bytes);
  uploads_ = static_cast<char*>(workspace_.data()) + places.result_space;
  pending_ = true;
}

void LossWork::fill_upload(const LossRequest& r, const std::vector<Group>& groups,
                           const Places& places) {
  void* const host = upload_.data();
  const RowList& rows = *r.rows;
  const RowRange range = rows.of_units(r.first_unit, r.last_unit);
  auto chunk = r.chunks.begin();
  for (size_t i = 0; i < places.rows; i++) {
    const ScoredRow& row = rows.scored[size_t(range.begin) + i];
    while (chunk != r.chunks.end() && chunk->end <= int64_t(i)) ++chunk;
    RowRecord& record = at<RowRecord>(host, places.at_rows)[i] = {
        uint32_t(r.chunks.empty() ? row.row : int64_t(i) - chunk->begin), uint32_t(row.sequence),
        row.label, row.sft_label, row.weight};
    if (!r.parts_of) continue;
    const int32_t column = r.parts_of->column(row.primary());
    record.label = column < 0 ? label_elsewhere : column;
    record.sft_label = r.parts_of->column(row.sft_label);
  }
  auto copy_rows = [&](const auto& of_batch, auto* to) {
    if (!of_batch.empty()) std::copy_n(of_batch.begin() + range.begin, places.rows, to);
  };
  copy_rows(r.derivatives, at<RowDerivatives>(host, places.at_derivatives));
  std::copy(r.row_gradients.begin(), r.row_gradients.end(),
            at<RowGradient>(host, places.at_row_gradients));
  copy_rows(r.known_terms, at<RowTerms>(host, places.at_row_terms));
  copy_rows(r.known_entropies, at<double>(host, places.at_entropies));
  for (size_t i = 0; i < places.ignored; i++)
    at<uint32_t>(host, places.at_ignored)[i] = uint32_t(rows.ignored[i]);
  for (size_t s = 0; s < places.sequences; s++) {
    const int64_t unit = r.terms.units.unit_of(int64_t(s));
    const bool here = unit >= r.first_unit && unit < r.last_unit;
    at<uint32_t>(host, places.at_begin)[s] = here ? uint32_t(rows.begin[s] - range.begin) : 0;
    at<uint32_t>(host, places.at_end)[s] = here ? uint32_t(rows.end[s] - range.begin) : 0;
  }
  std::copy(groups.begin(), groups.end(), at<Group>(host, places.at_groups));
  std::copy_n(r.terms.objectives, r.terms.objective_count,
              at<Objective>(host, places.at_objectives));
  if (r.terms.units.offsets)
    std::copy_n(r.terms.units.offsets, places.units + 1, at<int32_t>(host, places.at_offsets));
  for (const TermArray& array : places.terms)
    std::copy_n(array.in(r.terms), array.count, at<double>(host, array.at));
  uint32_t* const counters = at<uint32_t>(host, places.at_counters);
  std::fill_n(counters, places.counters, 0u);
  // What is known is ready.
  if (!r.reduces()) std::fill_n(counters + places.counters - places.groups, places.groups, 1u);
  std::fill_n(at<uint32_t>(host, places.at_counts), counts, 0u);
}

void LossWork::fill_plan(const LossRequest& r, const Places& places) {
  void* const base = uploads_;
  plan_.vocab = uint32_t(r.vocab);
  plan_.separate_sft = r.separate_sft;
  plan_.gradient_scale = r.gradient_scale;
  plan_.rows = at<RowRecord>(base, places.at_rows);
  plan_.ignored = at<uint32_t>(base, places.at_ignored);
  plan_.sequence_begin = at<uint32_t>(base, places.at_begin);
  plan_.sequence_end = at<uint32_t>(base, places.at_end);
  plan_.groups = at<Group>(base, places.at_groups);
  plan_.part_sums = at<PartSums>(base, places.at_sums);
  plan_.targets = at<float>(base, places.at_targets);
  plan_.sft_targets = at<float>(base, places.at_sft_targets);
  plan_.row_logps = at<double>(base, places.at_row_logps);
  plan_.sft_row_logps = at<double>(base, places.at_sft_row_logps);
  plan_.row_terms = at<RowTerms>(base, places.at_row_terms);
  plan_.row_arrivals = at<uint32_t>(base, places.at_counters);
  plan_.tile_arrivals = plan_.row_arrivals + places.rows;
  plan_.group_arrivals = plan_.tile_arrivals + places.tiles;
  plan_.group_ready = plan_.group_arrivals + places.groups;
  if (r.parts_of) {
    plan_.part_sums = workspace_.as<PartSums>();
    const size_t parts = places.rows * plan_.cut.parts;
    double* const squares = reinterpret_cast<double*>(plan_.part_sums + parts);
    plan_.part_squares = r.collision ? squares : nullptr;
    plan_.targets = reinterpret_cast<float*>(squares + (r.collision ? parts : 0));
    plan_.sft_targets = plan_.targets + (r.separate_sft ? places.rows : 0);
    plan_.row_arrivals = nullptr;
  }
  plan_.terms = r.terms;
  plan_.terms.objectives = at<Objective>(base, places.at_objectives);
  if (r.terms.units.offsets) plan_.terms.units.offsets = at<int32_t>(base, places.at_offsets);
  for (const TermArray& array : places.terms) array.in(plan_.terms) = at<double>(base, array.at);
  plan_.coefficients = at<double>(base, places.at_coefficients);
  plan_.unit_numbers = at<double>(base, places.at_numbers);
  plan_.sort_order = at<uint32_t>(base, places.at_order);
  plan_.sort_length = places.sort_length;
  if (!r.derivatives.empty()) plan_.derivatives = at<RowDerivatives>(base, places.at_derivatives);
  if (!r.row_gradients.empty())
    plan_.row_gradients = at<RowGradient>(base, places.at_row_gradients);
  plan_.pass = r.pass;
  plan_.factors = factors_of(r.transform);
  plan_.transform = r.transform;
  if (r.with_entropy) plan_.row_entropies = at<double>(base, places.at_entropies);
  plan_.logps = plan_.tokens = workspace_.as<double>();
  if (r.collision && !r.parts_of) {
    plan_.part_squares = at<double>(base, places.at_squares);
    plan_.collisions = plan_.tokens + 3 * places.rows;
  }
  plan_.sft_logps = plan_.logps + places.sequences;
  plan_.underflows = at<uint32_t>(base, places.at_counts);
  plan_.nan_rows = plan_.underflows + 1;
}

}  // namespace diralign::cuda
