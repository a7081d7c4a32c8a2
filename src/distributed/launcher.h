// What a launcher tells the processes that it starts, in their environment.
#pragma once
#include <algorithm>
#include <cstdlib>

namespace diralign {

struct Launcher {
  const char* name;  ///< empty: nothing that we know
  int size;          ///< processes of the job
  int neighbours;    ///< of them on this machine; 0 where it does not say
};

inline Launcher launcher() {
  const auto integer = [](const char* variable) {
    const char* const value = std::getenv(variable);
    return value ? std::atoi(value) : 0;
  };
  const int neighbours =
      std::max(integer("OMPI_COMM_WORLD_LOCAL_SIZE"), integer("MPI_LOCALNRANKS"));
  if (const int size = integer("OMPI_COMM_WORLD_SIZE")) return {"Open MPI", size, neighbours};
  if (const int size = integer("PMI_SIZE")) return {"MPICH", size, neighbours};
  return {"", std::max(1, integer("SLURM_NTASKS")), neighbours};
}

}  // namespace diralign
