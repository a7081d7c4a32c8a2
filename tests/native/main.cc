// Runs the native tests: all of them, or those whose name contains one of the arguments; with
// `-word`, none whose name contains that.
#include <chrono>
#include <cstdarg>
#include <mutex>
#include <vector>
#include "check.h"

namespace check {

namespace {

struct Test {
  const char* name;
  void (*run)();
};

// Function-local: registrations run before main() in an order that is not ours to choose.
std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

constexpr int shown_per_test = 10;
std::mutex mutex;
int failures = 0;

}  // namespace

Registration::Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }

void fail(const char* file, int line, const char* condition, const std::string& detail) {
  std::lock_guard<std::mutex> lock(mutex);
  if (failures++ < shown_per_test)
    std::fprintf(stderr, "%s:%d: CHECK(%s) %s\n", file, line, condition, detail.c_str());
}

std::string text() { return {}; }
std::string text(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

}  // namespace check

namespace {

bool wanted(const char* name, int argc, char** argv) {
  bool asked = false, found = false;
  for (int i = 1; i < argc; i++) {
    if (argv[i][0] == '-') {
      if (std::strstr(name, argv[i] + 1)) return false;
    } else {
      asked = true;
      found = found || std::strstr(name, argv[i]);
    }
  }
  return found || !asked;
}

}  // namespace

int main(int argc, char** argv) {
  int failed_tests = 0, run = 0;
  for (const auto& test : check::tests()) {
    if (!wanted(test.name, argc, argv)) continue;
    check::failures = 0;
    const auto start = std::chrono::steady_clock::now();
    test.run();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%s %s (%.2f s)\n", check::failures ? "FAILED" : "ok    ", test.name, seconds);
    if (check::failures > check::shown_per_test)
      std::printf("       %d failures in all\n", check::failures);
    std::fflush(stdout);
    failed_tests += check::failures != 0;
    run++;
  }
  std::printf("%d tests, %d failed\n", run, failed_tests);
  // A filter that matches nothing is a mistake in the call.
  return failed_tests != 0 || run == 0;
}
