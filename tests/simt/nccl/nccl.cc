// Stands for NCCL on the emulation: the part of its C interface that cuda/nccl.cc uses, between
// ranks of one process, each on a device of its own, or of several. The numbers are written down
// once more from NVIDIA's documentation, so that a slip in one place shows.
//
// A rank that initialises as the first opens a socket under the name that the id is; all send their
// pieces there, and have back what the others had for them. What NCCL refuses is refused: another
// configuration, calls while one is in progress, memory that is not the device's. Calls answer that
// they are in progress, as those of a communicator that does not block may.
//
// SIMT_NCCL, read at every exchange: `silent`, it never ends; `broken`, the communicator has an
// error afterwards, and it never ends.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>
#include "runtime.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

#if !defined(STAND_IN_VERSION)
#define STAND_IN_VERSION 22203
#endif

namespace {

using Result = int;
constexpr Result success = 0, system_error = 2, invalid_argument = 4, invalid_usage = 5,
                 remote_error = 6, in_progress = 7;

const simt::Access* devices = nullptr;

struct Id {
  char internal[128];
};
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

bool send_all(int socket, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, from, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    from += sent, bytes -= size_t(sent);
  }
  return true;
}
bool receive_all(int socket, void* data, size_t bytes) {
  char* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t received = ::recv(socket, to, bytes, 0);
    if (received <= 0) return false;
    to += received, bytes -= size_t(received);
  }
  return true;
}

/// In the abstract namespace: nothing of it is left in a file system.
socklen_t address_of(const std::string& id, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, id.data(), id.size());
  return socklen_t(offsetof(sockaddr_un, sun_path) + 1 + id.size());
}

/// What passes every rank's pieces on. Ends when a rank leaves.
void serve(int listener, int ranks) {
  std::vector<int> sockets(size_t(ranks), -1);
  for (int k = 0; k < ranks; k++) {
    const int socket = ::accept(listener, nullptr, nullptr);
    uint32_t rank = 0;
    if (socket < 0 || !receive_all(socket, &rank, sizeof rank) || rank >= uint32_t(ranks)) return;
    sockets[rank] = socket;
  }
  ::close(listener);
  const char go = 1;
  bool alive = true;
  for (const int socket : sockets) alive = send_all(socket, &go, 1) && alive;
  while (alive) {
    // [from][to]
    std::vector<std::vector<std::vector<char>>> pieces(sockets.size());
    for (size_t from = 0; alive && from < sockets.size(); from++)
      for (size_t to = 0; alive && to < sockets.size(); to++) {
        uint64_t bytes = 0;
        alive = receive_all(sockets[from], &bytes, sizeof bytes);
        std::vector<char>& piece = pieces[from].emplace_back(alive ? size_t(bytes) : 0);
        alive = alive && receive_all(sockets[from], piece.data(), piece.size());
      }
    for (size_t to = 0; alive && to < sockets.size(); to++)
      for (size_t from = 0; from < sockets.size(); from++) {
        const uint64_t bytes = pieces[from][to].size();
        alive = alive && send_all(sockets[to], &bytes, sizeof bytes) &&
                send_all(sockets[to], pieces[from][to].data(), size_t(bytes));
      }
  }
  for (const int socket : sockets) ::close(socket);
}

struct Comm {
  int rank, ranks;
  std::atomic<int> socket{-1};
  std::atomic<Result> state{in_progress};
  std::atomic<bool> gone{false};
  std::thread joining;
  int answers = 0;  ///< of "in progress" that are still to be given

