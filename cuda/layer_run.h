// Jobs with an output layer on host arrays, as run_staged (jobs.cc) has them; those on device
// memory are run_layer of backend.h.
#pragma once
#include "jobs/job.h"

namespace diralign::cuda {

void run_staged_layer(Job& job, int device);

}  // namespace diralign::cuda
