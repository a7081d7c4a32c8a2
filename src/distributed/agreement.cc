// What the ranks of a job must have in common, and the shards that they have of the vocabulary.
#include <algorithm>
#include <cstring>
#include <utility>
#include "hardware.h"
#include "hash.h"
#include "parallel.h"
#include "sharded_rows.h"

namespace diralign {

namespace {

uint64_t settings_of(const Job& job) {
  Hash hash;
  if (job.loss)
    for (const Objective& o : job.loss->objectives)
      hash.number(o.method).number(o.weight).bytes(&o.settings, sizeof o.settings);
  const LogitTransform& t = job.batch.transform;
  const MeasuresAsked& asked = job.asked();
  const GradientsWanted& g = job.gradients;
  for (const double x : {double(job.loss.has_value()),
                         double(job.tokens.has_value()),
                         double(job.tokens && job.tokens->collision),
                         double(job.given.has_value()),
                         double(job.given_logps.has_value()),
                         t.scale,
                         t.cap,
                         t.temperature,
                         double(asked.entropy),
                         double(asked.logits),
                         double(asked.accuracy),
                         double(g.logits.mode),
                         double(g.layer.hidden.data != nullptr),
                         double(g.layer.weight.data != nullptr),
                         double(g.layer.bias.data != nullptr),
                         g.scale,
                         double(job.layer.has_value()),
                         double(job.layer ? job.layer->hidden_size : 0),
                         double(job.parallel->column_grid),
                         double(job.parallel->sums_hidden),
                         double(job.parallel->native_wire),
                         double(job.batch.sft_labels != nullptr)})
    hash.number(x);
  return hash.value();
}

/// Of the fields that are per that.
void add_fields(Hash& hash, const Job& job, Per per) {
  const bool known = job.parallel->log_ratios.empty();
  for (const FieldInfo& field : field_infos)
    if (field.per == per && (known || field.data != FieldData{&Fields::kl}))
      hash.array(job.batch.fields.*field.data, field.length(job.rows.units, job.batch.rows));
}

/// Numbers of a batch: those that a unit or a sequence has.
uint64_t sequences_of(const Job& job) {
  Hash hash;
  const Units& units = job.rows.units;
  hash.array(units.offsets, units.offsets ? size_t(units.count) + 1 : 0);
  add_fields(hash, job, Per::unit);
  add_fields(hash, job, Per::sequence);
  if (job.loss) hash.array(job.loss->reference.data(), job.loss->reference.size());
  hash.array(job.parallel->log_ratios.data(), job.parallel->log_ratios.size());
  return hash.value();
}

uint64_t whole_numbers_of(const Job& job) {
  Hash hash;
  add_fields(hash, job, Per::batch);
  return hash.number(double(job.parallel->log_ratios.empty())).value();
}

uint64_t rows_of(const Job& job) {
  Hash hash;
  const Batch& b = job.batch;
  hash.array(b.labels, size_t(b.rows)).array(b.sft_labels, size_t(b.rows));
  hash.array(b.offsets, b.offsets ? size_t(b.sequences) + 1 : 0).number(b.ignore_index);
  add_fields(hash, job, Per::row);
  if (job.given)
    for (const Array<double> DerivativesGiven::* numbers :
         {&DerivativesGiven::logps, &DerivativesGiven::entropy, &DerivativesGiven::known_logps,
          &DerivativesGiven::known_logsumexp, &DerivativesGiven::known_entropy}) {
      const Array<double>& theirs = (*job.given).*numbers;
      hash.array(theirs.data(), theirs.size());
    }
  return hash.value();
}

uint64_t places_beside(const Session& session, Axis axis) {
  uint64_t places = 0;
  for (const Axis other : {Axis::vocab, Axis::sequence, Axis::data})
    if (other != axis)
      places = places << 32 | uint64_t(session.size(other)) << 16 | uint64_t(session.rank(other));
  return places;
}

struct Fact {
  const char* name;
  uint64_t value;
  bool vocab, sequence, data;  ///< where it must be the same

