// Translation between JavaScript and the core, and nothing else: arguments were validated by
// ts/batch/batch.ts, except for what only a pass over the labels can tell. See `Native` in
// ts/native/interface.ts for the shapes.
#include <napi.h>
#include <algorithm>
#include <cfloat>
#include <cstring>
#include <utility>
#include "device.h"
#include "backends/cpu/compute.h"
#include "backends/cpu/kernels.h"
#include "environment.h"
#include "backends/cpu/memory_loops.h"
#include "values.h"
#include "objectives/catalogue.h"

namespace diralign {

using cpu::run;

/// Raised with every change of what ts/native/interface.ts and this file tell each other: an addon
/// of another build would be called wrongly.
constexpr int interface_revision = 5;

namespace {

int64_t integer(const Napi::Object& request, const char* name) {
  return request.Get(name).As<Napi::Number>().Int64Value();
}

/// rows * columns, which no array holds where it is beyond what size_t does.
size_t product(int64_t rows, int64_t columns) {
  size_t elements;
  if (__builtin_mul_overflow(size_t(rows), size_t(columns), &elements))
    throw Refused("shape: too many elements");
  return elements;
}

/// Host memory, as a typed array of at least `elements` of `dtype`, or device memory, as a bigint;
/// null for undefined.
void* memory(const Napi::Object& request, const char* name, Dtype dtype, size_t elements) {
  const Napi::Value value = request.Get(name);
  if (value.IsBigInt()) return reinterpret_cast<void*>(uintptr_t(unsigned_integer(value)));
  return typed_data(value, name, dtype == Dtype::float32 ? napi_float32_array : napi_uint16_array,
                    elements);
}

/// A copy of so many log-probabilities, of either floating-point type; empty for undefined.
Array<double> doubles(const Napi::Object& request, const char* name, size_t elements) {
  const Napi::Value value = request.Get(name);
  if (value.IsUndefined()) return {};
  if (untyped(value).type == napi_float32_array) {
    const float* data = elements_of<float>(request, name, elements);
    return {data, data + elements};
  }
  const double* data = elements_of<double>(request, name, elements);
  return {data, data + elements};
}

/// From the first row to the end of the last one's vocabulary.
size_t needed_elements(const Batch& b) {
  return b.rows == 0 ? 0 : product(b.rows - 1, b.row_stride) + size_t(b.vocab);
}

Batch read_batch(const Napi::Object& request) {
  Batch b;
  b.dtype = static_cast<Dtype>(integer(request, "dtype"));
  b.rows = integer(request, "rows");
  b.vocab = integer(request, "vocab");
  b.row_stride = integer(request, "rowStride");
  b.sequences = integer(request, "sequences");
  const size_t rows = size_t(b.rows);
  b.logits = memory(request, "logits", b.dtype, needed_elements(b));
  b.offsets = elements_of<int32_t>(request, "offsets", size_t(b.sequences) + 1);
  b.labels = elements_of<int32_t>(request, "labels", rows);
  b.sft_labels = elements_of<int32_t>(request, "sftLabels", rows);
  b.ignore_index = int32_t(integer(request, "ignoreIndex"));
  return b;
}

Objective read_objective(const Napi::Object& request) {
  Objective objective;
  objective.method = int(integer(request, "method"));
  constexpr size_t settings = sizeof objective.settings / sizeof(double);
  std::memcpy(&objective.settings, elements_of<double>(request, "settings", settings),
              sizeof objective.settings);
  return objective;
}

std::optional<OutputLayer> read_layer(Napi::Value value, const Batch& batch) {
  if (value.IsUndefined()) return std::nullopt;
  const Napi::Object request = value.As<Napi::Object>();
  OutputLayer layer;
  layer.hidden_size = integer(request, "hiddenSize");
  layer.hidden = memory(request, "hidden", batch.dtype, product(batch.rows, layer.hidden_size));
  layer.weight = memory(request, "weight", batch.dtype, product(batch.vocab, layer.hidden_size));
  layer.bias = memory(request, "bias", batch.dtype, size_t(batch.vocab));
  layer.memory = size_t(integer(request, "memory"));
  return layer;
}

/// Fresh memory is asked for in large pages.
LayerGradients::Buffer read_layer_gradient(Napi::Value value, Dtype dtype, size_t elements) {
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  LayerGradients::Buffer gradient;
  gradient.data = memory(request, "data", dtype, elements);
  gradient.accumulate = request.Get("accumulate").As<Napi::Boolean>();
  gradient.zeroed = request.Get("zeroed").As<Napi::Boolean>();
  if (gradient.zeroed) cpu::advise_large_pages(gradient.data, elements * dtype_bytes(dtype));
  return gradient;
}

LayerGradients read_layer_gradients(Napi::Value value, const LossJob& job) {
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  const int64_t hidden_size = job.layer->hidden_size, vocab = job.batch.vocab;
  LayerGradients gradients;
  gradients.hidden = read_layer_gradient(request.Get("hidden"), job.batch.dtype,
                                         product(job.batch.rows, hidden_size));
  gradients.weight =
      read_layer_gradient(request.Get("weight"), Dtype::float32, product(vocab, hidden_size));
  gradients.bias = read_layer_gradient(request.Get("bias"), Dtype::float32, size_t(vocab));
  return gradients;
}

/// Fills what every job has. A bad label comes back as an object for ts/ to describe; then nothing
/// has been written.
Napi::Value prepare(const Napi::Object& request, Job& job, bool paired) {
  const Napi::Env env = request.Env();
  const Napi::Object batch = request.Get("batch").As<Napi::Object>();
  job.batch = read_batch(batch);
  job.layer = read_layer(request.Get("layer"), job.batch);
  job.threads = int(integer(batch, "threads"));
  const std::optional<BadLabel> bad =
      list_rows(job.batch, paired ? job.batch.sequences / 2 : job.batch.sequences, job.rows);
  if (!bad) {
    std::copy(job.rows.counts.begin(), job.rows.counts.end(),
              elements_of<int32_t>(batch, "counts", job.rows.counts.size()));
    return env.Undefined();
  }
  Napi::Object error = Napi::Object::New(env);
  error.Set("sft", bad->sft);
  error.Set("row", double(bad->row));
  error.Set("label", bad->label);
  return error;
}

/// Who computes: `Target` in ts/native/interface.ts.
enum class Target { cpu, staged, device };

/// Runs a job to its end, on any thread, where that is what its target does: all but logits in
/// device memory, which are only enqueued.
template <class AnyJob>
void run_to_end(AnyJob& job, Target target, const cuda::Place& place, Pool& pool,
                double* memory_used) {
  if (target == Target::cpu) run(job, pool);
  else if (target == Target::staged) cuda::run_staged(job, place.device);
  else cuda::run_layer(job, place);
  if (memory_used) *memory_used = double(job.layer->memory_used);
}

/// Computes at once, or, with a callback, off this thread: then the result is the function that
/// cancels.
template <class AnyJob>
Napi::Value dispatch(const Napi::CallbackInfo& info, std::unique_ptr<AnyJob> job) {
  Environment& environment = Environment::of(info.Env());
  const Napi::Object request = info[0].As<Napi::Object>(),
                     batch = request.Get("batch").As<Napi::Object>();
  const auto target = static_cast<Target>(integer(batch, "target"));
  cuda::Place place{int(integer(batch, "device")),
                    cuda::Stream(unsigned_integer(batch.Get("stream")))};
  AnyJob* raw = job.get();
  const bool enqueued = target == Target::device && !job->layer;
  double* memory_used =
      job->layer ? elements_of<double>(request.Get("layer").As<Napi::Object>(), "memoryUsed", 1)
                 : nullptr;
  if (!info[1].IsFunction()) {
    const auto [begin, end] = target == Target::device ? std::exchange(environment.time_next, {})
                                                       : decltype(environment.time_next){};
    // What the host prepares is not the device's time. A layer's host works all along.
    if (enqueued) place.begin = begin;
    else if (begin) cuda::record(place.device, begin, place.stream);
    std::unique_ptr<cuda::Launch> launch;
    if (enqueued) launch = cuda::launch(*job, place);
    else run_to_end(*job, target, place, environment.pool(), memory_used);
    if (end) cuda::record(place.device, end, place.stream);
    if (enqueued) {
      cuda::synchronize(place.device, place.stream);
      launch->finish();
    }
    return info.Env().Undefined();
  }
  const Napi::Function done = info[1].As<Napi::Function>();
  if (enqueued) {
    std::unique_ptr<cuda::Launch> launch = cuda::launch(*job, place);
    return environment.start(std::move(job), std::move(launch), place, request, done);
  }
  return environment.start(
      std::move(job),
      [raw, target, place, memory_used, &pool = environment.pool()] {
        run_to_end(*raw, target, place, pool, memory_used);
      },
      request, done);
}

LossOutputs read_outputs(const Napi::Object& request, size_t sequences, bool paired) {
  return {elements_of<double>(request, "losses", paired ? sequences / 2 : sequences),
          elements_of<double>(request, "rewards", sequences),
          elements_of<double>(request, "coefficients", sequences),
          elements_of<double>(request, "metrics", metric_count + 1)};
}

Napi::Value compute_loss(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<LossJob>();
  job->objective = read_objective(request);
  const bool paired = !job->objective.likelihood_only();
  const Napi::Value bad = prepare(request, *job, paired);
  if (!bad.IsUndefined()) return bad;
  const Batch& batch = job->batch;
  const size_t sequences = size_t(batch.sequences);
  job->reference = doubles(request, "reference", sequences);
  job->outputs = read_outputs(request, sequences, paired);
  job->loss = job->outputs.metrics + metric_count;  // handed over in the slot behind the metrics
  job->logps = elements_of<double>(request, "logps", sequences);

  job->gradient.mode = static_cast<GradientOutput::Mode>(integer(request, "gradientMode"));
  job->gradient.elements = integer(request, "gradientElements");
  job->gradient.data = memory(request, "gradient", batch.dtype,
                              std::max(size_t(job->gradient.elements), needed_elements(batch)));
  job->gradient.zeroed = request.Get("gradientIsFresh").As<Napi::Boolean>();
  job->gradient.row_scale = elements_of<float>(request, "rowScale", size_t(batch.rows));
  if (job->gradient.zeroed)
    cpu::advise_large_pages(job->gradient.data,
                            size_t(job->gradient.elements) * batch.element_bytes());
  job->layer_gradients = read_layer_gradients(request.Get("layerGradients"), *job);
  const int64_t asked = integer(request, "metricsAsked");
  job->asked = {(asked & 1) != 0, (asked & 12) != 0, (asked & 2) != 0};
  job->gradient_scale = request.Get("gradientScale").As<Napi::Number>();
  return dispatch(info, std::move(job));
}

Napi::Value compute_sequence_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<SequenceLogpsJob>();
  const Napi::Value bad = prepare(request, *job, false);
  if (!bad.IsUndefined()) return bad;
  job->logps = elements_of<double>(request, "logps", size_t(job->batch.sequences));
  return dispatch(info, std::move(job));
}

Napi::Value compute_token_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  auto job = std::make_unique<TokenLogpsJob>();
  const Napi::Value bad = prepare(request, *job, false);
  if (!bad.IsUndefined()) return bad;
  const size_t rows = size_t(job->batch.rows);
  job->logps = elements_of<double>(request, "logps", rows);
  job->logsumexp = elements_of<double>(request, "logsumexp", rows);
  job->entropy = elements_of<double>(request, "entropy", rows);
  return dispatch(info, std::move(job));
}

