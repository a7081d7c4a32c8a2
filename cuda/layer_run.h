// Jobs with an output layer on host arrays, as run_staged (jobs.cc) has them; those on device
// memory are run_layer of src/backends/device.h.
#pragma once
#include "jobs/job.h"

namespace diralign::cuda {

void run_staged_layer(LossJob& job, int device);
void run_staged_layer(SequenceLogpsJob& job, int device);
void run_staged_layer(TokenLogpsJob& job, int device);

}  // namespace diralign::cuda
