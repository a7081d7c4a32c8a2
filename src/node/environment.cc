#include "environment.h"
#include <climits>
#include <string>
#include "distributed.h"
#include "values.h"
#include "jobs/processors.h"

namespace diralign {

namespace {
const DeviceApi& api() { return *device_backend().device; }
}  // namespace

struct Environment::Async {
  std::unique_ptr<Job> job;
  uint64_t task = 0;  // of the pool; 0 where a device has the job
  // What a device has of the job; it goes first.
  std::unique_ptr<Launch> launch;
  Place place;
  int cuda_error = 0;
  Napi::ObjectReference pinned;
  Napi::FunctionReference done;
  std::exception_ptr error;
  std::shared_ptr<Async> self;  // keeps it alive between the thread that works and on_done

  /// Hands the results of a device over.
  void finish() {
    if (cuda_error != 0) {
      api().synchronize(place.device,
                        place.stream);  // throws it in CUDA's own words, if CUDA still has it
      throw DeviceError("the work of the stream", cuda_error, "cudaError",
                        ("it ended with error " + std::to_string(cuda_error)).c_str());
    }
    launch->finish();
  }
};

// Teardown of an environment (worker.terminate(), process.exit()): cleanup hooks run last in, first
// out. The drain below is added after the thread-safe function, so it runs before that closes: it
// cancels every job and waits until each has made its last call; one on a device ends when the
// device is done with it. on_done then runs without an environment and may only free. What
// JavaScript owned is freed when nothing runs any more that might use it.
void Environment::create(Napi::Env env) {
  auto* state = new Environment;
  state->pool_ = Pool::shared();
  state->processors_ = available_processors();
  env.SetInstanceData<Environment>(state);
  state->done_ = DoneFunction::New(env, "diralign", 0, 1, state);
  state->done_.Unref(env);
  state->mailbox_ = std::make_shared<Mailbox>(env);
  env.AddCleanupHook([state] { state->drain(); });
}

void Environment::drain() {
  mailbox_->close();
  for (Async* async : live_) {
    cancel(*async);
    if (async->job->parallel) async->job->parallel->session.abandon();
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return running_ == 0; });
  }
  for (auto& [key, free] : owned_) {
    try {
      free();
    } catch (const std::exception&) {  // there is nobody left to tell
    }
  }
  owned_.clear();
}

/// The job stops at its next row, or at once where no thread has begun it, whatever it waits
/// behind.
void Environment::cancel(Async& async) {
  async.job->cancelled = true;
  if (!async.job->parallel && pool_->withdraw(async.task) > 0) ended(&async);
}

/// Called once for a job, by whoever has ended it, on any thread.
void Environment::ended(Async* async) {
  done_.NonBlockingCall(async);
  last_call_made();
}

/// With the lock held to the end: drain() must not return, and this object go, in between.
void Environment::last_call_made() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (--running_ == 0) idle_.notify_all();
}

void Environment::free(Owned kind, uint64_t handle) {
  const auto found = owned_.find({kind, handle});
  if (found == owned_.end()) return;
  const std::function<void()> free = std::move(found->second);
  owned_.erase(found);
  free();
}

std::shared_ptr<Environment::Async> Environment::prepare(std::unique_ptr<Job> job,
                                                         Napi::Object pinned, Napi::Function done) {
  auto async = std::make_shared<Async>();
  async->job = std::move(job);
  async->pinned = Napi::Persistent(pinned);
  async->done = Napi::Persistent(done);
  live_.insert(async.get());
  async->self = async;
  std::lock_guard<std::mutex> lock(mutex_);
  running_++;
  return async;
}

void Environment::never_started(Async& async) {
  last_call_made();
  live_.erase(&async);
  async.self.reset();
}

Napi::Value Environment::started(Napi::Env env, const std::shared_ptr<Async>& async) {
  if (live_.size() == 1) done_.Ref(env);  // an idle addon does not keep the process alive
  return Napi::Function::New(env,
                             [this, weak = std::weak_ptr<Async>(async)](const Napi::CallbackInfo&) {
                               if (const std::shared_ptr<Async> live = weak.lock()) cancel(*live);
                             });
}

Napi::Value Environment::start(std::unique_ptr<Job> job, std::function<void()> work, bool at_once,
                               Napi::Object pinned, Napi::Function done) {
  const std::shared_ptr<Async> async = prepare(std::move(job), pinned, done);
  auto run = [this, raw = async.get(), work = std::move(work)] {
    try {
      if (raw->job->parallel || !raw->job->cancelled) work();
    } catch (const std::exception&) {
      raw->error = std::current_exception();
    }
    ended(raw);
  };
  if (async->job->parallel) {
    start_in_turn(async.get(), std::move(run));
    return started(pinned.Env(), async);
  }
  try {
    if (at_once) run();
    else async->task = pool_->post(std::move(run), processors_);
  } catch (...) {  // no thread to be had
    never_started(*async);
    throw;
  }
  return started(pinned.Env(), async);
}

/// A job that waits for other processes keeps its thread: the pool has one for each, or jobs of
/// ranks of this process would wait for each other.
void Environment::start_in_turn(Async* async, std::function<void()> run) {
  async->job->parallel->session.turn->line_up([this, async, run = std::move(run)] {
    try {
      pool_->post(run, INT_MAX);
    } catch (const std::exception&) {
      async->error = std::current_exception();
      async->job->parallel->session.turn->leave();
      ended(async);
    }
  });
}

Napi::Value Environment::start(std::unique_ptr<Job> job, std::unique_ptr<Launch> launch,
                               const Place& place, Napi::Object pinned, Napi::Function done) {
  const std::shared_ptr<Async> async = prepare(std::move(job), pinned, done);
  async->launch = std::move(launch);
  async->place = place;
  try {
    api().notify(place.device, place.stream, [this, raw = async.get()](int error) {
      raw->cuda_error = error;
      ended(raw);
    });
  } catch (...) {
    never_started(*async);
    // The launch is freed on the way out, which must not happen under the device.
    try {
      api().synchronize(place.device, place.stream);
    } catch (
        const DeviceError&) {  // a device that failed has ended, too; what notify said is the news
    }
    throw;
  }
  return started(pinned.Env(), async);
}

void Environment::on_done(Napi::Env env, Napi::Function, Environment* state, Async* raw) {
  const std::shared_ptr<Async> async = std::move(raw->self);
  if (env == nullptr) {
    async->pinned.SuppressDestruct();
    async->done.SuppressDestruct();
    return;
  }
  state->live_.erase(raw);
  if (state->live_.empty()) state->done_.Unref(env);
  const Napi::HandleScope scope(env);
  Napi::Value error = env.Undefined();
  try {
    if (async->error) std::rethrow_exception(async->error);
    if (async->launch) async->finish();
    if (has_more(*async->job))
      deliver(*async->job, async->pinned.Value().Get(parallel_of(*async->job)));
  } catch (const std::exception& e) {
    error = to_javascript(env, e).Value();
  }
  // Before anybody is told: what the caller frees or reuses next is not in use.
  async->launch.reset();
  async->done.Call({error, Napi::Boolean::New(env, async->job->cancelled.load())});
}

}  // namespace diralign
