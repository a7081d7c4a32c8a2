// Work for the thread of an environment, from any other.
#pragma once
#include <napi.h>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace diralign {

class Mailbox {
 public:
  using Work = std::function<void(Napi::Env)>;

  explicit Mailbox(Napi::Env env);

  /// On any thread. False, and `work` is dropped, where the environment is going; then nothing that
  /// it posted before will run either.
  bool post(Work work);
  /// On the environment's thread: whether the process stays alive for what will be posted.
  void hold(Napi::Env env);
  void release(Napi::Env env);
  /// The environment goes.
  void close();
  bool is_closed();

 private:
  static void run(Napi::Env env, Napi::Function, Mailbox*, Work* work);
  using Function = Napi::TypedThreadSafeFunction<Mailbox, Work, run>;

  Function function_;
  std::mutex mutex_;
  bool closed_ = false;
  int holds_ = 0;
};

/// A function of JavaScript that other threads may hold on to, and only its own may call or let go.
struct HeldFunction {
  HeldFunction(std::shared_ptr<Mailbox> box, Napi::Function function)
      : mailbox(std::move(box)), reference(Napi::Persistent(function)) {}
  ~HeldFunction() {
    if (mailbox->is_closed()) reference.SuppressDestruct();
  }
  const std::shared_ptr<Mailbox> mailbox;
  Napi::FunctionReference reference;
};

}  // namespace diralign
