// The CPU backend: jobs on host arrays, on any thread.
#pragma once
#include "jobs/job.h"
#include "jobs/pool.h"

namespace diralign::cpu {

/// A job from logits.
void run_logits(Job& job, Pool& pool);
/// A job with an output layer: products in blocks, the softmax between them, and never more logits
/// than the workspace holds. Throws WorkspaceTooSmall before anything is written.
void run_layer(Job& job, Pool& pool);

}  // namespace diralign::cpu
