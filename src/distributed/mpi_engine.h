// The engine of one ABI of MPI: transfers under way, and who asks the library for them.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <future>
#include <list>
#include <thread>
#include <unistd.h>
#include <utility>
#include "engine_thread.h"
#include "launcher.h"
#include "mpi.h"
#include "mpi_abi.h"
#include "shared_memory.h"

namespace diralign {

template <class Handle>
class Engine : public MpiEngine {
  using Clock = Patience::Clock;
  /// Before a rank ends the job.
  static constexpr std::chrono::milliseconds longest_delay{500};

 public:
  Engine(void* library, std::string path, const MpiConstants<Handle>& constants)
      : f_(load_functions<Handle>(library)),
        c_(constants),
        path_(std::move(path)),
        version_(read_version()) {
    Patience::crowded = launcher().neighbours > sysconf(_SC_NPROCESSORS_ONLN);
  }

  const char* abi() const override { return c_.abi; }
  const std::string& version() const override { return version_; }
  const std::string& path() const override { return path_; }

  void world(std::chrono::milliseconds timeout, Made done) override {
    thread().post([this, timeout, done = std::move(done)] {
      try {
        done(start(timeout), nullptr);
      } catch (...) {
        done(nullptr, std::current_exception());
      }
    });
  }
  void split(const std::shared_ptr<MpiCommunicator>& parent, int color, int key,
             Made done) override {
    thread().post([this, parent, color, key, done = std::move(done)] {
      try {
        std::unique_lock<std::mutex> lock(library_);
        Handle handle{};
        check(f_.split(handle_of(*parent), color, key, &handle), "MPI_Comm_split");
        const std::shared_ptr<MpiCommunicator> made = make(handle, parent->timeout);
        lock.unlock();
        done(made, nullptr);
      } catch (...) {
        done(nullptr, std::current_exception());
      }
    });
  }
  void free(const std::shared_ptr<MpiCommunicator>& communicator) override {
    communicator->set_closed();
    thread().post([this, communicator] {
      const std::lock_guard<std::mutex> lock(library_);
      Group& group = static_cast<Group&>(*communicator);
      group.memory.reset();
      Handle handle = group.handle;
      f_.free(&handle);
    });
  }

  void finalize() override {
    if (gave_up_) abort(1);
    std::promise<void> done;
    thread().post([&] {
      // What nobody waits for any more has its deadline.
      for (Patience patience; !gave_up_ && test() > 0;)
        patience.rest([](std::chrono::nanoseconds pause) { std::this_thread::sleep_for(pause); });
      if (started_ && !gave_up_) f_.finalize();
      done.set_value();
    });
    done.get_future().wait();
    if (gave_up_) abort(1);
  }
  void abort(int code) override {
    // One after another, unless the first has ended them all by then: where several come to this
    // at the same time, mpirun of Open MPI 4.1 crashes or hangs in its own shutdown more often: in
    // 12 of 50 jobs, and in 3 of 37 one after another.
    std::this_thread::sleep_for(
        std::min(int{rank_} * std::chrono::milliseconds(50), longest_delay));
    // On this thread, whatever the engine's is doing: the process ends.
    f_.abort(c_.world, code);
    std::_Exit(code);
  }

 private:
  class Group : public MpiCommunicator {
   public:
    Group(Engine& engine, Handle handle, int rank, int size, std::chrono::milliseconds timeout)
        : MpiCommunicator(rank, size, timeout), handle(handle), engine_(engine) {}
    void begin(const std::shared_ptr<Transfer>& transfer) override {
      check_usable();
      engine_.begin(*this, transfer);
    }
    bool wait(Transfer& transfer, std::chrono::milliseconds most) override {
      return engine_.wait(transfer, most);
    }
    const Handle handle;
    std::shared_ptr<SharedMemory> memory;  ///< null: MPI carries everything

   private:
    Engine& engine_;
  };
  struct UnderWay {
    Group* group;
    std::shared_ptr<Transfer> transfer;
    std::shared_ptr<SharedMemory> memory;  // null: by MPI
    Handle request;
    Clock::time_point deadline;
  };

  using Ended = std::vector<std::pair<std::shared_ptr<Transfer>, std::exception_ptr>>;

