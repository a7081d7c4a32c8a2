// Translation between JavaScript and the core, and nothing else: arguments were validated by
// ts/batch/, except for what only a pass over the labels can tell. See `Native` in
// ts/native/interface.ts for the shapes.
#include <napi.h>
#include <algorithm>
#include <utility>
#include "contract.h"
#include "requests.h"
#include "device.h"
#include "distributed.h"
#include "backends/backend.h"
#include "backends/cpu/pages.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/tuning.h"
#include "environment.h"
#include "backends/cpu/memory_loops.h"
#include "values.h"
#include "jobs/driver.h"

namespace diralign {

namespace {

/// Fills what every job has. A bad label comes back as an object for ts/ to describe; then nothing
/// has been written.
Napi::Value prepare(const Request& request, Job& job) {
  namespace key = batch_request;
  const Napi::Env env = request.Env();
  job.batch = read_batch(request);
  job.batch.shard = read_shard(request[key::parallel]);
  job.layer = read_layer(request, job.batch);
  job.threads = int(integer(request, key::threads));
  const int64_t sequences = job.batch.sequences;
  const Units units = job.loss ? read_units(request[key::groups], job.loss->objectives, sequences)
                               : single_units(sequences);
  job.batch.fields = read_fields(request[key::fields], units, job.batch.rows);
  const std::optional<BadLabel> bad = list_rows(job.batch, units, job.rows);
  if (!bad) {
    std::copy(job.rows.counts.begin(), job.rows.counts.end(),
              elements_of<int32_t>(request, key::counts, job.rows.counts.size()));
    return env.Undefined();
  }
  Napi::Object error = Napi::Object::New(env);
  error.Set("sft", bad->sft);
  error.Set("row", double(bad->row));
  error.Set("label", bad->label);
  return error;
}

/// Runs a job to its end, on any thread, where that is what its target does: all except logits in
/// device memory that is all here, which are only enqueued.
void run_to_end(Job& job, Target target, const Place& place, Pool& pool, double* memory_used) {
  auto run = [&] {
    if (target == Target::cpu) host_backend().run(job, 0, pool);
    else if (target == Target::staged) device_backend().run(job, place.device, pool);
    else if (job.layer) device_backend().run_layer(job, place, pool);
    else device_backend().run_logits(job, place, pool);
  };
  if (job.parallel) run_parallel(job, run);
  else run();
  if (memory_used) *memory_used = double(job.layer->memory_used);
}

/// What comes after the arguments of a request whose call returns before it is computed.
struct Later {
  Napi::Function done;
  Napi::Object pinned;  ///< the arguments as a list, which keeps them alive
};
std::optional<Later> later(const Request& request, uint32_t arguments) {
  if (request.Length() <= arguments) return std::nullopt;
  return Later{request[arguments].As<Napi::Function>(), request[arguments + 1].As<Napi::Object>()};
}

/// Computes at once, or, with a callback, off this thread: then the result is the function that
/// cancels.
/// @param arguments of the request, how many.
Napi::Value dispatch(const Request& request, uint32_t arguments, std::unique_ptr<Job> job) {
  Environment& environment = Environment::of(request.Env());
  const auto target = static_cast<Target>(integer(request, batch_request::target));
  Place place;
  if (target != Target::cpu)
    place = {int(integer(request, batch_request::device)),
             Stream(unsigned_integer(request[batch_request::stream]))};
  Job* const raw = job.get();
  double* memory_used =
      job->layer ? elements_of<double>(request, layer_request::memoryUsed, 1) : nullptr;
  // Last of what may be refused here: from then on the other processes count on this call.
  job->parallel = read_parallel(request[batch_request::parallel]);
  if (job->parallel) {
    job->parallel->counts =
        elements_of<int32_t>(request, batch_request::counts, job->rows.counts.size());
    job->parallel->on_device = target == Target::device;
  }
  const bool enqueued = target == Target::device && !job->layer && !job->parallel;
  const std::optional<Later> pending = later(request, arguments);
  if (!pending) {
    if (job->parallel) wait_for_turn(job->parallel->session);
    const auto [begin, end] = target == Target::device ? std::exchange(environment.time_next, {})
                                                       : decltype(environment.time_next){};
    const DeviceApi* const api = target == Target::device ? device_backend().device : nullptr;
    // What the host prepares is not the device's time. A layer's host works all along.
    if (enqueued) place.begin = begin;
    else if (begin) api->record(place.device, begin, place.stream);
    std::unique_ptr<Launch> launch;
    if (enqueued) launch = device_backend().launch(*job, place);
    else run_to_end(*job, target, place, environment.pool(), memory_used);
    if (end) api->record(place.device, end, place.stream);
    if (enqueued) {
      api->synchronize(place.device, place.stream);
      launch->finish();
    }
    if (has_more(*job)) deliver(*job, request[batch_request::parallel]);
    return request.Env().Undefined();
  }
  if (enqueued) {
    std::unique_ptr<Launch> launch = device_backend().launch(*job, place);
    return environment.start(std::move(job), std::move(launch), place, pending->pinned,
                             pending->done);
  }
  // Not with many sequences, or rows of hardly a logit: those take time of their own.
  const bool at_once = target == Target::cpu && !job->layer &&
                       job->batch.rows + job->batch.sequences <= cpu::rows_at_once &&
                       job->batch.rows * job->batch.vocab <= cpu::elements_at_once;
  return environment.start(
      std::move(job),
      [raw, target, place, memory_used, &pool = environment.pool()] {
        run_to_end(*raw, target, place, pool, memory_used);
      },
      at_once, pending->pinned, pending->done);
}

Napi::Value compute_loss(const Request& request) {
  namespace key = loss_request;
  auto job = std::make_unique<Job>();
  LossWanted& loss = job->loss.emplace();
  loss.objectives = read_objectives(request, key::first);
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  const size_t sequences = size_t(job->batch.sequences);
  const bool copies = later(request, key::end).has_value();
  loss.reference = given_numbers(request, key::reference, sequences, copies);
  loss.outputs = read_outputs(request, key::first, job->rows.units, loss.objectives.size());
  job->logps = elements_of<double>(request, key::logps, sequences);
  job->gradients = read_gradients(request, *job);
  loss.asked = read_measures(request);
  return dispatch(request, key::end, std::move(job));
}

/// The gradient of a loss that the caller has differentiated by the rows' log-probabilities, or by
/// those of sequences, and by entropies.
Napi::Value compute_backward(const Request& request) {
  namespace key = backward_request;
  auto job = std::make_unique<Job>();
  DerivativesGiven& given = job->given.emplace();
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  const size_t rows = size_t(job->batch.rows);
  given.logps = doubles(request, key::rows, rows);
  given.entropy = doubles(request, key::entropy, rows);
  given.known_logps = doubles(request, key::forwardLogps, rows);
  given.known_logsumexp = doubles(request, key::forwardLogsumexp, rows);
  given.known_entropy = doubles(request, key::forwardEntropy, rows);
  const Array<double> of_sequences = doubles(request, key::sequences, size_t(job->batch.sequences));
  if (!of_sequences.empty()) {
    given.logps.assign(rows, 0);
    for (const ScoredRow& row : job->rows.scored)
      given.logps[size_t(row.row)] = share_of(row.weight, of_sequences[size_t(row.sequence)]);
  }
  job->gradients = read_gradients(request, *job);
  return dispatch(request, key::end, std::move(job));
}

Napi::Value compute_sequence_logps(const Request& request) {
  namespace key = sequence_logps_request;
  auto job = std::make_unique<Job>();
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  job->logps = elements_of<double>(request, key::logps, size_t(job->batch.sequences));
  return dispatch(request, key::end, std::move(job));
}

Napi::Value compute_token_logps(const Request& request) {
  namespace key = token_logps_request;
  auto job = std::make_unique<Job>();
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  const size_t rows = size_t(job->batch.rows);
  job->tokens = TokensWanted{.logps = elements_of<double>(request, key::logps, rows),
                             .logsumexp = elements_of<double>(request, key::logsumexp, rows),
                             .entropy = elements_of<double>(request, key::entropy, rows),
                             .collision = elements_of<double>(request, key::collision, rows)};
  return dispatch(request, key::end, std::move(job));
}

/// The evaluation of units alone, from log-probabilities.
Napi::Value compute_from_logps(const Request& request) {
  namespace key = from_logps_request;
  auto job = std::make_unique<Job>();
  LossWanted& loss = job->loss.emplace();
  loss.objectives = read_objectives(request, key::first);
  job->batch.sequences = integer(request, key::sequences);
  job->batch.shard = read_shard(request[key::parallel]);
  const size_t sequences = size_t(job->batch.sequences);
  job->rows.units = read_units(request[key::groups], loss.objectives, job->batch.sequences);
  job->batch.fields = read_fields(request[key::fields], job->rows.units, 0);
  const std::optional<Later> pending = later(request, key::end);
  // Without other processes it is computed before this returns, whoever waits for it.
  const bool copies = pending && !request[key::parallel].IsUndefined();
  auto given = [&](const Property& at) { return given_numbers(request, at, sequences, copies); };
  job->given_logps = LogpsGiven{given(key::logps), given(key::counts)};
  loss.reference = given(key::reference);
  loss.outputs = read_outputs(request, key::first, job->rows.units, loss.objectives.size());
  job->gradients.logps = elements_of<double>(request, key::gradLogps, sequences);
  job->gradients.scale = request[key::gradientScale].As<Napi::Number>();
  job->parallel = read_parallel(request[key::parallel]);
  auto run = [raw = job.get()] {
    if (raw->parallel) run_parallel(*raw, [raw] { run_logps(*raw); });
    else run_logps(*raw);
  };
  if (pending)
    return Environment::of(request.Env())
        .start(std::move(job), run, true, pending->pinned, pending->done);
  if (job->parallel) wait_for_turn(job->parallel->session);
  run();
  if (has_more(*job)) deliver(*job, request[key::parallel]);
  return request.Env().Undefined();
}

/// firstOverlap(view, ...views): the index of the first of `views` that has memory in common with
/// `view`, or -1. By addresses: two buffers may be one piece of shared memory.
Napi::Value first_overlap(const Napi::CallbackInfo& info) {
  auto range = [](Napi::Value value) {
    const Untyped u = untyped(value);
    const auto begin = reinterpret_cast<uintptr_t>(u.data);
    return std::pair(begin, begin + u.bytes());
  };
  const auto [begin, end] = range(info[0]);
  for (size_t i = 1; i < info.Length(); i++) {
    const auto [other_begin, other_end] = range(info[i]);
    if (std::max(begin, other_begin) < std::min(end, other_end))
      return Napi::Number::New(info.Env(), double(i - 1));
  }
  return Napi::Number::New(info.Env(), -1);
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("isa", cpu::kernel_set().isa);
  Napi::Array isas = Napi::Array::New(info.Env());
  for (const char* isa : cpu::isa_names)
    if (cpu::find_kernel_set(isa)) isas.Set(isas.Length(), isa);
  result.Set("isas", isas);
  result.Set("threads", Environment::of(info.Env()).processors());
  return result;
}

/// memoryLoop(kind, source, target, threads): one pass of a plain loop, the yardstick of the
/// benchmarks.
Napi::Value memory_loop(const Napi::CallbackInfo& info) {
  const Untyped source = untyped(info[1]), target = untyped(info[2]);
  run_memory_loop(Environment::of(info.Env()).pool(),
                  static_cast<MemoryLoop>(info[0].As<Napi::Number>().Int32Value()),
                  static_cast<const float*>(source.data), static_cast<float*>(target.data),
                  int64_t(source.elements), info[3].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

/// timeNext(begin, end): see Environment::time_next.
Napi::Value time_next(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).time_next = {Event(unsigned_integer(info[0])),
                                           Event(unsigned_integer(info[1]))};
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Environment::create(env);
  export_function<compute_loss>(exports, "loss");
  export_function<compute_sequence_logps>(exports, "sequenceLogps");
  export_function<compute_token_logps>(exports, "tokenLogps");
  export_function<compute_backward>(exports, "logpsBackward");
  export_function<compute_from_logps>(exports, "fromLogps");
  export_function<first_overlap>(exports, "firstOverlap");
  export_function<cpu_info>(exports, "cpuInfo");
  export_function<memory_loop>(exports, "memoryLoop");
  export_function<time_next>(exports, "timeNext");
  exports.Set("revision", contract_hash());
  exports.Set("contract", contract_json());
  exports.Set("cuda", cuda_exports(env));
  exports.Set("distributed", distributed_exports(env));
  return exports;
}

}  // namespace
}  // namespace diralign

static Napi::Object diralign_init(Napi::Env env, Napi::Object exports) {
  return diralign::init(env, exports);
}
NODE_API_MODULE(diralign, diralign_init)
