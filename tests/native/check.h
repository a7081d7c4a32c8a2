// A test harness of one page: tests register themselves, checks report file and line, and the exit
// status tells.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace check {

struct Registration {
  Registration(const char* name, void (*run)());
};

/// Counts the failure and prints the first few of each test; safe to call from any thread.
void fail(const char* file, int line, const char* condition, const std::string& detail);

/// A printf into a string, for the detail of a failure.
std::string text();
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string text(const char* format, ...);

/// Numbers from a fixed seed, the same on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double uniform() { return double(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  int64_t below(int64_t n) { return int64_t(bits() % uint64_t(n)); }
  /// Close enough to a normal distribution to look like logits.
  double normal() {
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += uniform();
    return (sum - 2) * 1.7320508;
  }

 private:
  uint64_t state_;
};

/// Equal representations: NaNs of one payload are, 0 and -0 are not.
template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// Sanitizers and emulators of processors make arithmetic slow and do not change it: samples can be
/// thinner under them. ThreadSanitizer makes a switch of threads of the emulated device slow, too,
/// by far more.
#if defined(__SANITIZE_THREAD__)
constexpr bool thread_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool thread_sanitized = true;
#else
constexpr bool thread_sanitized = false;
#endif
#else
constexpr bool thread_sanitized = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(DIRALIGN_EMULATED_PROCESSOR)
constexpr bool slow = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool slow = true;
#else
constexpr bool slow = thread_sanitized;
#endif
#else
constexpr bool slow = thread_sanitized;
#endif
/// Fewer samples where they differ in numbers alone: ThreadSanitizer looks for order.
constexpr bool thin = thread_sanitized;

}  // namespace check

#define TEST(name)                                                   \
  static void name();                                                \
  static const check::Registration registration_##name(#name, name); \
  static void name()

/// CHECK(condition) or CHECK(condition, printf arguments that show the values).
#define CHECK(condition, ...)                                                                \
  do {                                                                                       \
    if (!(condition)) check::fail(__FILE__, __LINE__, #condition, check::text(__VA_ARGS__)); \
  } while (0)
