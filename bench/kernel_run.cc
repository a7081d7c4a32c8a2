// Runs one kernel of the CPU backend over N logits, for an emulator that counts its instructions:
//   diralign_kernel_run KERNEL DTYPE N
// bench/instructions.mjs has the names.
#include <cstdlib>
#include <cstring>
#include <vector>
#include "backends/cpu/kernels.h"

using namespace diralign;
using namespace diralign::cpu;

int main(int argc, char** argv) {
  if (argc != 4) return 1;
  const char* const kernel = argv[1];
  const int dtype = std::atoi(argv[2]);
  const size_t n = size_t(std::atoll(argv[3]));
  const int64_t count = int64_t(n);
  const KernelSet& set = kernel_set();
  const RowKernels& rows = set.rows[dtype];
  const ProductKernels& products = set.products[dtype];
  // A row of zeros: which numbers they are changes no instruction.
  std::vector<float> row(n), out(n), anchors(n / block_elements + 1);
  const auto is = [&](const char* name) { return std::strcmp(kernel, name) == 0; };
  if (is("sums")) rows.reduce(row.data(), count, 0);
  else if (is("sums and moment")) rows.reduce_with_moment(row.data(), count, 0);
  else if (is("gradient")) rows.scaled_exp(row.data(), out.data(), count, 0, 1, false);
  else if (is("sums and gradient"))
    rows.negative_softmax_in_place(row.data(), count, 0, anchors.data());
  else if (is("product")) {  // `n` multiply-adds for each of 64 x 64 logits
    constexpr size_t side = 64;
    std::vector<float> hidden(side * n), weight(hidden), logits(side * side);
    void* const scratch = std::aligned_alloc(64, (products.scratch_bytes + 63) / 64 * 64);
    products.logits({hidden.data(), count, nullptr}, side, weight.data(), nullptr, count, 0, side,
                    logits.data(), side, scratch);
    std::free(scratch);
  } else return 1;
}
