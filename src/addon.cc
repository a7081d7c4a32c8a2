// Translation between JavaScript and the core, and nothing else: arguments were validated by ts/batch.ts, except for what only a
// pass over the labels can tell. See `Native` in ts/native.ts for the shapes.
#include <napi.h>
#include <algorithm>
#include <cfloat>
#include <cstring>
#include <utility>
#include "addon_cuda.h"
#include "cpu/compute.h"
#include "cpu/kernels.h"
#include "environment.h"
#include "memory_loops.h"
#include "node_values.h"
#include "objectives/catalogue.h"

namespace diralign {

using cpu::run;

/// Raised with every change of what ts/native.ts and this file tell each other: an addon of another build would be called wrongly.
constexpr int interface_revision = 2;

namespace {

/// A typed array of a known type, or null for undefined.
template <class T>
struct View {
  T* data = nullptr;
  size_t length = 0;
  explicit operator bool() const { return data != nullptr; }
};

template <class T>
View<T> view(const Napi::Object& request, const char* name) {
  const Untyped u = untyped(request.Get(name));
  return {static_cast<T*>(u.data), u.elements};
}

/// Memory of the host, as a typed array, or of a device, as a bigint; null for undefined.
void* memory(Napi::Value value) { return value.IsBigInt() ? reinterpret_cast<void*>(uintptr_t(unsigned_integer(value))) : untyped(value).data; }

int64_t integer(const Napi::Object& request, const char* name) { return request.Get(name).As<Napi::Number>().Int64Value(); }

std::vector<double> doubles(Napi::Value value) {
  const Untyped u = untyped(value);
  if (u.type == napi_float32_array) return {static_cast<const float*>(u.data), static_cast<const float*>(u.data) + u.elements};
  return {static_cast<const double*>(u.data), static_cast<const double*>(u.data) + u.elements};
}

Batch read_batch(const Napi::Object& request) {
  Batch b;
  b.logits = memory(request.Get("logits"));
  b.dtype = static_cast<Dtype>(integer(request, "dtype"));
  b.rows = integer(request, "rows");
  b.vocab = integer(request, "vocab");
  b.row_stride = integer(request, "rowStride");
  b.sequences = integer(request, "sequences");
  b.offsets = view<int32_t>(request, "offsets").data;
  b.labels = view<int32_t>(request, "labels").data;
  b.sft_labels = view<int32_t>(request, "sftLabels").data;
  b.ignore_index = int32_t(integer(request, "ignoreIndex"));
  return b;
}

Objective read_objective(const Napi::Object& request) {
  Objective objective;
  objective.method = int(integer(request, "method"));
  std::memcpy(&objective.settings, view<double>(request, "settings").data, sizeof objective.settings);
  return objective;
}

std::optional<OutputLayer> read_layer(Napi::Value value) {
  if (value.IsUndefined()) return std::nullopt;
  const Napi::Object request = value.As<Napi::Object>();
  OutputLayer layer;
  layer.hidden = memory(request.Get("hidden"));
  layer.weight = memory(request.Get("weight"));
  layer.bias = memory(request.Get("bias"));
  layer.hidden_size = integer(request, "hiddenSize");
  layer.memory = size_t(integer(request, "memory"));
  return layer;
}

/// Fresh memory of `bytes` is asked for in large pages.
LayerGradients::Buffer read_layer_gradient(Napi::Value value, size_t bytes) {
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  LayerGradients::Buffer gradient;
  gradient.data = memory(request.Get("data"));
  gradient.accumulate = request.Get("accumulate").As<Napi::Boolean>();
  gradient.zeroed = request.Get("zeroed").As<Napi::Boolean>();
  if (gradient.zeroed) cpu::advise_large_pages(gradient.data, bytes);
  return gradient;
}

LayerGradients read_layer_gradients(Napi::Value value, const LossJob& job) {
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  const size_t hidden_size = size_t(job.layer->hidden_size), vocab = size_t(job.batch.vocab);
  LayerGradients gradients;
  gradients.hidden = read_layer_gradient(request.Get("hidden"), size_t(job.batch.rows) * hidden_size * job.batch.element_bytes());
  gradients.weight = read_layer_gradient(request.Get("weight"), vocab * hidden_size * sizeof(float));
  gradients.bias = read_layer_gradient(request.Get("bias"), vocab * sizeof(float));
  return gradients;
}

/// Fills what every job has. A bad label comes back as an object for ts/ to describe; then nothing has been written.
Napi::Value prepare(const Napi::Object& request, Job& job, bool paired) {
  const Napi::Env env = request.Env();
  const Napi::Object batch = request.Get("batch").As<Napi::Object>();
  job.batch = read_batch(batch);
  job.layer = read_layer(request.Get("layer"));
  job.threads = int(integer(batch, "threads"));
  const std::optional<BadLabel> bad = list_rows(job.batch, paired ? job.batch.sequences / 2 : job.batch.sequences, job.rows);
  if (!bad) {
    std::copy(job.rows.counts.begin(), job.rows.counts.end(), view<int32_t>(batch, "counts").data);
    return env.Undefined();
  }
  Napi::Object error = Napi::Object::New(env);
  error.Set("sft", bad->sft);
  error.Set("row", double(bad->row));
  error.Set("label", bad->label);
  return error;
}

/// Who computes: `Target` in ts/native.ts.
enum class Target { cpu, staged, device };

/// Runs a job to its end, on any thread, where that is what its target does: all but logits in device memory, which are only enqueued.
template <class AnyJob>
void run_to_end(AnyJob& job, Target target, const gpu::Place& place, Pool& pool, double* memory_used) {
  if (target == Target::cpu) run(job, pool);
  else if (target == Target::staged) gpu::run_staged(job, place.device);
  else gpu::run_layer(job, place);
  if (memory_used) *memory_used = double(job.layer->memory_used);
}

/// Computes at once, or, with a callback, off this thread: then the result is the function that cancels.
template <class AnyJob>
Napi::Value dispatch(const Napi::CallbackInfo& info, std::unique_ptr<AnyJob> job) {
  Environment& environment = Environment::of(info.Env());
  const Napi::Object request = info[0].As<Napi::Object>(), batch = request.Get("batch").As<Napi::Object>();
  const auto target = static_cast<Target>(integer(batch, "target"));
  const gpu::Place place{int(integer(batch, "device")), gpu::Stream(unsigned_integer(batch.Get("stream")))};
  AnyJob* raw = job.get();
  const bool enqueued = target == Target::device && !job->layer;
  double* memory_used = job->layer ? view<double>(request.Get("layer").As<Napi::Object>(), "memoryUsed").data : nullptr;
  if (!info[1].IsFunction()) {
    const auto [begin, end] = target == Target::device ? std::exchange(environment.time_next, {}) : decltype(environment.time_next){};
    if (begin) gpu::record(place.device, begin, place.stream);
    std::unique_ptr<gpu::Launch> launch;
    if (enqueued) launch = gpu::launch(*job, place);
    else run_to_end(*job, target, place, environment.pool(), memory_used);
    if (end) gpu::record(place.device, end, place.stream);
    if (enqueued) {
      gpu::synchronize(place.device, place.stream);
      launch->finish();
    }
    return info.Env().Undefined();
  }
  const Napi::Function done = info[1].As<Napi::Function>();
  if (enqueued) {
    std::unique_ptr<gpu::Launch> launch = gpu::launch(*job, place);
    return environment.start(std::move(job), std::move(launch), place, request, done);
  }
  return environment.start(
      std::move(job),
      [raw, target, place, memory_used, &pool = environment.pool()] { run_to_end(*raw, target, place, pool, memory_used); }, request, done);
}

LossOutputs read_outputs(const Napi::Object& request) {
  return {view<double>(request, "losses").data, view<double>(request, "rewards").data, view<double>(request, "coefficients").data,
          view<double>(request, "metrics").data};
}

Napi::Value compute_loss(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<LossJob>();
  job->objective = read_objective(request);
  const Napi::Value bad = prepare(request, *job, !job->objective.likelihood_only());
  if (!bad.IsUndefined()) return bad;
  job->reference = doubles(request.Get("reference"));
  job->outputs = read_outputs(request);
  job->loss = job->outputs.metrics + metric_count;  // handed over in the slot behind the metrics
  job->logps = view<double>(request, "logps").data;

  job->gradient.mode = static_cast<GradientOutput::Mode>(integer(request, "gradientMode"));
  job->gradient.data = memory(request.Get("gradient"));
  job->gradient.elements = integer(request, "gradientElements");
  job->gradient.zeroed = request.Get("gradientIsFresh").As<Napi::Boolean>();
  job->gradient.row_scale = view<float>(request, "rowScale").data;
  if (job->gradient.zeroed) cpu::advise_large_pages(job->gradient.data, size_t(job->gradient.elements) * job->batch.element_bytes());
  job->layer_gradients = read_layer_gradients(request.Get("layerGradients"), *job);
  return dispatch(info, std::move(job));
}

Napi::Value compute_sequence_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<SequenceLogpsJob>();
  const Napi::Value bad = prepare(request, *job, false);
  if (!bad.IsUndefined()) return bad;
  job->logps = view<double>(request, "logps").data;
  return dispatch(info, std::move(job));
}

Napi::Value compute_token_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<TokenLogpsJob>();
  const Napi::Value bad = prepare(request, *job, false);
  if (!bad.IsUndefined()) return bad;
  job->logps = view<double>(request, "logps").data;
  job->logsumexp = view<double>(request, "logsumexp").data;
  job->entropy = view<double>(request, "entropy").data;
  return dispatch(info, std::move(job));
}

