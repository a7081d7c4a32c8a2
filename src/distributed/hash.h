// Hashes by which ranks tell whether they have the same.
#pragma once
#include <cstdint>
#include <cstring>

namespace diralign {

/// Of eight bytes at a time: a product spreads each bit upwards, and a shift brings it down again.
class Hash {
 public:
  Hash& bytes(const void* data, size_t count) {
    const char* const from = static_cast<const char*>(data);
    size_t at = 0;
    uint64_t next;
    for (; at + sizeof next <= count; at += sizeof next) {
      std::memcpy(&next, from + at, sizeof next);
      word(next);
    }
    if (at < count) {
      next = 0;
      std::memcpy(&next, from + at, count - at);
      word(next);
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
  void word(uint64_t next) {
    value_ = (value_ ^ next) * 0x9e3779b97f4a7c15u;
    value_ ^= value_ >> 32;
  }

  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace diralign
