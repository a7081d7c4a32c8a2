#include "mailbox.h"
#include <utility>

namespace diralign {

Mailbox::Mailbox(Napi::Env env) : function_(Function::New(env, "diralign mail", 0, 1, this)) {
  function_.Unref(env);
}

bool Mailbox::post(Work work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return false;
  auto owned = std::make_unique<Work>(std::move(work));
  if (function_.NonBlockingCall(owned.get()) != napi_ok) return false;
  (void)owned.release();
  return true;
}

void Mailbox::hold(Napi::Env env) {
  if (holds_++ == 0) function_.Ref(env);
}

void Mailbox::release(Napi::Env env) {
  if (--holds_ == 0) function_.Unref(env);
}

void Mailbox::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
}

bool Mailbox::is_closed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return closed_;
}

void Mailbox::run(Napi::Env env, Napi::Function, Mailbox*, Work* work) {
  const std::unique_ptr<Work> owned(work);
  if (env == nullptr) return;
  const Napi::HandleScope scope(env);
  (*owned)(env);
}

}  // namespace diralign
