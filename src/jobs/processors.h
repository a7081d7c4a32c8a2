// How many processors this process may use: its affinity mask, and the quota of its control groups.
#pragma once
#include <functional>
#include <optional>
#include <string>

namespace diralign {

/// Processors that the calling thread, and the threads that it starts, may use at the same time; at
/// least 1.
int available_processors();

/// The text of a file, or nothing where it cannot be read.
using ReadFile = std::function<std::optional<std::string>(const std::string& path)>;

/// The processors that the quota of this process's control groups keeps busy, rounded up: the least
/// of its own groups, of version 1 and 2, and of those around them. Nothing where no group has a
/// quota.
std::optional<int> quota_processors(const ReadFile& read);

}  // namespace diralign
