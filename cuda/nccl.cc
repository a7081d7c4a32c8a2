// Collectives between the devices of processes, by NCCL, which is loaded when it is first asked
// for. It moves bytes and adds nothing up: its sums may differ from call to call.
#include <dlfcn.h>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>
#include "runtime.h"
#include "distributed/communicator.h"
#include "distributed/device_carrier.h"
#include "distributed/patience.h"

namespace diralign::cuda {

namespace {

using Milliseconds = std::chrono::milliseconds;

// What is used of NCCL's C interface, declared from its documentation ("NCCL API"); the same in
// every release from the oldest below on.

using Comm = struct NcclComm*;
using Result = int;  // ncclResult_t
constexpr Result success = 0, in_progress = 7;
constexpr int byte = 0;  // ncclInt8

/// ncclConfig_t, as far as release 2.14 had it.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef, version = 21400;
  int blocking = 0;
};
static_assert(sizeof(Config) == 24);
/// ncclUniqueId, which is passed by value.
struct UniqueId {
  char internal[128];
};

struct Functions {
  Result (*get_version)(int*);
  Result (*get_unique_id)(UniqueId*);
  Result (*init)(Comm*, int ranks, UniqueId, int rank, Config*);
  Result (*async_error)(Comm, Result*);
  Result (*abort)(Comm);
  Result (*destroy)(Comm);
  Result (*all_gather)(const void*, void*, size_t, int type, Comm, cudaStream_t);
  Result (*send)(const void*, size_t, int type, int peer, Comm, cudaStream_t);
  Result (*receive)(void*, size_t, int type, int peer, Comm, cudaStream_t);
  Result (*group_start)();
  Result (*group_end)();
  const char* (*error_string)(Result);
};

[[noreturn]] void refuse(const std::string& what) {
  throw DistributedError("ERR_DIRALIGN_ENGINE", "NCCL: " + what);
}

struct Library {
  Functions functions{};
  CollectiveLibrary about;
};

Library load(const std::string& given) {
  constexpr int oldest = 21400;
  const char* const variable = std::getenv("DIRALIGN_NCCL");
#if defined(DIRALIGN_NCCL_DEFAULT)
  const char* const usual = DIRALIGN_NCCL_DEFAULT;
#else
  const char* const usual = "libnccl.so.2";
#endif
  Library library;
  library.about.path = !given.empty() ? given : variable && *variable ? variable : usual;
  void* const file = load_library(library.about.path.c_str());
  if (!file) {
    const char* const reason = dlerror();
    refuse((reason ? reason : library.about.path + " cannot be loaded") +
           std::string("; DIRALIGN_NCCL may name the file"));
  }
  auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(file, name));
    if (!function) refuse(library.about.path + " has no " + name);
  };
  Functions& f = library.functions;
  find(f.get_version, "ncclGetVersion");
  find(f.get_unique_id, "ncclGetUniqueId");
  find(f.init, "ncclCommInitRankConfig");
  find(f.async_error, "ncclCommGetAsyncError");
  find(f.abort, "ncclCommAbort");
  find(f.destroy, "ncclCommDestroy");
  find(f.all_gather, "ncclAllGather");
  find(f.send, "ncclSend");
  find(f.receive, "ncclRecv");
  find(f.group_start, "ncclGroupStart");
  find(f.group_end, "ncclGroupEnd");
  find(f.error_string, "ncclGetErrorString");
  int version = 0;
  if (f.get_version(&version) != success || version < oldest)
    refuse(library.about.path + " is version " + std::to_string(version) + ", expected at least " +
           std::to_string(oldest));
  library.about.version = std::to_string(version / 10000) + "." +
                          std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
  return library;
}

/// Opened once, and never closed: the driver may be gone first at the end of the process.
const Library& library(const std::string& path = {}) {
  static std::mutex mutex;
  static Library* opened = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!opened) opened = new Library(load(path));
  else if (!path.empty() && path != opened->about.path)
    refuse(opened->about.path + " is open already, and not " + path);
  return *opened;
}

/// A communicator that blocks nowhere: what is not done yet is asked for until the deadline.
class NcclCarrier : public DeviceCarrier {
 public:
  NcclCarrier(int device, int size, Milliseconds timeout)
      : f_(library().functions), device_(device), size_(size), timeout_(timeout) {}
  ~NcclCarrier() override { give_up(); }

  int device() const override { return device_; }

