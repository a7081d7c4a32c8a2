// Large buffers, straight from the system.
#pragma once
#include <cstddef>

namespace diralign::cpu {

/// Asks for large pages under a buffer that was just allocated and never touched: most of the price
/// of a fresh gradient is page faults.
void advise_large_pages(void* data, size_t bytes);

/// A workspace of a job, given back to the system with it: malloc would keep tens of megabytes of
/// what is freed, in an arena for each thread.
class Pages {
 public:
  Pages() = default;
  explicit Pages(size_t bytes);  ///< throws OutOfMemory
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  ~Pages();

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace diralign::cpu
