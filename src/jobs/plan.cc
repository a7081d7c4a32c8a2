#include "plan.h"
#include <algorithm>
#include <string>

namespace diralign {

WorkspaceTooSmall::WorkspaceTooSmall(size_t given, size_t needed_bytes)
    : std::runtime_error(std::to_string(given) + " bytes of workspace, and at least " +
                         std::to_string(needed_bytes) + " are needed"),
      needed(needed_bytes) {}

std::vector<UnitGroup> group_units(const RowList& rows, int64_t chunk_rows, bool together,
                                   int64_t shared_rows) {
  const int64_t count = rows.units.count, most_rows = std::min(chunk_rows, shared_rows);
  std::vector<UnitGroup> groups;
  for (int64_t first = 0; first < count;) {
    int64_t last = together ? count : first + 1;
    while (last < count && rows.of_units(first, last + 1).size() <= most_rows) last++;
    const RowRange range = rows.of_units(first, last);
    groups.push_back({first, last, range, range.size() <= chunk_rows});
    first = last;
  }
  return groups;
}

std::vector<UnitGroup> group_units_reaching(const RowList& rows, int64_t first, int64_t last,
                                            int64_t fewest_rows) {
  std::vector<UnitGroup> groups;
  while (first < last) {
    int64_t end = first + 1;
    while (end < last && rows.of_units(first, end).size() < fewest_rows) end++;
    groups.push_back({first, end, rows.of_units(first, end), false});
    first = end;
  }
  return groups;
}

std::vector<RowRange> cut_rows(const RowRange& range, int64_t chunk_rows) {
  std::vector<RowRange> chunks;
  const int64_t count = (range.size() + chunk_rows - 1) / chunk_rows;
  for (int64_t i = 0; i < count; i++)
    chunks.push_back(
        {range.begin + range.size() * i / count, range.begin + range.size() * (i + 1) / count});
  return chunks;
}

}  // namespace diralign
