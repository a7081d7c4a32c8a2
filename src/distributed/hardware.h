// What a rank computes with, as far as bits depend on it.
#pragma once
#include <cstdint>

namespace diralign {

/// Of the mathematics of this process, and of what sums its rows: the kernel set, or a device.
/// Ranks with different ones may get different last digits.
uint64_t hardware_of(bool on_device);

}  // namespace diralign