/// The pair stage alone, from log-probabilities.
Napi::Value compute_from_logps(const Napi::CallbackInfo& info) {
  const Napi::Object request = info[0].As<Napi::Object>();
  const Objective objective = read_objective(request);
  const size_t sequences = size_t(integer(request, "sequences"));
  const Array<double> logps = doubles(request, "logps", sequences),
                      reference = doubles(request, "reference", sequences);
  const int32_t* counts = elements_of<int32_t>(request, "counts", sequences);
  const LossOutputs outputs = read_outputs(request, sequences, !objective.likelihood_only());
  double* gradient = elements_of<double>(request, "gradLogps", sequences);
  BatchLoss loss(batch_terms(objective, int64_t(sequences), counts, counts,
                             reference.empty() ? nullptr : reference.data()),
                 outputs);
  loss.evaluate(logps.data(), logps.data(), 0, loss.pairs());
  const double scale = request.Get("gradientScale").As<Napi::Number>();
  outputs.metrics[metric_count] =
      loss.finish(logps.data(), logps.data(), largest_coefficient(DBL_MAX, scale));
  for (int64_t s = 0; s < int64_t(sequences); s++) {
    const double coefficient =
        outputs.coefficients[s] + (counts[s] > 0 ? loss.likelihood_coefficient(s) : 0);
    gradient[s] = gradient_coefficient(coefficient, scale);
  }
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
  Environment::of(info.Env()).time_next = {cuda::Event(unsigned_integer(info[0])),
                                           cuda::Event(unsigned_integer(info[1]))};
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Environment::create(env);
  export_function<compute_loss>(exports, "loss");
  export_function<compute_sequence_logps>(exports, "sequenceLogps");
  export_function<compute_token_logps>(exports, "tokenLogps");
  export_function<compute_from_logps>(exports, "fromLogps");
  export_function<first_overlap>(exports, "firstOverlap");
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

static Napi::Object diralign_init(Napi::Env env, Napi::Object exports) {
  return diralign::init(env, exports);
}
NODE_API_MODULE(diralign, diralign_init)
