// Which library of MPI a process opens.
#include "mpi.h"
#include <mutex>
#include <type_traits>
#include <vector>
#include "launcher.h"
#include "mpi_abi.h"
#include "mpi_engine.h"

namespace diralign {

namespace {

std::shared_ptr<MpiEngine> make_engine(void* library, const std::string& path) {
  return with_constants(library, [&](const auto& constants) -> std::shared_ptr<MpiEngine> {
    using Handle = decltype(constants.world);
    return std::make_shared<Engine<std::remove_const_t<Handle>>>(library, path, constants);
  });
}

/// As the system's loader spells it.
std::string library_name(const std::string& name, const std::string& version) {
#if defined(__APPLE__)
  return "lib" + name + "." + version + ".dylib";
#else
  return "lib" + name + ".so." + version;
#endif
}

/// The launcher's library, or the one that was named.
std::shared_ptr<MpiEngine> load(const std::string& given) {
  const std::string by = launcher().name;
  std::vector<std::string> candidates{library_name("mpi_abi", "1")};
  if (by != "MPICH") candidates.push_back(library_name("mpi", "40"));
  if (by != "Open MPI")
    candidates.insert(candidates.end(), {library_name("mpi", "12"), library_name("mpich", "12")});
  if (!given.empty()) candidates = {given};
  std::string tried;
  for (const std::string& candidate : candidates) {
    void* const library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      tried += std::string("\n  ") + dlerror();
      continue;
    }
    try {
      const std::shared_ptr<MpiEngine> made = make_engine(library, candidate);
      const bool is_open_mpi = made->version().find("Open MPI") != std::string::npos;
      if (given.empty() && !by.empty() && is_open_mpi != (by == "Open MPI")) {
        tried +=
            "\n  " + candidate + ": " + made->version() + ", but " + by + " started this process";
        continue;
      }
      return made;
    } catch (const DistributedError& error) {
      tried += "\n  " + candidate + ": " + error.what();
    }
  }
  throw DistributedError("ERR_DIRALIGN_ENGINE",
                         "no MPI library could be loaded." + tried +
                             "\nInstall one (Debian: openmpi-bin, or mpich), or name it in "
                             "DIRALIGN_MPI.");
}

std::mutex engine_mutex;
std::shared_ptr<MpiEngine>& engine() {
  // Never destroyed: its thread outlives everything else.
  static auto* const engine = new std::shared_ptr<MpiEngine>;
  return *engine;
}

}  // namespace

std::shared_ptr<MpiEngine> MpiEngine::open(const std::string& path) {
  const std::lock_guard<std::mutex> lock(engine_mutex);
  if (!engine()) engine() = load(path);
  return engine();
}

std::shared_ptr<MpiEngine> MpiEngine::opened() {
  const std::lock_guard<std::mutex> lock(engine_mutex);
  return engine();
}

}  // namespace diralign