  void leave() {
    gone = true;
    if (const int s = socket.exchange(-1); s >= 0) ::shutdown(s, SHUT_RDWR), ::close(s);
    if (joining.joinable()) joining.join();
  }
  void join(const std::string& id) {
    if (rank == 0) {
      sockaddr_un address;
      const socklen_t length = address_of(id, address);
      const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
      if (::bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
          ::listen(listener, ranks) != 0) {
        state = system_error;
        return;
      }
      std::thread(serve, listener, ranks).detach();
    }
    while (!gone) {
      sockaddr_un address;
      const socklen_t length = address_of(id, address);
      const int made = ::socket(AF_UNIX, SOCK_STREAM, 0);
      if (::connect(made, reinterpret_cast<sockaddr*>(&address), length) == 0) {
        socket = made;
        const uint32_t own = uint32_t(rank);
        char go = 0;
        if (send_all(made, &own, sizeof own) && receive_all(made, &go, 1)) state = success;
        else if (!gone) state = remote_error;
        return;
      }
      ::close(made);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
};

/// What one exchange is made of: for each rank, what goes there and where it goes that comes.
struct Exchange {
  struct Piece {
    const void* mine = nullptr;
    size_t bytes = 0;
    void* theirs = nullptr;
    size_t room = 0;
  };
  std::shared_ptr<Comm> comm;
  std::vector<Piece> pieces;

  /// In the order of the stream.
  void run() const {
    const char* const what = std::getenv("SIMT_NCCL");
    const bool silent = what && std::strcmp(what, "silent") == 0;
    if (what && std::strcmp(what, "broken") == 0) comm->state = remote_error;
    while ((silent || comm->state == remote_error) && !comm->gone)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const int socket = comm->socket;
    bool alive = !comm->gone;
    for (const Piece& piece : pieces) {
      const uint64_t bytes = piece.bytes;
      alive = alive && send_all(socket, &bytes, sizeof bytes) &&
              send_all(socket, piece.mine, piece.bytes);
    }
    for (const Piece& piece : pieces) {
      uint64_t bytes = 0;
      alive = alive && receive_all(socket, &bytes, sizeof bytes);
      if (alive && bytes != piece.room) comm->state = invalid_usage, alive = false;
      alive = alive && receive_all(socket, piece.theirs, piece.room);
    }
    if (alive || comm->gone) return;
    if (comm->state == success) comm->state = remote_error;
    while (!comm->gone) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
};

/// Communicators that were made and not destroyed; the handle is an address in here.
using Handle = std::shared_ptr<Comm>*;

thread_local int group_depth = 0;
thread_local Handle grouped = nullptr;
thread_local cudaStream_t grouped_stream = nullptr;
thread_local std::vector<Exchange::Piece> grouped_pieces;

/// Whether it may be used now.
Result usable(Handle comm, const char* name) {
  if (const Result failure = devices->injected(name)) return failure;
  if (!comm) return invalid_argument;
  if ((*comm)->state != success || (*comm)->answers > 0) return invalid_usage;
  return success;
}

Result enqueue(Handle comm, std::vector<Exchange::Piece> pieces, cudaStream_t stream) {
  for (const Exchange::Piece& piece : pieces)
    if ((piece.bytes > 0 && !devices->on_device(piece.mine, piece.bytes)) ||
        (piece.room > 0 && !devices->on_device(piece.theirs, piece.room)))
      return invalid_argument;
  auto exchange = std::make_unique<Exchange>(Exchange{*comm, std::move(pieces)});
  const cudaError_t error = devices->enqueue(
      stream,
      [](const void* data) {
        static_cast<const Exchange*>(data)->run();
        return cudaSuccess;
      },
      exchange.release(), [](void* data) { delete static_cast<Exchange*>(data); });
  if (error != cudaSuccess) return 1;  // ncclUnhandledCudaError
  (*comm)->answers = 2;
  return in_progress;
}

}  // namespace

EXPORTED void simt_attach(const simt::Access* given) { devices = given; }

EXPORTED Result ncclGetVersion(int* version) {
  *version = STAND_IN_VERSION;
  return success;
}

EXPORTED Result ncclGetUniqueId(Id* id) {
  if (const Result failure = devices->injected("ncclGetUniqueId")) return failure;
  std::random_device random;
  *id = {};
  std::snprintf(id->internal, sizeof id->internal, "simt-nccl-%08x%08x%08x%08x", random(), random(),
                random(), random());
  return success;
}

EXPORTED Result ncclCommInitRankConfig(Handle* comm, int ranks, Id id, int rank, Config* config) {
  if (const Result failure = devices->injected("ncclCommInitRankConfig")) return failure;
  if (!comm || !config || config->size != 24 || config->magic != 0xcafebeef ||
      config->version < 21400 || config->blocking != 0)
    return invalid_argument;
  if (ranks < 1 || rank < 0 || rank >= ranks) return invalid_argument;
  auto made = std::make_shared<Comm>();
  made->rank = rank, made->ranks = ranks;
  made->joining =
      std::thread([raw = made.get(), name = std::string(id.internal)] { raw->join(name); });
  *comm = new std::shared_ptr<Comm>(std::move(made));
  return in_progress;
}

EXPORTED Result ncclCommGetAsyncError(Handle comm, Result* state) {
  if (!comm || !state) return invalid_argument;
  Comm& c = **comm;
  *state = c.state;
  if (*state == success && c.answers > 0 && --c.answers > 0) *state = in_progress;
  return success;
}

namespace {
Result remove(Handle comm) {
  if (!comm) return invalid_argument;
  (*comm)->leave();
  delete comm;
  return success;
}
}  // namespace
EXPORTED Result ncclCommAbort(Handle comm) { return remove(comm); }
EXPORTED Result ncclCommDestroy(Handle comm) { return remove(comm); }

EXPORTED Result ncclAllGather(const void* mine, void* all, size_t count, int type, Handle comm,
                              cudaStream_t stream) {
  if (const Result result = usable(comm, "ncclAllGather")) return result;
  if (type != 0 || group_depth > 0) return invalid_argument;
  std::vector<Exchange::Piece> pieces;
  for (int rank = 0; rank < (*comm)->ranks; rank++)
    pieces.push_back({mine, count, static_cast<char*>(all) + size_t(rank) * count, count});
  return enqueue(comm, std::move(pieces), stream);
}

EXPORTED Result ncclGroupStart() {
  group_depth++;
  return success;
}
namespace {
Result add(Handle comm, int peer, cudaStream_t stream, const char* name, Exchange::Piece*& piece) {
  if (const Result result = usable(comm, name)) return result;
  // What is alone would wait for its other half.
  if (group_depth == 0 || peer < 0 || peer >= (*comm)->ranks) return invalid_usage;
  if (grouped && (grouped != comm || grouped_stream != stream)) return invalid_usage;
  grouped = comm, grouped_stream = stream;
  grouped_pieces.resize(size_t((*comm)->ranks));
  piece = &grouped_pieces[size_t(peer)];
  return success;
}
}  // namespace
EXPORTED Result ncclSend(const void* data, size_t count, int type, int peer, Handle comm,
                         cudaStream_t stream) {
  Exchange::Piece* piece = nullptr;
  if (const Result result = add(comm, peer, stream, "ncclSend", piece)) return result;
  if (type != 0 || piece->mine) return invalid_argument;
  piece->mine = data, piece->bytes = count;
  return success;
}
EXPORTED Result ncclRecv(void* data, size_t count, int type, int peer, Handle comm,
                         cudaStream_t stream) {
  Exchange::Piece* piece = nullptr;
  if (const Result result = add(comm, peer, stream, "ncclRecv", piece)) return result;
  if (type != 0 || piece->theirs) return invalid_argument;
  piece->theirs = data, piece->room = count;
  return success;
}
EXPORTED Result ncclGroupEnd() {
  if (group_depth == 0) return invalid_usage;
  if (--group_depth > 0 || !grouped) return success;
  const Handle comm = std::exchange(grouped, nullptr);
  return enqueue(comm, std::exchange(grouped_pieces, {}), grouped_stream);
}

EXPORTED const char* ncclGetErrorString(Result result) {
  switch (result) {
    case success: return "no error";
    case system_error: return "unhandled system error";
    case invalid_argument: return "invalid argument";
    case invalid_usage: return "invalid usage";
    case remote_error: return "remote process exited or there was a network error";
    case in_progress: return "NCCL operation in progress";
    default: return "unknown result code";
  }
}
