#include "pages.h"
#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>
#include "jobs/memory.h"
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace diralign::cpu {

void advise_large_pages(void* data, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t large = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + large - 1) & ~(large - 1),
                  end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(large - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

// AddressSanitizer watches the ends of what the heap gives.
#if defined(MAP_ANONYMOUS) && !defined(__SANITIZE_ADDRESS__)

Pages::Pages(size_t bytes) : bytes_(std::max<size_t>(1, bytes)) {
  data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) throw OutOfMemory(bytes);
  advise_large_pages(data_, bytes_);
}
Pages::~Pages() {
  if (data_) munmap(data_, bytes_);
}

#else

constexpr std::align_val_t alignment{64};

Pages::Pages(size_t bytes) : bytes_(std::max<size_t>(64, bytes)) {
  data_ = ::operator new(bytes_, alignment, std::nothrow);
  if (!data_) throw OutOfMemory(bytes);
}
Pages::~Pages() { ::operator delete(data_, alignment); }

#endif

Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace diralign::cpu
