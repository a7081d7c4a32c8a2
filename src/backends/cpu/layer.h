// Jobs with an output layer on the CPU: products in blocks, the softmax between them, and never
// more logits than the workspace holds.
#pragma once
#include "jobs/job.h"
#include "jobs/pool.h"

namespace diralign::cpu {

/// Throw WorkspaceTooSmall before anything is written.
void run_layer(LossJob& job, Pool& pool);
void run_layer(SequenceLogpsJob& job, Pool& pool);
void run_layer(TokenLogpsJob& job, Pool& pool);

}  // namespace diralign::cpu
