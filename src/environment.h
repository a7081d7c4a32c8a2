// Asynchronous jobs of one Node environment (the main thread or a worker). All state lives here, none in statics, so that an
// environment can go at any moment: see the order of teardown in environment.cc.
#pragma once
#include <napi.h>
#include <atomic>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include "cpu/compute.h"
#include "pool.h"

namespace diralign {

class Environment {
 public:
  /// Creates the state of `env`; call once, from the addon's init.
  static void create(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Pool& pool() { return *pool_; }

  /// Runs `job` on the pool and then calls `done(error | undefined, cancelled)` on this environment's thread. `pinned` stays alive
  /// until then. Returns a function that cancels.
  template <class AnyJob>
  Napi::Value start(std::unique_ptr<AnyJob> job, Napi::Object pinned, Napi::Function done) {
    AnyJob* raw = job.get();
    return start(std::unique_ptr<Job>(std::move(job)), [raw](Pool& pool) { cpu::run(*raw, pool); }, pinned, done);
  }

 private:
  struct Async;
  static void on_done(Napi::Env env, Napi::Function, Environment* state, Async* async);
  using DoneFunction = Napi::TypedThreadSafeFunction<Environment, Async, on_done>;

  Napi::Value start(std::unique_ptr<Job> job, std::function<void(Pool&)> work, Napi::Object pinned, Napi::Function done);
  void drain();

  std::shared_ptr<Pool> pool_;
  DoneFunction done_;
  int pending_ = 0;  // calls not yet reported; touched on the environment's thread only
  std::atomic<int> running_{0};
  std::mutex mutex_;
  std::list<std::weak_ptr<Async>> live_;
};

}  // namespace diralign
