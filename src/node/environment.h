// Asynchronous jobs of one Node environment (the main thread or a worker), and what its JavaScript
// owns outside the heap. All state lives here, none in statics, so that an environment can go at
// any moment: see the order of teardown in environment.cc.
#pragma once
#include <napi.h>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include "backends/backend.h"
#include "jobs/job.h"
#include "jobs/pool.h"
#include "mailbox.h"

namespace diralign {

class Environment {
 public:
  /// Creates the state of `env`; call once, from the addon's init.
  static void create(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Pool& pool() { return *pool_; }
  const std::shared_ptr<Mailbox>& mailbox() { return mailbox_; }
  /// Threads of a call that does not say how many.
  int processors() const { return processors_; }

  /// Calls `work` on the pool, or, if `at_once`, before it returns, and then `done(error |
  /// undefined, cancelled)` on this environment's thread. `pinned` stays alive until then. Returns
  /// a function that cancels: a job that waits for a thread is reported at once, a running one when
  /// it has stopped. A job among processes begins when it is its turn, and is never left out: the
  /// others count on it.
  Napi::Value start(std::unique_ptr<Job> job, std::function<void()> work, bool at_once,
                    Napi::Object pinned, Napi::Function done);

  /// The same for a job that was enqueued on a device: `done` is called once the stream is past it.
  /// It is not stopped by cancelling; it only reports that it was.
  Napi::Value start(std::unique_ptr<Job> job, std::unique_ptr<Launch> launch, const Place& place,
                    Napi::Object pinned, Napi::Function done);

  /// Device memory, streams, events and page-locked memory die with the environment that made them.
  /// On its thread only.
  enum class Owned { memory, stream, event, pinned };
  void own(Owned kind, uint64_t handle, std::function<void()> free) {
    owned_[{kind, handle}] = std::move(free);
  }
  /// Frees it now; what was freed already is left alone.
  void free(Owned kind, uint64_t handle);

  /// For benchmarks: events that the next synchronous job on a device records right before and
  /// after its work, without what the host does around it. 0 once they were.
  struct {
    Event begin = 0, end = 0;
  } time_next;

 private:
  struct Async;
  static void on_done(Napi::Env env, Napi::Function, Environment* state, Async* async);
  using DoneFunction = Napi::TypedThreadSafeFunction<Environment, Async, on_done>;

  std::shared_ptr<Async> prepare(std::unique_ptr<Job> job, Napi::Object pinned,
                                 Napi::Function done);
  void start_in_turn(Async* async, std::function<void()> run);
  Napi::Value started(Napi::Env env, const std::shared_ptr<Async>& async);
  void never_started(Async& async);
  void cancel(Async& async);
  void ended(Async* async);
  void last_call_made();
  void drain();

  std::shared_ptr<Pool> pool_;
  std::shared_ptr<Mailbox> mailbox_;
  int processors_ = 1;
  DoneFunction done_;
  std::set<Async*> live_;  // calls not yet reported; touched on the environment's thread only
  std::mutex mutex_;
  std::condition_variable idle_;
  int running_ = 0;  // jobs that have not made their last call; under the mutex
  std::map<std::pair<Owned, uint64_t>, std::function<void()>> owned_;
};

}  // namespace diralign
