#include "session.h"
#include <algorithm>
#include <utility>

namespace diralign {

namespace {

std::vector<std::shared_ptr<Communicator>> communicators(const Session::Groups& groups) {
  std::vector<std::shared_ptr<Communicator>> all;
  for (const Session::Group& group : groups)
    if (group.communicator) all.push_back(group.communicator);
  return all;
}

/// What a rank sent itself shows whether a transport keeps the order of the ranks.
void check_own(const Transfer& transfer, int rank) {
  const size_t at = size_t(rank) * transfer.piece;
  const char* const mine =
      transfer.sent.data() + (transfer.kind == Transfer::Kind::all_gather ? 0 : at);
  if (transfer.piece > 0 && std::memcmp(transfer.received.data() + at, mine, transfer.piece) != 0)
    throw DistributedError("ERR_DIRALIGN_ENGINE",
                           "the transport did not bring this rank's bytes back to its place");
}

Axis axis_of(Step step) { return step_axes[size_t(step)]; }

}  // namespace

Session::Session(Groups groups)
    : turn(std::make_shared<Turn>(communicators(groups))), groups_(std::move(groups)) {
  for (const Axis axis : {Axis::vocab, Axis::sequence, Axis::data})
    if (has(axis))
      last_words_[size_t(axis)] = reserve(axis, Transfer::Kind::all_gather, sizeof(Record));
  // Counted once nothing can fail any more.
  for (size_t axis = 0; axis < axis_count; axis++)
    if (groups_[axis].communicator) numbers_[axis] = ++groups_[axis].communicator->calls;
}

std::string Session::place(Axis axis, int rank) const {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size(axis)) + " (" +
         axis_names[size_t(axis)] + ")";
}

std::vector<Record> Session::meet(Step step, const Record& mine) {
  std::vector<Record> all;
  begin_to_meet(step, mine, [&all](const std::vector<Record>& records) { all = records; });
  if (has(axis_of(step))) catch_up();
  return all;
}

void Session::begin_to_meet(Step step, const Record& mine,
                            std::function<void(const std::vector<Record>&)> read) {
  const Axis axis = axis_of(step);
  Record sent = mine;
  sent.step = uint16_t(step);
  if (!has(axis)) return read({sent});
  catch_up();
  next_ = int(step);
  const auto transfer = reserve(axis, Transfer::Kind::all_gather, sizeof sent, &sent);
  auto rest = [this, step, axis, transfer, read = std::move(read)] {
    read(records(step, end(axis, *transfer)));
  };
  begun_ = std::move(rest);
  try {
    begin(axis, transfer);
  } catch (...) {
    begun_ = {};
    throw;
  }
  if (step != Step::rows) next_++;
}

void Session::catch_up() {
  if (begun_) std::exchange(begun_, {})();
}

void Session::refuse(Step step, const char* code, const std::string& message) {
  told_[size_t(axis_of(step))] = true;
  throw DistributedError(code, message);
}

std::shared_ptr<Transfer> Session::reserve(Axis axis, Transfer::Kind kind, size_t bytes,
                                           const void* mine) const {
  return std::make_shared<Transfer>(kind, size(axis), mine, bytes);
}

Bytes Session::carry(Axis axis, const std::shared_ptr<Transfer>& transfer) {
  if (has(axis) && transfer->piece > 0) return exchange(axis, transfer);
  return std::move(transfer->sent);
}

Bytes Session::gather(Step step, const void* mine, size_t bytes) {
  const auto transfer = reserve(axis_of(step), Transfer::Kind::all_gather, bytes, mine);
  meet(step, {});
  return carry(axis_of(step), transfer);
}

Bytes Session::exchange(Axis axis, const std::shared_ptr<Transfer>& transfer) {
  begin(axis, transfer);
  return end(axis, *transfer);
}

