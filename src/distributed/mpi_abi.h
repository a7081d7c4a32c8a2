// The functions and handles of MPI that mpi.cc calls, of each ABI. A handle of MPICH and its kin is
// an int, one of Open MPI and of the standard ABI (MPI 5.0) a pointer.
#pragma once
#include <dlfcn.h>
#include <cstdint>
#include <string>
#include <type_traits>
#include "communicator.h"

namespace diralign {

inline void* symbol(void* library, const char* name) {
  if (void* const found = dlsym(library, name)) return found;
  throw DistributedError("ERR_DIRALIGN_ENGINE", std::string("it has no ") + name);
}

template <class Handle>
struct MpiFunctions {
  int (*init_thread)(int*, char***, int, int*);
  int (*initialized)(int*);
  int (*query_thread)(int*);
  int (*finalize)();
  int (*abort)(Handle, int);
  int (*rank)(Handle, int*);
  int (*size)(Handle, int*);
  int (*dup)(Handle, Handle*);
  int (*split)(Handle, int, int, Handle*);
  int (*free)(Handle*);
  int (*set_errhandler)(Handle, Handle);
  int (*iallgather)(const void*, int, Handle, void*, int, Handle, Handle, Handle*);
  int (*ialltoall)(const void*, int, Handle, void*, int, Handle, Handle, Handle*);
  int (*test)(Handle*, int*, void*);
  int (*error_string)(int, char*, int*);
  int (*library_version)(char*, int*);
};

template <class Handle>
struct MpiConstants {
  const char* abi;
  Handle world, byte, errors_return;
  void* status_ignore;
  int funneled;
};

template <class Handle>
MpiFunctions<Handle> load_functions(void* library) {
  MpiFunctions<Handle> f{};
  auto load = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(symbol(library, name));
  };
  load(f.init_thread, "MPI_Init_thread");
  load(f.initialized, "MPI_Initialized");
  load(f.query_thread, "MPI_Query_thread");
  load(f.finalize, "MPI_Finalize");
  load(f.abort, "MPI_Abort");
  load(f.rank, "MPI_Comm_rank");
  load(f.size, "MPI_Comm_size");
  load(f.dup, "MPI_Comm_dup");
  load(f.split, "MPI_Comm_split");
  load(f.free, "MPI_Comm_free");
  load(f.set_errhandler, "MPI_Comm_set_errhandler");
  load(f.iallgather, "MPI_Iallgather");
  load(f.ialltoall, "MPI_Ialltoall");
  load(f.test, "MPI_Test");
  load(f.error_string, "MPI_Error_string");
  load(f.library_version, "MPI_Get_library_version");
  return f;
}

/// Calls `take` with the constants of the library's ABI.
template <class Take>
auto with_constants(void* library, Take&& take) {
  if (void* const world = dlsym(library, "ompi_mpi_comm_world"))
    return take(MpiConstants<void*>{"Open MPI", world, symbol(library, "ompi_mpi_byte"),
                                    symbol(library, "ompi_mpi_errors_return"), nullptr, 1});
  int major = -1, minor = -1;
  if (auto* const get =
          reinterpret_cast<int (*)(int*, int*)>(dlsym(library, "MPI_Abi_get_version")))
    get(&major, &minor);
  auto handle = [](uintptr_t value) { return reinterpret_cast<void*>(value); };
  if (major >= 1)
    return take(
        MpiConstants<void*>{"MPI 5.0", handle(0x101), handle(0x247), handle(0x143), nullptr, 1024});
  return take(MpiConstants<int>{"MPICH", 0x44000000, 0x4c00010d, 0x54000001,
                                reinterpret_cast<void*>(1), 1});
}

}  // namespace diralign