  std::string read_version() const {
    char text[8192] = "";
    int length = 0;
    f_.library_version(text, &length);
    // "Open MPI v4.1.4, package: ...", or "MPICH Version:\t4.0.2\n...".
    std::string all = text;
    all.resize(std::min(all.size(), all.find_first_of(",\n")));
    const size_t word = all.find("Version:\t");
    if (word != std::string::npos) all.erase(word, 9);
    return all;
  }
  void check(int status, const char* function) const {
    if (status == 0) return;
    char text[8192] = "";
    int length = 0;
    f_.error_string(status, text, &length);
    throw DistributedError("ERR_DIRALIGN_ENGINE", std::string(function) + ": " + text);
  }
  /// Of any thread, one at a time. The levels are 0, 1, 2, 3, and in MPI 5.0 as far apart as these.
  int serialized() const { return 2 * c_.funneled; }
  static Handle handle_of(const MpiCommunicator& c) { return static_cast<const Group&>(c).handle; }

  EngineThread& thread() {
    static EngineThread* const thread = new EngineThread([this] { return polls(); });
    return *thread;
  }

  // On the engine's thread.

  /// Whether there are transfers under way that no other thread asks for.
  bool polls() {
    bool some = false;
    with_library(std::unique_lock<std::mutex>(library_), [&] {
      test_all();
      some = std::any_of(under_way_.begin(), under_way_.end(), [this](const UnderWay& op) {
        return !is_shared_ || op.transfer->is_followed();
      });
    });
    return some;
  }
  std::shared_ptr<MpiCommunicator> start(std::chrono::milliseconds timeout) {
    int running = 0, level = 0;
    check(f_.initialized(&running), "MPI_Initialized");
    if (!running) {
      check(f_.init_thread(nullptr, nullptr, serialized(), &level), "MPI_Init_thread");
      started_ = true;
    } else {
      check(f_.query_thread(&level), "MPI_Query_thread");
      if (level < serialized())
        throw DistributedError("ERR_DIRALIGN_ENGINE",
                               "MPI was started by other code of this process, for calls of its "
                               "own thread only; start it with MPI_THREAD_SERIALIZED or more");
    }
    is_shared_ = level >= serialized() && !for_tests.funneled;
    Handle world{};
    check(f_.dup(c_.world, &world), "MPI_Comm_dup");
    std::shared_ptr<MpiCommunicator> made = make(world, timeout);
    rank_ = made->rank;
    const Launcher by = launcher();
    if (by.size > 1 && made->size == 1)
      throw DistributedError("ERR_DIRALIGN_ENGINE",
                             std::string(*by.name ? by.name : "the launcher") + " started " +
                                 std::to_string(by.size) + " processes, but " + path_ + " (" +
                                 version_ +
                                 ") sees one: it is not the library of that launcher. DIRALIGN_MPI "
                                 "names the right one");
    return made;
  }
  std::shared_ptr<MpiCommunicator> make(Handle handle, std::chrono::milliseconds timeout) {
    int rank = 0, size = 0;
    check(f_.set_errhandler(handle, c_.errors_return), "MPI_Comm_set_errhandler");
    check(f_.rank(handle, &rank), "MPI_Comm_rank");
    check(f_.size(handle, &size), "MPI_Comm_size");
    auto group = std::make_shared<Group>(*this, handle, rank, size, timeout);
    if (for_tests.shares_memory)
      group->memory =
          SharedMemory::make(rank, size, [&](const void* mine, void* all, size_t bytes) {
            gather(handle, mine, all, int(bytes));
          });
    groups_.push_back(group);
    return group;
  }
  /// As MPI_Comm_dup and MPI_Comm_split, without a deadline.
  void gather(Handle handle, const void* mine, void* all, int bytes) const {
    Handle request{};
    check(f_.iallgather(mine, bytes, c_.byte, all, bytes, c_.byte, handle, &request),
          "MPI_Iallgather");
    while (!has_arrived(request)) sched_yield();
  }

  // With the library locked.

