// In place of mpi.cc on Windows, where MPI has another calling convention and no launcher that we
// know.
#include "mpi.h"

namespace diralign {

std::shared_ptr<MpiEngine> MpiEngine::open(const std::string&) {
  throw DistributedError("ERR_DIRALIGN_ENGINE",
                         "MPI is not supported on Windows. Give a transport of your own, or run "
                         "in WSL.");
}

std::shared_ptr<MpiEngine> MpiEngine::opened() { return nullptr; }

}  // namespace diralign
