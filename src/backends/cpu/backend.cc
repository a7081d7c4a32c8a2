#include "backends/backend.h"
#include "run.h"

namespace diralign::cpu {

namespace {
void run(Job& job, int, Pool& pool) { job.layer ? run_layer(job, pool) : run_logits(job, pool); }
}  // namespace

extern const Backend backend;
const Backend backend{.run = run};

}  // namespace diralign::cpu
