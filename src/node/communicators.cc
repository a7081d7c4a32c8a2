#include "communicators.h"
#include <algorithm>
#include <cstring>
#include <utility>
#include "distributed/hardware.h"
#include "distributed/parallel.h"
#include "environment.h"
#include "requests.h"
#include "values.h"

namespace diralign {

namespace {

Napi::Object communicator_object(Napi::Env env, std::shared_ptr<Communicator> communicator) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("rank", communicator->rank);
  result.Set("size", communicator->size);
  result.Set("handle", CommunicatorHandle::New(
                           env, new std::shared_ptr<Communicator>(std::move(communicator)),
                           [](Napi::Env, auto* owned) { delete owned; }));
  return result;
}

std::chrono::milliseconds milliseconds(Napi::Value value) {
  return std::chrono::milliseconds(value.As<Napi::Number>().Int64Value());
}

/// A function of JavaScript that is called once, from another thread: done(error, value).
class Callback {
 public:
  using Value = std::function<Napi::Value(Napi::Env)>;

  Callback(Napi::Env env, Napi::Function function)
      : function_(std::make_shared<HeldFunction>(Environment::of(env).mailbox(), function)) {
    function_->mailbox->hold(env);
  }
  void operator()(std::exception_ptr error, Value value) const {
    function_->mailbox->post(
        [function = function_, error, value = std::move(value)](Napi::Env env) {
          function->mailbox->release(env);
          Napi::Value failed = env.Undefined(), result = env.Undefined();
          try {
            if (error) std::rethrow_exception(error);
            result = value(env);
          } catch (const std::exception& e) {
            failed = to_javascript(env, e).Value();
          }
          function->reference.Call({failed, result});
        });
  }

 private:
  std::shared_ptr<HeldFunction> function_;
};

// --- MPI

/// openMpi(path, timeout, done(error, { rank, size, handle, engine }))
Napi::Value open_mpi(const Napi::CallbackInfo& info) {
  const std::shared_ptr<MpiEngine> engine = MpiEngine::open(info[0].As<Napi::String>().Utf8Value());
  const Callback done(info.Env(), info[2].As<Napi::Function>());
  engine->world(milliseconds(info[1]), [engine, done](auto world, std::exception_ptr error) {
    done(error, [engine, world](Napi::Env env) {
      Napi::Object result = communicator_object(env, world), about = Napi::Object::New(env);
      about.Set("name", "MPI");
      about.Set("version", engine->version());
      about.Set("abi", engine->abi());
      about.Set("library", engine->path());
      result.Set("engine", about);
      return result;
    });
  });
  return info.Env().Undefined();
}

/// Runs `act` when it is the call's turn and every rank has come to it; `act` or a failure takes
/// the turn on.
void collective(const std::shared_ptr<MpiCommunicator>& communicator, const Callback& done,
                std::function<void(std::shared_ptr<Turn>)> act) {
  const auto turn =
      std::make_shared<Turn>(std::vector<std::shared_ptr<Communicator>>{communicator});
  communicator->calls++;
  turn->line_up([communicator, done, turn, act] {
    const auto fail = [done, turn](std::exception_ptr error) {
      turn->leave();
      done(error, {});
    };
    try {
      const auto here = std::make_shared<Transfer>(Transfer::Kind::all_gather, communicator->size,
                                                   "", 1, [=](Transfer& transfer) {
                                                     if (transfer.error()) fail(transfer.error());
                                                     else act(turn);
                                                   });
      communicator->begin(here);
    } catch (const std::exception&) {
      fail(std::current_exception());
    }
  });
}

/// split(handle, color, key, done(error, { rank, size, handle }))
Napi::Value split(const Napi::CallbackInfo& info) {
  const auto parent = mpi_communicator_of(info[0]);
  const int color = info[1].As<Napi::Number>(), key = info[2].As<Napi::Number>();
  const Callback done(info.Env(), info[3].As<Napi::Function>());
  collective(parent, done, [=](const std::shared_ptr<Turn>& turn) {
    MpiEngine::opened()->split(parent, color, key, [=](auto made, std::exception_ptr error) {
      turn->leave();
      done(error, [made](Napi::Env env) { return communicator_object(env, made); });
    });
  });
  return info.Env().Undefined();
}

/// close(handle, done(error))
Napi::Value close(const Napi::CallbackInfo& info) {
  const auto communicator = mpi_communicator_of(info[0]);
  const Callback done(info.Env(), info[1].As<Napi::Function>());
  collective(communicator, done, [=](const std::shared_ptr<Turn>& turn) {
    MpiEngine::opened()->free(communicator);
    turn->leave();
    done(nullptr, [](Napi::Env env) { return env.Undefined(); });
  });
  return info.Env().Undefined();
}

/// exchange(handle, toAll, bytes, done(error, bytes))
Napi::Value exchange(const Napi::CallbackInfo& info) {
  const auto communicator = mpi_communicator_of(info[0]);
  const bool to_all = info[1].As<Napi::Boolean>();
  const Untyped bytes = untyped(info[2]);
  const Callback done(info.Env(), info[3].As<Napi::Function>());
  const auto turn =
      std::make_shared<Turn>(std::vector<std::shared_ptr<Communicator>>{communicator});
  communicator->calls++;
  auto ended = [done, turn](Transfer& transfer) {
    const auto received = std::make_shared<Bytes>(std::move(transfer.received));
    const std::exception_ptr error = transfer.error();
    turn->leave();
    done(error, [received](Napi::Env env) {
      Napi::Uint8Array all = Napi::Uint8Array::New(env, received->size());
      if (!received->empty()) std::memcpy(all.Data(), received->data(), received->size());
      return all;
    });
  };
  const auto transfer = std::make_shared<Transfer>(
      to_all ? Transfer::Kind::all_to_all : Transfer::Kind::all_gather, communicator->size,
      bytes.data, to_all ? bytes.bytes() / size_t(communicator->size) : bytes.bytes(), ended);
  turn->line_up([communicator, transfer] {
    try {
      communicator->begin(transfer);
    } catch (const std::exception&) {
      transfer->end(std::current_exception());
    }
  });
  return info.Env().Undefined();
}

Napi::Value finalize(const Napi::CallbackInfo& info) {
  if (const auto engine = MpiEngine::opened()) engine->finalize();
  return info.Env().Undefined();
}

Napi::Value abort(const Napi::CallbackInfo& info) {
  if (const auto engine = MpiEngine::opened()) engine->abort(info[0].As<Napi::Number>());
  return info.Env().Undefined();
}

/// forTests(longestPiece, funneled, sharesMemory, protocol)
Napi::Value set_for_tests(const Napi::CallbackInfo& info) {
  for_tests = {size_t(integer(info[0])), info[1].As<Napi::Boolean>(), info[2].As<Napi::Boolean>(),
               uint32_t(integer(info[3]))};
  return info.Env().Undefined();
}

// --- NCCL

const DeviceApi& devices() { return *device_backend().device; }

/// openNccl(path): { version, library }
Napi::Value open_nccl(const Napi::CallbackInfo& info) {
  const CollectiveLibrary library = devices().collectives(info[0].As<Napi::String>().Utf8Value());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("version", library.version);
  result.Set("library", library.path);
  return result;
}

/// ncclId(): what rank 0 gives the others.
Napi::Value nccl_id(const Napi::CallbackInfo& info) {
  const CollectiveId id = devices().collective_id();
  Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), id.size());
  std::memcpy(bytes.Data(), id.data(), id.size());
  return bytes;
}