  void start_transfer(Group& group, const std::shared_ptr<Transfer>& transfer) {
    try {
      const auto memory = SharedMemory::carries(*transfer) ? group.memory : nullptr;
      Handle request{};
      if (memory) memory->begin(transfer);
      else request = start_stretch(group, *transfer);
      under_way_.push_back({&group, transfer, memory, request, Clock::now() + group.timeout});
    } catch (...) {
      group.set_broken();
      ended_.emplace_back(transfer, std::current_exception());
    }
  }
  Handle start_stretch(Group& group, Transfer& transfer) {
    Handle request{};
    const bool gathers = transfer.kind == Transfer::Kind::all_gather;
    const auto [sent, received, size] = transfer.stretch();
    const int bytes = int(size);
    check((gathers ? f_.iallgather : f_.ialltoall)(sent, bytes, c_.byte, received, bytes, c_.byte,
                                                   group.handle, &request),
          gathers ? "MPI_Iallgather" : "MPI_Ialltoall");
    return request;
  }
  void test_all() {
    for (auto op = under_way_.begin(); op != under_way_.end();) {
      if (is_over(*op)) op = under_way_.erase(op);
      else ++op;
    }
  }
  bool has_arrived(Handle& request) const {
    int flag = 0;
    check(f_.test(&request, &flag, c_.status_ignore), "MPI_Test");
    return flag;
  }
  bool is_over(UnderWay& op) {
    try {
      if (op.memory ? op.memory->try_end(*op.transfer) : has_arrived(op.request)) {
        if (!op.memory && op.transfer->advance()) {
          op.request = start_stretch(*op.group, *op.transfer);
          return false;
        }
        ended_.emplace_back(op.transfer, nullptr);
        return true;
      }
      if (Clock::now() < op.deadline) return false;
      given_up_.push_back(op.transfer);
      throw DistributedError("ERR_DIRALIGN_TIMEOUT",
                             "an exchange of rank " + std::to_string(op.group->rank) + " of " +
                                 std::to_string(op.group->size) + " did not end within " +
                                 std::to_string(op.group->timeout.count()) + " ms");
    } catch (...) {
      gave_up_ = true;
      op.group->set_broken();
      ended_.emplace_back(op.transfer, std::current_exception());
      return true;
    }
  }

  // On any thread.

  /// Runs `work` with the library locked, and ends the transfers that it finds over: what follows
  /// from an end may begin another transfer.
  template <class Work>
  void with_library(std::unique_lock<std::mutex> lock, Work&& work) {
    work();
    const Ended ended = std::exchange(ended_, {});
    lock.unlock();
    for (const auto& [transfer, error] : ended) transfer->end(error);
  }
  /// Transfers that are under way then.
  size_t test() {
    size_t count = 0;
    with_library(std::unique_lock<std::mutex>(library_), [&] {
      test_all();
      count = under_way_.size();
    });
    return count;
  }
  void begin(Group& group, const std::shared_ptr<Transfer>& transfer) {
    auto start = [this, &group, transfer] {
      with_library(std::unique_lock<std::mutex>(library_),
                   [&] { start_transfer(group, transfer); });
    };
    if (!is_shared_) return thread().post(start);
    start();
    if (transfer->is_followed()) thread().post([] {});
  }
  /// By asking the library, where it may be asked: then no thread need wake another one.
  bool wait(Transfer& transfer, std::chrono::milliseconds most) {
    for (Patience patience; is_shared_ && !transfer.has_ended();) {
      if (patience.waited() > most) return false;
      if (std::unique_lock<std::mutex> lock(library_, std::try_to_lock); lock)
        with_library(std::move(lock), [this] { test_all(); });
      patience.rest([&](std::chrono::nanoseconds pause) { transfer.wait(pause); });
    }
    return transfer.wait(most);
  }

  const MpiFunctions<Handle> f_;
  const MpiConstants<Handle> c_;
  const std::string path_, version_;
  std::atomic<int> rank_{0};            // in the world
  bool started_ = false;                // by us
  std::atomic<bool> is_shared_{false};  // any thread may call the library
  std::atomic<bool> gave_up_{false};    // an exchange that is still under way for MPI
  std::mutex library_;                  // of every call but the first and the last
  std::list<UnderWay> under_way_;
  Ended ended_;
  std::vector<std::shared_ptr<Group>> groups_;       // MPI may still speak to those that were freed
  std::vector<std::shared_ptr<Transfer>> given_up_;  // a late message may be written to them
};

}  // namespace diralign
