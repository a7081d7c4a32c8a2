#include "environment.h"
#include <chrono>
#include <thread>

namespace diralign {

struct Environment::Async {
  std::unique_ptr<Job> job;
  std::function<void(Pool&)> work;
  Napi::ObjectReference pinned;
  Napi::FunctionReference done;
  std::string error;
  std::shared_ptr<Async> self;  // keeps it alive between the pool and on_done
};

// Teardown of an environment (worker.terminate(), process.exit()): cleanup hooks run last in, first out. The drain below is added
// after the thread-safe function, so it runs before that closes: it cancels every job and waits until each has made its last call.
// A job's last act is to decrement running_, after that call. on_done then runs without an environment and may only free.
void Environment::create(Napi::Env env) {
  auto* state = new Environment;
  state->pool_ = Pool::shared();
  env.SetInstanceData<Environment>(state);
  state->done_ = DoneFunction::New(env, "diralign", 0, 1, state);
  state->done_.Unref(env);
  env.AddCleanupHook([state] { state->drain(); });
}

void Environment::drain() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const std::weak_ptr<Async>& live : live_)
      if (const std::shared_ptr<Async> async = live.lock()) async->job->cancelled = true;
  }
  while (running_.load() > 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

Napi::Value Environment::start(std::unique_ptr<Job> job, std::function<void(Pool&)> work, Napi::Object pinned, Napi::Function done) {
  const Napi::Env env = pinned.Env();
  auto async = std::make_shared<Async>();
  async->job = std::move(job);
  async->work = std::move(work);
  async->pinned = Napi::Persistent(pinned);
  async->done = Napi::Persistent(done);
  async->self = async;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    live_.remove_if([](const std::weak_ptr<Async>& w) { return w.expired(); });
    live_.push_back(async);
  }
  running_++;
  auto task = [this, raw = async.get()] {
    try {
      if (!raw->job->cancelled) raw->work(*pool_);
    } catch (const std::exception& e) {
      raw->error = e.what();
    }
    done_.NonBlockingCall(raw);
    running_--;
  };
  try {
    pool_->post(task, std::max(1, async->job->threads));
  } catch (...) {  // no thread to be had
    running_--;
    async->self.reset();
    throw;
  }
  if (pending_++ == 0) done_.Ref(env);  // an idle addon does not keep the process alive
  const std::weak_ptr<Async> weak = async;
  return Napi::Function::New(env, [weak](const Napi::CallbackInfo&) {
    if (const std::shared_ptr<Async> live = weak.lock()) live->job->cancelled = true;
  });
}

void Environment::on_done(Napi::Env env, Napi::Function, Environment* state, Async* raw) {
  const std::shared_ptr<Async> async = std::move(raw->self);
  if (env == nullptr) {
    async->pinned.SuppressDestruct();
    async->done.SuppressDestruct();
    return;
  }
  if (--state->pending_ == 0) state->done_.Unref(env);
  const Napi::HandleScope scope(env);
  const Napi::Value error = async->error.empty() ? env.Undefined() : Napi::Error::New(env, async->error).Value();
  async->done.Call({error, Napi::Boolean::New(env, async->job->cancelled.load())});
}

}  // namespace diralign
