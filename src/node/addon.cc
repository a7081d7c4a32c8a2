// Translation between JavaScript and the core, and nothing else: arguments were validated by
// ts/batch/, except for what only a pass over the labels can tell. See `Native` in
// ts/native/interface.ts for the shapes.
#include <napi.h>
#include <algorithm>
#include <cstring>
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
Napi::Value prepare(const Napi::Object& request, Job& job) {
  const Napi::Env env = request.Env();
  const Napi::Object batch = request.Get(call_request::batch).As<Napi::Object>();
  job.batch = read_batch(batch);
  job.batch.shard = read_shard(batch.Get(batch_request::parallel));
  job.layer = read_layer(request.Get(call_request::layer), job.batch);
  job.threads = int(integer(batch, batch_request::threads));
  const int64_t sequences = job.batch.sequences;
  const Units units =
      job.loss ? read_units(batch.Get(batch_request::groups), job.loss->objectives, sequences)
               : single_units(sequences);
  job.batch.fields = read_fields(batch.Get(batch_request::fields), units, job.batch.rows);
  const std::optional<BadLabel> bad = list_rows(job.batch, units, job.rows);
  if (!bad) {
    std::copy(job.rows.counts.begin(), job.rows.counts.end(),
              elements_of<int32_t>(batch, batch_request::counts, job.rows.counts.size()));
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

/// Computes at once, or, with a callback, off this thread: then the result is the function that
/// cancels.
Napi::Value dispatch(const Napi::CallbackInfo& info, std::unique_ptr<Job> job) {
  Environment& environment = Environment::of(info.Env());
  const Napi::Object request = info[0].As<Napi::Object>(),
                     batch = request.Get(call_request::batch).As<Napi::Object>();
  const auto target = static_cast<Target>(integer(batch, batch_request::target));
  Place place;
  if (target != Target::cpu)
    place = {int(integer(batch, batch_request::device)),
             Stream(unsigned_integer(batch.Get(batch_request::stream)))};
  Job* const raw = job.get();
  double* memory_used =
      job->layer ? elements_of<double>(request.Get(call_request::layer).As<Napi::Object>(),
                                       layer_request::memoryUsed, 1)
                 : nullptr;
  // Last of what may be refused here: from then on the other processes count on this call.
  job->parallel = read_parallel(parallel_of(request));
  if (job->parallel) {
    job->parallel->counts =
        elements_of<int32_t>(batch, batch_request::counts, job->rows.counts.size());
    job->parallel->on_device = target == Target::device;
  }
  const bool enqueued = target == Target::device && !job->layer && !job->parallel;
  if (!info[1].IsFunction()) {
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
    deliver(*job, request);
    return info.Env().Undefined();
  }
  const Napi::Function done = info[1].As<Napi::Function>();
  if (enqueued) {
    std::unique_ptr<Launch> launch = device_backend().launch(*job, place);
    return environment.start(std::move(job), std::move(launch), place, request, done);
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
      at_once, request, done);
}

Napi::Value compute_loss(const Napi::CallbackInfo& info) {
  namespace key = loss_request;
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<Job>();
  LossWanted& loss = job->loss.emplace();
  loss.objectives = read_objectives(request);
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  const size_t sequences = size_t(job->batch.sequences);
  loss.reference = doubles(request, key::reference, sequences);
  loss.outputs = read_outputs(request, job->rows.units, loss.objectives.size());
  job->logps = elements_of<double>(request, key::logps, sequences);
  job->gradients = read_gradients(request.Get(key::gradients), *job);
  loss.asked = read_measures(request);
  return dispatch(info, std::move(job));
}

/// The gradient of a loss that the caller has differentiated by the rows' log-probabilities, or by
/// those of sequences, and by entropies.
Napi::Value compute_backward(const Napi::CallbackInfo& info) {
  namespace key = backward_request;
  const Napi::Object request = info[0].As<Napi::Object>();
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
  job->gradients = read_gradients(request.Get(key::gradients), *job);
  return dispatch(info, std::move(job));
}

Napi::Value compute_sequence_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<Job>();
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  job->logps = elements_of<double>(request, logps_request::logps, size_t(job->batch.sequences));
  return dispatch(info, std::move(job));
}

Napi::Value compute_token_logps(const Napi::CallbackInfo& info) {
  namespace key = logps_request;
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<Job>();
  const Napi::Value bad = prepare(request, *job);
  if (!bad.IsUndefined()) return bad;
  const size_t rows = size_t(job->batch.rows);
  job->tokens = TokensWanted{.logps = elements_of<double>(request, key::logps, rows),
                             .logsumexp = elements_of<double>(request, key::logsumexp, rows),
                             .entropy = elements_of<double>(request, key::entropy, rows),
                             .collision = elements_of<double>(request, key::collision, rows)};
  return dispatch(info, std::move(job));
}

/// The evaluation of units alone, from log-probabilities.
Napi::Value compute_from_logps(const Napi::CallbackInfo& info) {
  namespace key = from_logps_request;
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<Job>();
  LossWanted& loss = job->loss.emplace();
  loss.objectives = read_objectives(request);
  job->batch.sequences = integer(request, key::sequences);
  job->batch.shard = read_shard(request.Get(key::parallel));
  const size_t sequences = size_t(job->batch.sequences);
  const Units units = read_units(request.Get(key::groups), loss.objectives, job->batch.sequences);
  job->batch.fields = read_fields(request.Get(key::fields), units, 0);
  job->rows.units = units;
  job->rows.lengths = job->rows.sft_lengths = doubles(request, key::counts, sequences);
  job->given_logps = doubles(request, key::logps, sequences);
  loss.reference = doubles(request, key::reference, sequences);
  loss.outputs = read_outputs(request, units, loss.objectives.size());
  job->gradients.logps = elements_of<double>(request, key::gradLogps, sequences);
  job->gradients.scale = request.Get(key::gradientScale).As<Napi::Number>();
  job->parallel = read_parallel(request.Get(key::parallel));
  auto run = [raw = job.get()] {
    if (raw->parallel) run_parallel(*raw, [raw] { run_logps(*raw); });
    else run_logps(*raw);
  };
  if (info[1].IsFunction())
    return Environment::of(info.Env())
        .start(std::move(job), run, true, request, info[1].As<Napi::Function>());
  if (job->parallel) wait_for_turn(job->parallel->session);
  run();
  deliver(*job, request);
  return info.Env().Undefined();
}

/// firstOverlap(view, views): the index of the first of `views` that has memory in common with
/// `view`, or -1. By addresses: two buffers may be one piece of shared memory.
Napi::Value first_overlap(const Napi::CallbackInfo& info) {
  auto range = [](Napi::Value value) {
    const Untyped u = untyped(value);
    const auto begin = reinterpret_cast<uintptr_t>(u.data);
    return std::pair(begin, begin + u.bytes());
  };
  const auto [begin, end] = range(info[0]);
  const Napi::Array others = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < others.Length(); i++) {
    const auto [other_begin, other_end] = range(others[i]);
    if (std::max(begin, other_begin) < std::min(end, other_end))
      return Napi::Number::New(info.Env(), i);
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
