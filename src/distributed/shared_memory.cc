#include "shared_memory.h"
#include <algorithm>
#include <cstring>
#include <string>
#ifdef __linux__
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace diralign {

#ifdef __linux__

namespace {

/// Where a rank finds the memory of rank 0: among the files that its process has open. Nothing of
/// it is left behind by processes that are killed.
struct Offer {
  int32_t process, file;
  uint64_t name[2];  ///< at random
};

std::string name_of(const Offer& offer) {
  return "diralign-" + std::to_string(offer.name[0]) + "-" + std::to_string(offer.name[1]);
}

class File {
 public:
  explicit File(int number) : number(number) {}
  ~File() {
    if (number >= 0) close(number);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const int number;  ///< -1: there is none
};

/// Opens it if it has the name: on another machine, or in another container, the process of that
/// number is another one.
int open_offered(const Offer& offer) {
  const std::string path =
      "/proc/" + std::to_string(offer.process) + "/fd/" + std::to_string(offer.file);
  char found[128];
  const ssize_t length = readlink(path.c_str(), found, sizeof found);
  if (length < 0 || std::string(found, size_t(length)) != "/memfd:" + name_of(offer) + " (deleted)")
    return -1;
  return open(path.c_str(), O_RDWR | O_CLOEXEC);
}

}  // namespace

std::unique_ptr<SharedMemory> SharedMemory::make(int rank, int size, const Gather& gather) {
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  if (size == 1) return nullptr;
  const size_t bytes = size_t(size) * sizeof(Slot);
  Offer mine{int32_t(getpid()), -1, {}};
  // By number: the functions, and the standard library's random_device, need a newer glibc than the
  // rest of the addon.
  const bool named = syscall(SYS_getrandom, mine.name, sizeof mine.name, 0U) == sizeof mine.name;
  const File made(rank == 0 && named ? int(syscall(SYS_memfd_create, name_of(mine).c_str(), 1U))
                                     : -1);  // closed on exec
  if (made.number >= 0 && ftruncate(made.number, off_t(bytes)) == 0) mine.file = made.number;
  std::vector<Offer> offers(static_cast<size_t>(size));
  gather(&mine, offers.data(), sizeof mine);
  const Offer& offer = offers[0];
  const File opened(offer.file >= 0 ? open_offered(offer) : -1);
  void* const memory = opened.number >= 0 ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                                                 opened.number, 0)
                                          : MAP_FAILED;
  const char has = memory != MAP_FAILED;
  std::vector<char> have(static_cast<size_t>(size));
  gather(&has, have.data(), sizeof has);
  if (std::find(have.begin(), have.end(), '\0') == have.end())
    return std::unique_ptr<SharedMemory>(new SharedMemory(memory, rank, size));
  if (has) munmap(memory, bytes);
  return nullptr;
}

SharedMemory::~SharedMemory() { munmap(slots_, size_t(size_) * sizeof(Slot)); }

#else

std::unique_ptr<SharedMemory> SharedMemory::make(int, int, const Gather&) { return nullptr; }

SharedMemory::~SharedMemory() = default;

#endif

void SharedMemory::begin(std::shared_ptr<const Transfer> transfer) {
  to_come_.push_back(std::move(transfer));
  if (to_come_.size() == 1) send(*to_come_.front());
}

void SharedMemory::send(const Transfer& transfer) {
  sent_++;
  Slot& own = slots_[rank_];
  std::memcpy(own.buffers[sent_ % 2], transfer.sent.data(), transfer.piece);
  own.bytes[sent_ % 2] = transfer.piece;
  own.sent.store(sent_, std::memory_order_release);
}

bool SharedMemory::try_end(Transfer& transfer) {
  if (to_come_.front().get() != &transfer) return false;
  for (int rank = 0; rank < size_; rank++)
    if (slots_[rank].sent.load(std::memory_order_acquire) < sent_) return false;
  for (int rank = 0; rank < size_; rank++) {
    const Slot& slot = slots_[rank];
    if (slot.bytes[sent_ % 2] != transfer.piece)
      throw DistributedError("ERR_DIRALIGN_ENGINE",
                             "rank " + std::to_string(rank) + " of " + std::to_string(size_) +
                                 " sent " + std::to_string(slot.bytes[sent_ % 2]) +
                                 " bytes, expected " + std::to_string(transfer.piece));
    std::memcpy(transfer.received.data() + size_t(rank) * transfer.piece, slot.buffers[sent_ % 2],
                transfer.piece);
  }
  to_come_.pop_front();
  if (!to_come_.empty()) send(*to_come_.front());
  return true;
}

}  // namespace diralign