void Session::begin(Axis axis, const std::shared_ptr<Transfer>& transfer) {
  const Group& group = groups_[size_t(axis)];
  group.communicator->check_usable();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (abandoned_) throw DistributedError("ERR_DIRALIGN_ENGINE", "the process has no time left");
    under_way_ = transfer;
  }
  try {
    group.carrier->begin(transfer);
  } catch (...) {
    group.communicator->set_broken();
    throw;
  }
}

Bytes Session::end(Axis axis, Transfer& transfer) {
  const Group& group = groups_[size_t(axis)];
  try {
    if (!group.carrier->wait(transfer, group.communicator->timeout))
      throw DistributedError("ERR_DIRALIGN_TIMEOUT",
                             "an exchange of " + place(axis, rank(axis)) + " did not end within " +
                                 std::to_string(group.communicator->timeout.count()) + " ms");
    check_own(transfer, rank(axis));
  } catch (...) {
    group.communicator->set_broken();
    throw;
  }
  return std::move(transfer.received);
}

void Session::reserve_rows(size_t bytes) {
  rows_ = reserve(Axis::vocab, Transfer::Kind::all_gather, sizeof(Record) + bytes);
}

Bytes Session::exchange_rows() {
  catch_up();
  next_ = int(Step::rows);
  Record mine;
  mine.step = uint16_t(Step::rows);
  std::memcpy(rows_->sent.data(), &mine, sizeof mine);
  Bytes all = exchange(Axis::vocab, std::exchange(rows_, nullptr));
  records(Step::rows, all);
  next_++;
  return all;
}

std::vector<Record> Session::records(Step step, const Bytes& pieces) {
  const Axis axis = axis_of(step);
  std::vector<Record> all(size_t(size(axis)));
  for (size_t rank = 0; rank < all.size(); rank++)
    std::memcpy(static_cast<void*>(&all[rank]), pieces.data() + rank * (pieces.size() / all.size()),
                sizeof(Record));
  const auto disagree = [&](size_t rank, const std::string& what) {
    refuse(step, "ERR_DIRALIGN_DISAGREE",
           "ranks 0 and " + std::to_string(rank) + " (" + axis_names[size_t(axis)] +
               ") disagree on " + what);
  };
  // First: of another protocol nothing else is known.
  for (size_t rank = 1; rank < all.size(); rank++)
    if (all[rank].protocol != all[0].protocol)
      disagree(rank, "the protocol: " + std::to_string(all[0].protocol) + " and " +
                         std::to_string(all[rank].protocol) + "; all need one version of diralign");
  for (size_t rank = 0; rank < all.size(); rank++)
    if (all[rank].failed)
      refuse(step, "ERR_DIRALIGN_PEER",
             place(axis, int(rank)) + " failed: " +
                 std::string(all[rank].text, strnlen(all[rank].text, Record::most_text)));
  for (size_t rank = 1; rank < all.size(); rank++)
    if (all[rank].step != all[0].step) disagree(rank, "what comes next");
  return all;
}

void Session::tell(const std::string& failure) noexcept {
  Record record;
  record.failed = 1;
  std::memcpy(record.text, failure.data(), std::min(failure.size(), Record::most_text));
  try {
    catch_up();
  } catch (const std::exception&) {
  }
  for (size_t step = size_t(next_); step < std::size(step_axes); step++) {
    const Axis axis = step_axes[step];
    if (!has(axis) || std::exchange(told_[size_t(axis)], true)) continue;
    try {
      const std::shared_ptr<Transfer>& transfer =
          Step(step) == Step::rows && rows_ ? rows_ : last_words_[size_t(axis)];
      std::memcpy(transfer->sent.data(), &record, sizeof record);
      exchange(axis, transfer);
    } catch (const std::exception&) {
    }
  }
}

bool Session::is_abandoned() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return abandoned_;
}

void Session::abandon() {
  std::shared_ptr<Transfer> transfer;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    abandoned_ = true;
    transfer = under_way_;
  }
  if (transfer)
    transfer->end(std::make_exception_ptr(
        DistributedError("ERR_DIRALIGN_ENGINE", "the process has no time left")));
}

}  // namespace diralign
