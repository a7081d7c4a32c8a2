#include "mpi.h"
#include <algorithm>
#include <cstdlib>
#include <future>
#include <list>
#include <thread>
#include <utility>
#include "engine_thread.h"
#include "mpi_abi.h"

namespace diralign {

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* engine_failed = "ERR_DIRALIGN_ENGINE";
/// MPI counts bytes in an int.
constexpr size_t largest_piece = size_t{1} << 30;
/// Before a rank ends the job.
constexpr std::chrono::milliseconds longest_delay{500};

struct Launcher {
  const char* name;  ///< empty: nothing that we know
  int size;
};
Launcher launcher() {
  auto integer = [](const char* name) {
    const char* const value = std::getenv(name);
    return value ? std::atoi(value) : 0;
  };
  if (const int size = integer("OMPI_COMM_WORLD_SIZE")) return {"Open MPI", size};
  if (const int size = integer("PMI_SIZE")) return {"MPICH", size};
  return {"", std::max(1, integer("SLURM_NTASKS"))};
}

template <class Handle>
class Engine : public MpiEngine {
 public:
  Engine(void* library, std::string path, const MpiConstants<Handle>& constants)
      : f_(load_functions<Handle>(library)),
        c_(constants),
        path_(std::move(path)),
        version_(read_version()) {}

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
        Handle handle{};
        check(f_.split(handle_of(*parent), color, key, &handle), "MPI_Comm_split");
        done(make(handle, parent->timeout), nullptr);
      } catch (...) {
        done(nullptr, std::current_exception());
      }
    });
  }
  void free(const std::shared_ptr<MpiCommunicator>& communicator) override {
    communicator->set_closed();
    thread().post([this, communicator] {
      Handle handle = handle_of(*communicator);
      f_.free(&handle);
    });
  }

  void finalize() override {
    if (gave_up_) abort(1);
    std::promise<void> done;
    thread().post([&] {
      if (started_) f_.finalize();
      done.set_value();
    });
    done.get_future().wait();
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
      if (transfer->piece > largest_piece)
        throw DistributedError(engine_failed,
                               "more than 1 GiB of a rank in one exchange; send it in pieces");
      engine_.thread().post([this, transfer] { engine_.start_transfer(*this, transfer); });
    }
    const Handle handle;

   private:
    Engine& engine_;
  };
  struct UnderWay {
    Group* group;
    std::shared_ptr<Transfer> transfer;
    Handle request;
    Clock::time_point deadline;
  };

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
    throw DistributedError(engine_failed, std::string(function) + ": " + text);
  }
  static Handle handle_of(const MpiCommunicator& c) { return static_cast<const Group&>(c).handle; }

  EngineThread& thread() {
    static EngineThread* const thread = new EngineThread([this] { return poll(); });
    return *thread;
  }

  // On the engine's thread.

  std::shared_ptr<MpiCommunicator> start(std::chrono::milliseconds timeout) {
    int running = 0, level = 0;
    check(f_.initialized(&running), "MPI_Initialized");
    if (!running) {
      check(f_.init_thread(nullptr, nullptr, c_.funneled, &level), "MPI_Init_thread");
      started_ = true;
    } else {
      // Levels are in order, and serialized is the one after funneled: in MPI 5.0 a gap apart.
      check(f_.query_thread(&level), "MPI_Query_thread");
      if (level <= c_.funneled)
        throw DistributedError(engine_failed,
                               "MPI was started by other code of this process, for calls of its "
                               "own thread only; start it with MPI_THREAD_SERIALIZED or more");
    }
    Handle world{};
    check(f_.dup(c_.world, &world), "MPI_Comm_dup");
    std::shared_ptr<MpiCommunicator> made = make(world, timeout);
    rank_ = made->rank;
    const Launcher by = launcher();
    if (by.size > 1 && made->size == 1)
      throw DistributedError(engine_failed,
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
    groups_.push_back(group);
    return group;
  }

  void start_transfer(Group& group, const std::shared_ptr<Transfer>& transfer) {
    try {
      Handle request{};
      const bool gathers = transfer->kind == Transfer::Kind::all_gather;
      const int bytes = int(transfer->piece);
      check((gathers ? f_.iallgather : f_.ialltoall)(transfer->sent.data(), bytes, c_.byte,
                                                     transfer->received.data(), bytes, c_.byte,
                                                     group.handle, &request),
            gathers ? "MPI_Iallgather" : "MPI_Ialltoall");
      under_way_.push_back({&group, transfer, request, Clock::now() + group.timeout});
    } catch (...) {
      group.set_broken();
      transfer->end(std::current_exception());
    }
  }

  bool poll() {
    for (auto op = under_way_.begin(); op != under_way_.end();) {
      if (is_over(*op)) op = under_way_.erase(op);
      else ++op;
    }
    return !under_way_.empty();
  }
  bool is_over(UnderWay& op) {
    try {
      int flag = 0;
      check(f_.test(&op.request, &flag, c_.status_ignore), "MPI_Test");
      if (flag) {
        op.transfer->end();
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
      op.transfer->end(std::current_exception());
      return true;
    }
  }

  const MpiFunctions<Handle> f_;
  const MpiConstants<Handle> c_;
  const std::string path_, version_;
  std::atomic<int> rank_{0};          // in the world
  bool started_ = false;              // by us
  std::atomic<bool> gave_up_{false};  // an exchange that is still under way for MPI
  std::list<UnderWay> under_way_;
  std::vector<std::shared_ptr<Group>> groups_;       // MPI may still speak to those that were freed
  std::vector<std::shared_ptr<Transfer>> given_up_;  // a late message may be written to them
};

std::shared_ptr<MpiEngine> make_engine(void* library, const std::string& path) {
  return with_constants(library, [&](const auto& constants) -> std::shared_ptr<MpiEngine> {
    using Handle = decltype(constants.world);
    return std::make_shared<Engine<std::remove_const_t<Handle>>>(library, path, constants);
  });
}

/// As the system's loader spells it.
std::string library_name(const std::string& name, const std::string& version) {
#if defined(__APPLE__)
  return "lib" + name + "." + version + ".dylib";
#else
  return "lib" + name + ".so." + version;
#endif
}

/// The launcher's library, or the one that was named.
std::shared_ptr<MpiEngine> load(const std::string& given) {
  const std::string by = launcher().name;
  std::vector<std::string> candidates{library_name("mpi_abi", "1")};
  if (by != "MPICH") candidates.push_back(library_name("mpi", "40"));
  if (by != "Open MPI")
    candidates.insert(candidates.end(), {library_name("mpi", "12"), library_name("mpich", "12")});
  if (!given.empty()) candidates = {given};
  std::string tried;
  for (const std::string& candidate : candidates) {
    void* const library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      tried += std::string("\n  ") + dlerror();
      continue;
    }
    try {
      const std::shared_ptr<MpiEngine> made = make_engine(library, candidate);
      const bool is_open_mpi = made->version().find("Open MPI") != std::string::npos;
      if (given.empty() && !by.empty() && is_open_mpi != (by == "Open MPI")) {
        tried +=
            "\n  " + candidate + ": " + made->version() + ", but " + by + " started this process";
        continue;
      }
      return made;
    } catch (const DistributedError& error) {
      tried += "\n  " + candidate + ": " + error.what();
    }
  }
  throw DistributedError(engine_failed,
                         "no MPI library could be loaded." + tried +
                             "\nInstall one (Debian: openmpi-bin, or mpich), or name it in "
                             "DIRALIGN_MPI.");
}

std::mutex engine_mutex;
std::shared_ptr<MpiEngine>& engine() {
  // Never destroyed: its thread outlives everything else.
  static auto* const engine = new std::shared_ptr<MpiEngine>;
  return *engine;
}

}  // namespace

std::shared_ptr<MpiEngine> MpiEngine::open(const std::string& path) {
  const std::lock_guard<std::mutex> lock(engine_mutex);
  if (!engine()) engine() = load(path);
  return engine();
}

std::shared_ptr<MpiEngine> MpiEngine::opened() {
  const std::lock_guard<std::mutex> lock(engine_mutex);
  return engine();
}

}  // namespace diralign
