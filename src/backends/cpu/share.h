// How rows are shared out among the threads of a team.
#pragma once
#include <algorithm>
#include "jobs/job.h"
#include "jobs/pool.h"

namespace diralign::cpu {

/// Rows of short vocabularies are handed out several at a time.
inline int64_t rows_per_item(const Batch& batch) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, batch.vocab));
}

/// Calls `row(i, member)` for i in [first, last), in ascending or descending order of handing out.
template <class Row>
void for_rows(Team& team, const Job& job, int64_t first, int64_t last, bool descending, Row&& row) {
  const int64_t count = last - first, step = rows_per_item(job.batch),
                items = (count + step - 1) / step;
  team.run(items, [&](int64_t item, int member) {
    for (int64_t k = item * step; k < std::min(count, (item + 1) * step); k++) {
      if (job.stopped()) return;
      row(descending ? last - 1 - k : first + k, member);
    }
  });
}

}  // namespace diralign::cpu
