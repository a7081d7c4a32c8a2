// A job among processes: what they exchange, in which order, and how a failure of one reaches all.
#pragma once
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>
#include "communicator.h"
#include "device_carrier.h"

namespace diralign {

/// What a group of ranks shares: other columns of the same rows, other tokens of the same
/// sequences, or other units of the batch.
enum class Axis { vocab, sequence, data };
inline constexpr int axis_count = 3;
inline constexpr const char* axis_names[] = {"vocab", "sequence", "data"};

/// The exchanges of a call, in this order on every rank; `rows` as often as there are chunks.
enum class Step {
  agree_vocab,
  agree_sequence,
  agree_data,
  lengths,  ///< over sequence
  sizes,    ///< over data: of what follows
  batch,    ///< over data: what is known before the rows are
  rows,     ///< over vocab
  sums,     ///< over sequence: log-probabilities
  logps,    ///< over data
  settle_vocab,
  settle_sequence,
  settle_data,
};
inline constexpr Axis step_axes[] = {Axis::vocab, Axis::sequence, Axis::data,     Axis::sequence,
                                     Axis::data,  Axis::data,     Axis::vocab,    Axis::sequence,
                                     Axis::data,  Axis::vocab,    Axis::sequence, Axis::data};

/// Raise it with any change of what ranks send each other: versions with different ones refuse each
/// other, instead of taking bytes for something else.
inline constexpr uint32_t protocol = 1;

/// What every exchange begins with, from each rank: whether it failed, or else a few numbers. Its
/// size and its first member are those of any protocol.
struct Record {
  static constexpr size_t most_numbers = 23, most_text = 320;
  uint32_t protocol = for_tests.protocol ? for_tests.protocol : diralign::protocol;
  uint16_t failed = 0;
  uint16_t step = 0;  ///< a rank at another one would take what follows for something else
  std::array<uint64_t, most_numbers> numbers{};
  char text[most_text] = "";  ///< of a failure

  double real(size_t i) const {
    double x;
    std::memcpy(&x, &numbers[i], sizeof x);
    return x;
  }
  void set_real(size_t i, double x) { std::memcpy(&numbers[i], &x, sizeof x); }
};
static_assert(sizeof(Record) == 512);

/// Its axes, for one call. A rank that fails goes on to the next exchange of each group, where it
/// says so: nobody waits for it, and each rank throws.
class Session {
 public:
  /// Null: no such group.
  struct Group {
    std::shared_ptr<Communicator> communicator;
    std::shared_ptr<Carrier> carrier;
    std::shared_ptr<DeviceCarrier> device;  ///< of what is in device memory; null: by the host
  };
  using Groups = std::array<Group, axis_count>;

  explicit Session(Groups groups);

  bool has(Axis axis) const { return size(axis) > 1; }
  int rank(Axis axis) const { return of(axis) ? of(axis)->rank : 0; }
  int size(Axis axis) const { return of(axis) ? of(axis)->size : 1; }
  /// Of the calls on the group's communicator: which this is.
  uint64_t number(Axis axis) const { return numbers_[size_t(axis)]; }

  /// One record of every rank of the step's group, by rank; of this one alone without a group.
  /// Throws where one failed.
  std::vector<Record> meet(Step step, const Record& mine);
  /// The same without waiting for others: `read` gets the records at the next meeting of a group
  /// that has other ranks, or in catch_up().
  void begin_to_meet(Step step, const Record& mine,
                     std::function<void(const std::vector<Record>&)> read);
  /// Ends a meeting that has begun.
  void catch_up();
  /// For what the ranks of a group find in their records alike: throws it on each.
  [[noreturn]] void refuse(Step step, const char* code, const std::string& message);

  /// Room for an exchange of pieces of so many bytes, to be made before the ranks meet for it: a
  /// rank that has none throws before it says that it comes, so that none waits for it.
  std::shared_ptr<Transfer> reserve(Axis axis, Transfer::Kind kind, size_t bytes,
                                    const void* mine = nullptr) const;
  /// After a meeting, in the same step: what arrives for `transfer->sent`.
  Bytes carry(Axis axis, const std::shared_ptr<Transfer>& transfer);
  /// Both, with a meeting between: every rank's `bytes`, by rank.
  Bytes gather(Step step, const void* mine, size_t bytes);

  /// Room for what this rank has of the rows, where all know before they first meet that it is so
  /// many bytes, and exchanged once. Then one exchange carries it and the records of the meeting: a
  /// rank that fails in between has what to come with.
  void reserve_rows(size_t bytes);
  /// Where that goes; null: there is none, and rows are gathered.
  char* rows() { return rows_ ? rows_->sent.data() + sizeof(Record) : nullptr; }
  /// Once: of every rank a record, and its bytes.
  Bytes exchange_rows();

  /// Carries what is in device memory; null: by the host, or there are no others.
  DeviceCarrier* by_device(Axis axis) const {
    return has(axis) ? groups_[size_t(axis)].device.get() : nullptr;
  }

  /// Tells every group that does not know yet, in the order of its next exchanges. Whoever cannot
  /// be told finds out by a deadline of its own.
  void tell(const std::string& failure) noexcept;
  /// Ends the wait for others, now and later: this process has no time left for them.
  void abandon();
  bool is_abandoned();

  /// Of the group that failed: this rank's place, for messages.
  std::string place(Axis axis, int rank) const;

  /// Takes the places in the lines of all groups.
  const std::shared_ptr<Turn> turn;

 private:
  Communicator* of(Axis axis) const { return groups_[size_t(axis)].communicator.get(); }
  Bytes exchange(Axis axis, const std::shared_ptr<Transfer>& transfer);
  void begin(Axis axis, const std::shared_ptr<Transfer>& transfer);
  Bytes end(Axis axis, Transfer& transfer);
  /// One at the beginning of each rank's piece. Throws on every rank alike where one failed, or
  /// where they are of different protocols or steps.
  std::vector<Record> records(Step step, const Bytes& pieces);

  const Groups groups_;
  /// For what tell() says, even where there is no memory left.
  std::array<std::shared_ptr<Transfer>, axis_count> last_words_;
  std::shared_ptr<Transfer> rows_;
  std::array<uint64_t, axis_count> numbers_{};
  std::array<bool, axis_count> told_{};
  int next_ = 0;                 // step
  std::function<void()> begun_;  // ends a meeting
  std::mutex mutex_;
  std::shared_ptr<Transfer> under_way_;
  bool abandoned_ = false;
};

}  // namespace diralign