/// joinNccl(place, done(error)): place.carrier is what others have joined by then.
Napi::Value join_nccl(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object place = info[0].As<Napi::Object>();
  const Untyped given = untyped(place.Get("id"));
  CollectiveId id;
  std::memcpy(id.data(), given.data, std::min(id.size(), given.bytes()));
  const int device = int(integer(place.Get("device"))), rank = int(integer(place.Get("rank"))),
            size = int(integer(place.Get("size")));
  const std::chrono::milliseconds timeout = milliseconds(place.Get("timeout"));
  auto* const made = new std::shared_ptr<DeviceCarrier>;
  place.Set("carrier", CarrierHandle::New(env, made, [](Napi::Env, auto* owned) { delete owned; }));
  auto job = std::make_unique<Job>();
  // It waits for others, as a job among processes does.
  job->parallel = std::make_shared<Parallel>(Session::Groups{});
  Job* const raw = job.get();
  return Environment::of(env).start(
      std::move(job),
      [=] {
        *made = devices().join_collectives(device, id, rank, size, timeout,
                                           [raw] { return raw->stopped(); });
      },
      false, place, info[1].As<Napi::Function>());
}

/// closeNccl(communicator, carrier, done(error)): when the calls before have ended.
Napi::Value close_nccl(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Communicator> communicator = communicator_of(info[0]);
  const std::shared_ptr<DeviceCarrier> carrier = *info[1].As<CarrierHandle>().Data();
  const Callback done(info.Env(), info[2].As<Napi::Function>());
  const auto turn =
      std::make_shared<Turn>(std::vector<std::shared_ptr<Communicator>>{communicator});
  turn->line_up([carrier, done, turn] {
    carrier->close();
    turn->leave();
    done(nullptr, [](Napi::Env env) { return env.Undefined(); });
  });
  return info.Env().Undefined();
}

// --- Any transport

/// communicator(rank, size, timeout): of a transport of the caller's.
Napi::Value communicator(const Napi::CallbackInfo& info) {
  const int rank = info[0].As<Napi::Number>(), size = info[1].As<Napi::Number>();
  return communicator_object(info.Env(),
                             std::make_shared<Communicator>(rank, size, milliseconds(info[2])));
}

/// hardware(): what this process computes with, as a number that others have if they compute alike.
Napi::Value hardware(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), double(hardware_of(false) >> 11));
}

}  // namespace

void export_communicators(Napi::Object exports) {
  export_function<set_for_tests>(exports, "forTests");
  export_function<open_mpi>(exports, "openMpi");
  export_function<split>(exports, "split");
  export_function<close>(exports, "close");
  export_function<exchange>(exports, "exchange");
  export_function<open_nccl>(exports, "openNccl");
  export_function<nccl_id>(exports, "ncclId");
  export_function<join_nccl>(exports, "joinNccl");
  export_function<close_nccl>(exports, "closeNccl");
  export_function<finalize>(exports, "finalize");
  export_function<abort>(exports, "abort");
  export_function<communicator>(exports, "communicator");
  export_function<hardware>(exports, "hardware");
}

}  // namespace diralign
