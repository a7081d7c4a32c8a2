// The CPU backend: runs a job on host arrays, on any thread.
#pragma once
#include "jobs/job.h"
#include "jobs/pool.h"

namespace diralign::cpu {

void run(LossJob& job, Pool& pool);
void run(SequenceLogpsJob& job, Pool& pool);
void run(TokenLogpsJob& job, Pool& pool);

/// Asks the system for large pages under a buffer that was just allocated and never touched: most
/// of the price of a fresh gradient is page faults.
void advise_large_pages(void* data, size_t bytes);

}  // namespace diralign::cpu
