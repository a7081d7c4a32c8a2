// Host memory that grows with a batch: an allocation that fails says how much was asked for.
#pragma once
#include <cstddef>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace diralign {

/// The system refused an allocation of `bytes`.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes)
      : bytes(bytes), message_(std::to_string(bytes) + " bytes could not be allocated") {}
  const char* what() const noexcept override { return message_.c_str(); }

  const size_t bytes;

 private:
  std::string message_;
};

template <class T>
struct Allocator {
  using value_type = T;
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) {}

  T* allocate(size_t count) {
    constexpr size_t most = std::numeric_limits<ptrdiff_t>::max() / sizeof(T);
    void* const data = count > most ? nullptr : ::operator new(count * sizeof(T), std::nothrow);
    if (!data)
      throw OutOfMemory(count > most ? std::numeric_limits<size_t>::max() : count * sizeof(T));
    return static_cast<T*>(data);
  }
  void deallocate(T* data, size_t) { ::operator delete(data); }

  template <class U>
  bool operator==(const Allocator<U>&) const {
    return true;
  }
};

/// A vector for what a batch has many of: rows, sequences, words of the vocabulary.
template <class T>
using Array = std::vector<T, Allocator<T>>;

/// Leaves what a vector has room for as it is: filling costs as much as writing it.
struct UnsetAllocator : Allocator<char> {
  template <class U>
  struct rebind {
    using other = UnsetAllocator;
  };
  void construct(char*) const {}
  void construct(char* to, char value) const { *to = value; }
};

/// Bytes that are written before they are read.
using Bytes = std::vector<char, UnsetAllocator>;

/// Numbers that a job reads: a copy, or the caller's own, which stay where they are until it has
/// ended.
class GivenNumbers {
 public:
  GivenNumbers() = default;
  GivenNumbers(Array<double> copy)
      : copy_(std::move(copy)), data_(copy_.data()), size_(copy_.size()) {}
  GivenNumbers(const double* callers, size_t size) : data_(callers), size_(size) {}
  // What is moved keeps its place in memory.
  GivenNumbers(GivenNumbers&&) = default;
  GivenNumbers& operator=(GivenNumbers&&) = default;

  const double* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  double operator[](size_t i) const { return data_[i]; }
  const double* begin() const { return data_; }
  const double* end() const { return data_ + size_; }

 private:
  Array<double> copy_;
  const double* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace diralign
