// How the failure of a rank reaches the others, at whatever moment it comes.
#include <limits>
#include "check.h"
#include "distributed/parallel.h"
#include "thread_ranks.h"

using namespace diralign;

// A rank whose memory ends in the middle of a call goes on to the next meeting, where all hear.
TEST(session_out_of_memory) {
  for (const int failing : {0, 1}) {
    Meeting meeting(2);
    const auto groups = ranks_over(Axis::data, meeting, 2);
    std::string heard[2];
    on_threads(2, [&](int rank) {
      Session session(groups[size_t(rank)]);
      try {
        run_in_turn(session, [&] {
          session.meet(Step::sizes, {});
          const double mine = rank;
          // More than a vector may have: sanitizers end the process where an allocator says no.
          const size_t too_much = std::numeric_limits<size_t>::max();
          session.gather(Step::batch, &mine, rank == failing ? too_much : sizeof mine);
        });
      } catch (const DistributedError& error) {
        heard[rank] = std::string(error.code) + " " + error.what();
      } catch (const std::length_error&) {
        heard[rank] = "memory";
      }
    });
    CHECK(heard[failing] == "memory", "%s", heard[failing].c_str());
    const std::string& other = heard[1 - failing];
    CHECK(other.rfind("ERR_DIRALIGN_PEER rank " + std::to_string(failing), 0) == 0, "%s",
          other.c_str());
  }
}

// A rank that waits for others where it may compute, or that leaves them without word when it fails
// before it has read theirs.
TEST(session_begun_meeting) {
  for (const bool fails : {false, true}) {
    Meeting meeting(2);
    const auto groups = ranks_over(Axis::vocab, meeting, 2);
    Session early(groups[0]);
    std::vector<uint64_t> read;
    Record mine;
    mine.numbers[0] = 5;
    early.begin_to_meet(Step::agree_vocab, mine, [&read](const std::vector<Record>& all) {
      for (const Record& one : all) read.push_back(one.numbers[0]);
    });
    CHECK(read.empty());
    std::string heard;
    std::thread late([&] {
      Session session(groups[1]);
      Record theirs;
      theirs.numbers[0] = 7;
      session.meet(Step::agree_vocab, theirs);
      try {
        session.meet(Step::settle_vocab, {});
      } catch (const DistributedError& error) {
        heard = error.what();
      }
    });
    if (fails) early.tell("no memory");
    else early.meet(Step::settle_vocab, {});
    late.join();
    CHECK((read == std::vector<uint64_t>{5, 7}));
    CHECK(heard == (fails ? "rank 0 of 2 (vocab) failed: no memory" : ""), "%s", heard.c_str());
  }
}

// A rank that fails while it sums its rows, and then comes with fewer bytes than the others.
TEST(session_failed_rows) {
  for (const bool fails : {false, true}) {
    Meeting meeting(2);
    const auto groups = ranks_over(Axis::vocab, meeting, 2);
    std::string heard[2];
    on_threads(2, [&](int rank) {
      Session session(groups[size_t(rank)]);
      session.reserve_rows(100);
      session.begin_to_meet(Step::agree_vocab, {}, [](const std::vector<Record>&) {});
      std::memset(session.rows(), 'a' + rank, 100);
      if (fails && rank == 0) return session.tell("aborted");
      try {
        const Bytes all = session.exchange_rows();
        for (const size_t of : {size_t{0}, size_t{1}})
          heard[rank] += std::string(all.data() + of * all.size() / 2 + sizeof(Record), 100);
        session.meet(Step::settle_vocab, {});
      } catch (const DistributedError& error) {
        heard[rank] = error.what();
      }
    });
    const std::string rows = std::string(100, 'a') + std::string(100, 'b');
    CHECK(heard[0] == (fails ? "" : rows), "%s", heard[0].c_str());
    CHECK(heard[1] == (fails ? "rank 0 of 2 (vocab) failed: aborted" : rows), "%s",
          heard[1].c_str());
  }
}

// Versions that would take each other's bytes for something else.
TEST(session_protocols) {
  Meeting meeting(2);
  const auto groups = ranks_over(Axis::data, meeting, 2);
  std::string heard[2];
  on_threads(2, [&](int rank) {
    Session session(groups[size_t(rank)]);
    Record mine;
    mine.protocol += uint32_t(rank);
    // What another protocol has there.
    mine.failed = uint16_t(rank);
    try {
      session.meet(Step::agree_data, mine);
    } catch (const DistributedError& error) {
      heard[rank] = std::string(error.code) + " " + error.what();
    }
  });
  for (const std::string& each : heard)
    CHECK(each.rfind("ERR_DIRALIGN_DISAGREE ranks 0 and 1 (data) disagree on the protocol: " +
                         std::to_string(protocol) + " and " + std::to_string(protocol + 1),
                     0) == 0,
          "%s", each.c_str());
}