/// The pair stage alone, from log-probabilities.
Napi::Value compute_from_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  std::vector<double> logps = doubles(request.Get("logps"));
  const std::vector<double> reference = doubles(request.Get("reference"));
  const int32_t* counts = view<int32_t>(request, "counts").data;
  // As from logits: an empty sequence has log-probability 0.
  for (size_t s = 0; s < logps.size(); s++)
    if (counts[s] == 0) logps[s] = 0;
  const LossOutputs outputs = read_outputs(request);
  const int64_t sequences = int64_t(logps.size());
  BatchLoss loss(batch_terms(read_objective(request), sequences, counts, counts, reference.empty() ? nullptr : reference.data()), outputs);
  loss.evaluate(logps.data(), logps.data(), 0, loss.pairs());
  outputs.metrics[metric_count] = loss.finish(logps.data(), logps.data(), DBL_MAX);
  double* gradient = view<double>(request, "gradLogps").data;
  for (int64_t s = 0; s < sequences; s++) gradient[s] = outputs.coefficients[s] + (counts[s] > 0 ? loss.likelihood_coefficient(s) : 0);
  return info.Env().Undefined();
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("isa", cpu::kernel_set().isa);
  result.Set("threads", Pool::hardware_threads());
  return result;
}

/// memoryLoop(kind, source, target, threads): one pass of a plain loop, the yardstick of the benchmarks.
Napi::Value memory_loop(const Napi::CallbackInfo& info) {
  const Untyped source = untyped(info[1]), target = untyped(info[2]);
  run_memory_loop(Environment::of(info.Env()).pool(), static_cast<MemoryLoop>(info[0].As<Napi::Number>().Int32Value()),
                  static_cast<const float*>(source.data), static_cast<float*>(target.data), int64_t(source.elements), info[3].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

/// timeNext(begin, end): see Environment::time_next.
Napi::Value time_next(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).time_next = {gpu::Event(unsigned_integer(info[0])), gpu::Event(unsigned_integer(info[1]))};
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Environment::create(env);
  export_function<compute_loss>(exports, "loss");
  export_function<compute_sequence_logps>(exports, "sequenceLogps");
  export_function<compute_token_logps>(exports, "tokenLogps");
  export_function<compute_from_logps>(exports, "fromLogps");
  export_function<cpu_info>(exports, "cpuInfo");
  export_function<memory_loop>(exports, "memoryLoop");
  export_function<time_next>(exports, "timeNext");
  exports.Set("revision", interface_revision);
  exports.Set("catalogue", catalogue_json());
  exports.Set("cuda", cuda_exports(env));
  return exports;
}

}  // namespace
}  // namespace diralign

static Napi::Object diralign_init(Napi::Env env, Napi::Object exports) { return diralign::init(env, exports); }
NODE_API_MODULE(diralign, diralign_init)
