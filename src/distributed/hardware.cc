#include "hardware.h"
#include <cstring>
#include "backends/cpu/kernels.h"
#include "hash.h"
#include "rows/statistics.h"

namespace diralign {

namespace {

/// Statistics of rows whose logarithms and exponentials differ from one C library to another, and
/// within one by what the processor has.
Hash of_mathematics() {
  Hash hash;
  // Not known to the compiler, which would compute with a library of its own.
  volatile float step = 0.7f;
  for (int i = 0; i < 8; i++) {
    const float x = step * float(i);
    const RowSums sums{{x, x + 0.25f, 1 + 37.5 * double(x), -3 * double(x)}, 5 - 2 * x};
    const RowStatistics s = row_statistics(sums);
    hash.number(s.logp).number(s.normalizer).number(logsumexp(s)).number(entropy(s, sums));
  }
  return hash;
}

}  // namespace

uint64_t hardware_of(bool on_device) {
  static const Hash mathematics = of_mathematics();
  const char* const name = on_device ? "device" : cpu::kernel_set().isa;
  return Hash(mathematics).bytes(name, std::strlen(name)).value();
}

}  // namespace diralign
