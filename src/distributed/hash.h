// Hashes by which ranks tell whether they have the same.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace diralign {

/// Of eight bytes at a time: a product spreads each bit upwards, and a shift brings it down again.
class Hash {
 public:
  Hash& bytes(const void* data, size_t count) {
    for (size_t at = 0; at < count; at += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, static_cast<const char*>(data) + at, std::min(sizeof word, count - at));
      value_ = (value_ ^ word) * 0x9e3779b97f4a7c15u;
      value_ ^= value_ >> 32;
    }
    return *this;
  }
  template <class T>
  Hash& array(const T* data, size_t count) {
    number(data ? double(count) : -1);
    return data ? bytes(data, count * sizeof(T)) : *this;
  }
  Hash& number(double x) { return bytes(&x, sizeof x); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace diralign