  bool is_common(Axis axis) const {
    return axis == Axis::vocab ? vocab : axis == Axis::sequence ? sequence : data;
  }
};

/// In the record of a rank, besides the facts: what computes there, whether it knows already that
/// ranks differ in that, and its columns of the vocabulary.
constexpr size_t own_hardware = Record::most_numbers - 4, is_mixed = Record::most_numbers - 3,
                 first_column = Record::most_numbers - 2, column_count = Record::most_numbers - 1;

/// With the facts, the rank's places in the other groups, and the calls before.
Record with_facts(const Session& session, Step step, const std::vector<Fact>& facts,
                  Record record = {}) {
  const Axis axis = step_axes[size_t(step)];
  for (size_t i = 0; i < facts.size(); i++) record.numbers[i] = facts[i].value;
  record.numbers[facts.size()] = places_beside(session, axis);
  record.numbers[facts.size() + 1] = session.number(axis);
  return record;
}

/// Throws on each rank of the step's group where they have not these in common.
void check_alike(Session& session, Step step, const std::vector<Fact>& facts,
                 const std::vector<Record>& all) {
  const Axis axis = step_axes[size_t(step)];
  auto disagree = [&](size_t rank, const std::string& what) {
    session.refuse(step, "ERR_DIRALIGN_DISAGREE",
                   "ranks 0 and " + std::to_string(rank) + " (" + axis_names[size_t(axis)] +
                       ") disagree on " + what);
  };
  for (size_t rank = 1; rank < all.size(); rank++) {
    auto differs = [&](size_t i) { return all[rank].numbers[i] != all[0].numbers[i]; };
    if (differs(facts.size() + 1)) disagree(rank, "how many calls there were before");
    if (differs(facts.size())) disagree(rank, "their places in the other groups");
    for (size_t i = 0; i < facts.size(); i++)
      if (facts[i].is_common(axis) && differs(i)) disagree(rank, facts[i].name);
  }
}

/// What one rank finds it carries into the next group, so that all come to know it.
void compare_hardware(Parallel& parallel, const std::vector<Record>& all) {
  for (const Record& one : all)
    if (one.numbers[is_mixed] || one.numbers[own_hardware] != all[0].numbers[own_hardware])
      parallel.mixed_hardware = true;
}

/// From what the ranks of vocab have said.
void take_shards(Job& job, const std::vector<Record>& all) {
  constexpr Axis axis = Axis::vocab;
  Parallel& parallel = *job.parallel;
  Session& session = parallel.session;
  const int64_t grid = parallel.column_grid, words = job.batch.words();
  auto refuse = [&](const std::string& message) {
    session.refuse(Step::agree_vocab, "ERR_DIRALIGN_SHARD", message);
  };
  int64_t at = 0;
  for (size_t rank = 0; rank < all.size(); rank++) {
    const int64_t first = int64_t(all[rank].numbers[first_column]),
                  columns = int64_t(all[rank].numbers[column_count]);
    parallel.first_columns.push_back(at);
    if (columns == 0) continue;
    if (first != at)
      refuse(session.place(axis, int(rank)) + " has columns from " + std::to_string(first) +
             " on, expected " + std::to_string(at) + ": shards follow one another");
    if (grid > 0 && first % grid != 0)
      refuse(session.place(axis, int(rank)) + " has columns from " + std::to_string(first) +
             " on, which is no multiple of the columnGrid, " + std::to_string(grid));
    parallel.most_cells =
        std::max(parallel.most_cells, grid > 0 ? (columns + grid - 1) / grid : int64_t{1});
    at += columns;
  }
  parallel.first_columns.push_back(at);
  if (at != words)
    refuse("the shards have " + std::to_string(at) + " columns of " + std::to_string(words));
}

bool is_carried_by_device(const Parallel& parallel) {
  return parallel.on_device && parallel.session.by_device(Axis::vocab) != nullptr;
}

/// Whether the first phase writes nothing of the caller's, and needs nothing that the ranks have
/// yet to say: then it computes while their records are on the way.
bool reduces_at_once(const Job& job) {
  const Parallel& parallel = *job.parallel;
  return parallel.session.has(Axis::vocab) && parallel.column_grid == 0 && !parallel.on_device &&
         !job.given;
}

/// Whether the ranks of vocab exchange all rows at once, and each knows how many bytes.
bool exchanges_once(const Job& job) {
  const Parallel& parallel = *job.parallel;
  return parallel.session.has(Axis::vocab) && parallel.column_grid == 0 && !job.layer &&
         !job.given && !job.given_logps && job.rows.units.count > 0 &&
         !is_carried_by_device(parallel);
}

}  // namespace

void agree(Job& job) {
  Parallel& parallel = *job.parallel;
  Session& session = parallel.session;
  const uint64_t sequences = uint64_t(job.batch.sequences);
  const std::vector<Fact> facts{
      {"the settings", settings_of(job), true, true, true},
      {"the words of the vocabulary", uint64_t(job.batch.words()), true, true, true},
      // Chunks of a layer's rows are cut differently.
      {"who computes: the CPU or a device", job.layer && parallel.on_device, true, false, false},
      {"what carries rows", is_carried_by_device(parallel), true, false, false},
      {"rows", uint64_t(job.batch.rows), true, false, false},
      {"sequences", sequences, true, true, false},
      {"labels, offsets, weights or derivatives of rows", rows_of(job), true, false, false},
      {"references or fields of sequences", sequences_of(job), true, true, false},
      {"fields of the batch", whole_numbers_of(job), true, true, true},
  };
  Record mine;
  mine.numbers[own_hardware] = hardware_of(parallel.on_device);
  mine.numbers[first_column] = uint64_t(job.batch.shard->first);
  mine.numbers[column_count] = uint64_t(job.batch.vocab);
  // Before anybody counts on this rank.
  if (exchanges_once(job)) session.reserve_rows(ShardedRows::bytes_of_all(job));
  session.begin_to_meet(Step::agree_vocab, with_facts(session, Step::agree_vocab, facts, mine),
                        [&job, facts](const std::vector<Record>& all) {
                          check_alike(job.parallel->session, Step::agree_vocab, facts, all);
                          compare_hardware(*job.parallel, all);
                          take_shards(job, all);
                        });
  for (const Step step : {Step::agree_sequence, Step::agree_data}) {
    if (!session.has(step_axes[size_t(step)])) continue;
    session.catch_up();
    mine.numbers[is_mixed] = parallel.mixed_hardware;
    const std::vector<Record> all = session.meet(step, with_facts(session, step, facts, mine));
    check_alike(session, step, facts, all);
    compare_hardware(parallel, all);
  }
  if (!reduces_at_once(job)) session.catch_up();
}

void gather_numbers(Session& session, const std::string& about, const Array<double>& mine,
                    double* all) {
  const uint64_t what = Hash().bytes(about.data(), about.size()).value();
  const std::vector<Fact> facts{
      {"the objective, or what is done with its window", what, true, true, true}};
  const size_t bytes = mine.size() * sizeof(double),
               whole = bytes * size_t(session.size(Axis::sequence));
  const auto first =
                 session.reserve(Axis::sequence, Transfer::Kind::all_gather, bytes, mine.data()),
             second = session.reserve(Axis::data, Transfer::Kind::all_gather, whole);
  const auto agree = [&](Step step) {
    check_alike(session, step, facts, session.meet(step, with_facts(session, step, facts)));
  };
  agree(Step::agree_sequence);
  second->sent = session.carry(Axis::sequence, first);
  agree(Step::agree_data);
  const Bytes of_units = session.carry(Axis::data, second);
  if (!of_units.empty()) std::memcpy(all, of_units.data(), of_units.size());
}

}  // namespace diralign