  void join(const CollectiveId& id, int rank, const GivenUp& given_up) {
    const DeviceGuard guard(device_);
    UniqueId unique;
    std::copy(id.begin(), id.end(), unique.internal);
    Config config;
    settle(f_.init(&comm_, size_, unique, rank, &config), "ncclCommInitRankConfig", given_up);
  }

  void all_gather(Stream stream, const void* mine, void* all, size_t bytes,
                  const GivenUp& given_up) override {
    check_usable();
    settle(f_.all_gather(mine, all, bytes, byte, comm_, as_stream(stream)), "ncclAllGather",
           given_up);
  }
  void all_to_all(Stream stream, const void* mine, void* theirs, size_t piece,
                  const GivenUp& given_up) override {
    check_usable();
    settle(f_.group_start(), "ncclGroupStart", given_up);
    for (int rank = 0; rank < size_; rank++) {
      const size_t at = size_t(rank) * piece;
      begin(
          f_.send(static_cast<const char*>(mine) + at, piece, byte, rank, comm_, as_stream(stream)),
          "ncclSend");
      begin(
          f_.receive(static_cast<char*>(theirs) + at, piece, byte, rank, comm_, as_stream(stream)),
          "ncclRecv");
    }
    settle(f_.group_end(), "ncclGroupEnd", given_up);
  }

  void wait(Stream stream, const GivenUp& given_up) override {
    Marker marker;
    marker.record(as_stream(stream));
    for (Patience patience;; rest(patience)) {
      const cudaError_t state = cudaEventQuery(marker.get());
      if (state == cudaSuccess) return;
      if (state != cudaErrorNotReady) check(state, "cudaEventQuery");
      ignore(state);
      look("an exchange", patience, given_up);
    }
  }

  void close() override {
    if (!comm_) return;
    const DeviceGuard guard(device_);
    (void)f_.destroy(std::exchange(comm_, nullptr));
  }

 private:
  void check_usable() const {
    if (!comm_) refuse("the communicator is broken, or closed");
  }
  /// In a group, where nothing begins yet.
  void begin(Result result, const char* call) {
    if (result == success || result == in_progress) return;
    (void)f_.group_end();
    fail(call, result);
  }
  static void rest(Patience& patience) {
    patience.rest([](auto pause) { std::this_thread::sleep_for(pause); });
  }
  void settle(Result result, const char* call, const GivenUp& given_up) {
    for (Patience patience; result == in_progress; rest(patience))
      result = look(call, patience, given_up);
    if (result != success) fail(call, result);
  }
  /// What has become of what is under way; throws where that was not to be waited for.
  Result look(const char* call, const Patience& patience, const GivenUp& given_up) {
    Result state = success;
    if (const Result asked = f_.async_error(comm_, &state); asked != success) state = asked;
    if (state != success && state != in_progress) fail(call, state);
    if (given_up()) {
      give_up();
      throw DistributedError("ERR_DIRALIGN_ENGINE", "the process has no time left");
    }
    if (patience.waited() > timeout_) {
      give_up();
      throw DistributedError("ERR_DIRALIGN_TIMEOUT", "NCCL: " + std::string(call) +
                                                         " did not end within " +
                                                         std::to_string(timeout_.count()) + " ms");
    }
    return state;
  }
  [[noreturn]] void fail(const char* call, Result result) {
    give_up();
    refuse(std::string(call) + ": " + f_.error_string(result));
  }
  /// Ends what is under way here; other ranks find out by their own deadlines.
  void give_up() {
    if (comm_) (void)f_.abort(std::exchange(comm_, nullptr));
  }

  const Functions& f_;
  const int device_, size_;
  const Milliseconds timeout_;
  Comm comm_ = nullptr;
};

}  // namespace

CollectiveLibrary collectives(const std::string& path) { return library(path).about; }

CollectiveId collective_id() {
  const Functions& f = library().functions;
  UniqueId unique;
  if (const Result result = f.get_unique_id(&unique); result != success)
    refuse(std::string("ncclGetUniqueId: ") + f.error_string(result));
  CollectiveId id;
  std::copy(unique.internal, unique.internal + id.size(), id.begin());
  return id;
}

std::shared_ptr<DeviceCarrier> join_collectives(int device, const CollectiveId& id, int rank,
                                                int size, Milliseconds timeout,
                                                const std::function<bool()>& given_up) {
  auto carrier = std::make_shared<NcclCarrier>(device, size, timeout);
  carrier->join(id, rank, given_up);
  return carrier;
}

}  // namespace diralign::cuda
