#include "distributed.h"
#include <algorithm>
#include <cstring>
#include <future>
#include <utility>
#include "communicators.h"
#include "contract.h"
#include "environment.h"
#include "requests.h"
#include "script_carrier.h"
#include "values.h"

namespace diralign {

namespace {

Session::Groups read_groups(Napi::Object parallel) {
  const Napi::Array given = parallel.Get(parallel_request::groups).As<Napi::Array>();
  Session::Groups groups;
  for (uint32_t axis = 0; axis < axis_count; axis++) {
    const Napi::Value value = given[axis];
    if (value.IsUndefined()) continue;
    const Napi::Object group = value.As<Napi::Object>();
    Session::Group& own = groups[axis];
    own.communicator = communicator_of(group.Get("handle"));
    const Napi::Value carry = group.Get("carry"), device = group.Get("device");
    if (device.IsExternal()) own.device = *device.As<CarrierHandle>().Data();
    if (carry.IsFunction())
      own.carrier = std::make_shared<ScriptCarrier>(Environment::of(parallel.Env()).mailbox(),
                                                    carry.As<Napi::Function>());
    else own.carrier = std::static_pointer_cast<MpiCommunicator>(own.communicator);
  }
  return groups;
}

/// From then on the other processes count on the call.
std::shared_ptr<Parallel> begin_parallel(Napi::Object request) {
  auto parallel = std::make_shared<Parallel>(read_groups(request));
  request.Set(parallel_request::begun, true);
  return parallel;
}

/// refuse(parallel, failure, done?): takes part in the place of a call that was refused.
Napi::Value refuse(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  const std::string failure = info[1].As<Napi::String>();
  const auto parallel = begin_parallel(request);
  if (!info[2].IsFunction()) {
    wait_for_turn(parallel->session);
    refuse_parallel(parallel->session, failure);
    return info.Env().Undefined();
  }
  auto job = std::make_unique<Job>();
  job->parallel = parallel;
  return Environment::of(info.Env())
      .start(
          std::move(job), [parallel, failure] { refuse_parallel(parallel->session, failure); },
          false, request, info[2].As<Napi::Function>());
}

/// gather({ parallel, about, mine, all }, done): see gather_numbers().
Napi::Value gather(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  const std::string about = request.Get("about").As<Napi::String>();
  const Array<double> mine =
      doubles(request.Get("mine"), "mine", untyped(request.Get("mine")).elements);
  auto job = std::make_unique<Job>();
  const auto parallel = begin_parallel(request.Get("parallel").As<Napi::Object>());
  const Session& session = parallel->session;
  const size_t ranks = size_t(session.size(Axis::sequence)) * size_t(session.size(Axis::data));
  double* const all = static_cast<double*>(
      typed_data(request.Get("all"), "all", napi_float64_array, mine.size() * ranks));
  job->parallel = parallel;
  return Environment::of(info.Env())
      .start(
          std::move(job),
          [=] {
            run_in_turn(parallel->session,
                        [&] { gather_numbers(parallel->session, about, mine, all); });
          },
          false, request, info[1].As<Napi::Function>());
}

}  // namespace

std::optional<Shard> read_shard(Napi::Value parallel) {
  namespace key = parallel_request;
  if (parallel.IsUndefined()) return std::nullopt;
  const Napi::Object request = parallel.As<Napi::Object>();
  return Shard{integer(request.Get(key::first)), integer(request.Get(key::words))};
}

std::shared_ptr<Parallel> read_parallel(Napi::Value value) {
  namespace key = parallel_request;
  if (value.IsUndefined()) return nullptr;
  const Napi::Object request = value.As<Napi::Object>();
  const Napi::Value ratios = request.Get(key::logRatios);
  const Array<double> log_ratios = doubles(ratios, key::logRatios, untyped(ratios).elements);
  auto parallel = begin_parallel(request);
  parallel->column_grid = integer(request.Get(key::columnGrid));
  parallel->sums_hidden = request.Get(key::sumsHidden).As<Napi::Boolean>();
  parallel->native_wire = request.Get(key::nativeWire).As<Napi::Boolean>();
  parallel->log_ratios = log_ratios;
  return parallel;
}

Property parallel_of(const Job& job) {
  // Log-probabilities that are given have no rows, and no batch.
  return job.given_logps ? from_logps_request::parallel : batch_request::parallel;
}

bool has_more(const Job& job) { return job.parallel && !job.parallel->sorted_losses.empty(); }

void deliver(const Job& job, Napi::Value parallel) {
  const Array<double>& losses = job.parallel->sorted_losses;
  Napi::Float64Array all = Napi::Float64Array::New(parallel.Env(), losses.size());
  std::memcpy(all.Data(), losses.data(), losses.size() * sizeof(double));
  parallel.As<Napi::Object>().Set(parallel_request::losses, all);
}

void wait_for_turn(Session& session) {
  std::promise<void> mine;
  session.turn->line_up([&mine] { mine.set_value(); });
  mine.get_future().wait();
}

Napi::Object distributed_exports(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  export_communicators(exports);
  export_function<refuse>(exports, "refuse");
  export_function<gather>(exports, "gather");
  return exports;
}

}  // namespace diralign
