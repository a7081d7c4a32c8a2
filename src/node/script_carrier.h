// Transports that are written in JavaScript.
#pragma once
#include <napi.h>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include "distributed/communicator.h"
#include "mailbox.h"
#include "values.h"

namespace diralign {

/// A transport of the caller's, as a function of ts/distributed/communicator.ts.
class ScriptCarrier : public Carrier {
 public:
  ScriptCarrier(std::shared_ptr<Mailbox> mailbox, Napi::Function carry)
      : carry_(std::make_shared<HeldFunction>(std::move(mailbox), carry)) {}

  void begin(const std::shared_ptr<Transfer>& transfer) override {
    const bool posted = carry_->mailbox->post([carry = carry_, transfer](Napi::Env env) {
      try {
        const size_t bytes = transfer->sent.size();
        Napi::Uint8Array mine = Napi::Uint8Array::New(env, bytes);
        if (bytes > 0) std::memcpy(mine.Data(), transfer->sent.data(), bytes);
        carry->reference.Call(
            {Napi::Boolean::New(env, transfer->kind == Transfer::Kind::all_to_all), mine,
             settler(env, transfer)});
      } catch (const std::exception& error) {
        transfer->end(failure(error.what()));
      }
    });
    if (!posted) throw DistributedError("ERR_DIRALIGN_ENGINE", "the thread of the transport ends");
  }

 private:
  static std::exception_ptr failure(const std::string& message) {
    return std::make_exception_ptr(DistributedError("ERR_DIRALIGN_ENGINE", message));
  }
  /// settle(error | undefined, bytes | undefined)
  static Napi::Function settler(Napi::Env env, const std::shared_ptr<Transfer>& transfer) {
    return Napi::Function::New(env, [transfer](const Napi::CallbackInfo& info) {
      if (!info[0].IsUndefined())
        return transfer->end(failure(info[0].As<Napi::String>().Utf8Value()));
      const Untyped bytes = untyped(info[1]);
      if (bytes.bytes() != transfer->received.size())
        return transfer->end(failure("another number of bytes than that of all ranks"));
      if (bytes.bytes() > 0) std::memcpy(transfer->received.data(), bytes.data, bytes.bytes());
      transfer->end();
    });
  }

  const std::shared_ptr<HeldFunction> carry_;
};

}  // namespace diralign
