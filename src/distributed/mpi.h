// MPI, opened when it is first asked for: the library that the process's launcher speaks, by that
// library's own ABI. Only bytes travel and nothing is added up, so that a dozen functions and three
// handles are all there is to know of an ABI.
#pragma once
#include <memory>
#include <string>
#include "communicator.h"

namespace diralign {

/// A communicator of MPI's. Everything but the transfers is for MpiEngine.
class MpiCommunicator : public Communicator, public Carrier {
 public:
  using Communicator::Communicator;
};

/// The library, and the thread that starts and ends it. Exchanges of several communicators are
/// under way at the same time: whoever waits for one asks for it, or, where the library is to be
/// called by one thread alone (MPI_THREAD_FUNNELED), the engine's.
class MpiEngine {
 public:
  /// Opens the library at `path`, or, where that is empty, the launcher's. Once per process.
  static std::shared_ptr<MpiEngine> open(const std::string& path);
  /// What open() returned; null before.
  static std::shared_ptr<MpiEngine> opened();

  virtual ~MpiEngine() = default;
  virtual const char* abi() const = 0;
  virtual const std::string& version() const = 0;
  virtual const std::string& path() const = 0;

  /// `done` is called on the engine's thread.
  using Made = std::function<void(std::shared_ptr<MpiCommunicator>, std::exception_ptr)>;
  /// Starts MPI where nobody has, and makes a communicator of all processes, once the launcher has
  /// started them. `timeout`: of its exchanges, and of those of what is split from it.
  virtual void world(std::chrono::milliseconds timeout, Made done) = 0;
  /// Collective: ranks of one color, ordered by key. Without a deadline: to be called when every
  /// rank is known to have come to it.
  virtual void split(const std::shared_ptr<MpiCommunicator>& parent, int color, int key,
                     Made done) = 0;
  /// Collective. The communicator is not used any more.
  virtual void free(const std::shared_ptr<MpiCommunicator>& communicator) = 0;

  /// Ends MPI, collectively; where an exchange was given up, the job instead, with code 1: other
  /// processes would wait for it for ever.
  virtual void finalize() = 0;
  /// Ends all processes of the job.
  [[noreturn]] virtual void abort(int code) = 0;
};

}  // namespace diralign
