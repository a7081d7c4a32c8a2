#include "requests.h"
#include <algorithm>
#include <cstring>
#include "contract.h"
#include "values.h"
#include "backends/cpu/pages.h"
#include "objectives/catalogue.h"

namespace diralign {

namespace {

/// rows * columns, which no array holds where it is beyond what size_t does.
size_t product(int64_t rows, int64_t columns) {
  size_t elements;
  if (__builtin_mul_overflow(size_t(rows), size_t(columns), &elements))
    throw Refused("shape: too many elements");
  return elements;
}

/// Host memory, as a typed array of at least `elements` of `dtype`, or device memory, as a bigint;
/// null for undefined.
void* memory(Napi::Value value, const char* name, Dtype dtype, size_t elements) {
  if (value.IsBigInt()) return reinterpret_cast<void*>(uintptr_t(unsigned_integer(value)));
  return typed_data(value, name, dtype == Dtype::float32 ? napi_float32_array : napi_uint16_array,
                    elements);
}

void* memory(const Request& request, const Property& at, Dtype dtype, size_t elements) {
  return memory(request[at], at.name, dtype, elements);
}

/// From the first row to the end of the last one's vocabulary.
size_t needed_elements(const Batch& b) {
  return b.rows == 0 ? 0 : product(b.rows - 1, b.row_stride) + size_t(b.vocab);
}

/// Fresh memory is asked for in large pages.
LayerGradients::Buffer read_layer_gradient(Napi::Value value, Dtype dtype, size_t elements) {
  namespace key = layer_gradient_request;
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  LayerGradients::Buffer gradient;
  gradient.data = memory(request.Get(key::data), key::data, dtype, elements);
  // Of a shard without words the gradient is wanted nonetheless: it is planned for as on the other
  // ranks.
  static char nothing;
  if (elements == 0) gradient.data = &nothing;
  gradient.accumulate = request.Get(key::accumulate).As<Napi::Boolean>();
  gradient.zeroed = request.Get(key::zeroed).As<Napi::Boolean>();
  if (gradient.zeroed) cpu::advise_large_pages(gradient.data, elements * dtype_bytes(dtype));
  return gradient;
}

LayerGradients read_layer_gradients(Napi::Value value, const Job& job) {
  namespace key = layer_request;
  if (value.IsUndefined()) return {};
  const Napi::Object request = value.As<Napi::Object>();
  // With the padding past a vocabulary, where there is some.
  const int64_t hidden_size = job.layer->hidden_size, vocab = job.batch.row_stride;
  LayerGradients gradients;
  gradients.hidden = read_layer_gradient(request.Get(key::hidden.name), job.batch.dtype,
                                         product(job.batch.rows, hidden_size));
  gradients.weight = read_layer_gradient(request.Get(key::weight.name), Dtype::float32,
                                         product(vocab, hidden_size));
  gradients.bias = read_layer_gradient(request.Get(key::bias.name), Dtype::float32, size_t(vocab));
  return gradients;
}

GradientOutput read_logits_gradient(const Request& request, const Batch& batch) {
  namespace key = gradient_request;
  GradientOutput gradient;
  gradient.mode = static_cast<GradientMode>(integer(request, key::gradientMode));
  gradient.elements = integer(request, key::gradientElements);
  gradient.data = memory(request, key::gradient, batch.dtype,
                         std::max(size_t(gradient.elements), needed_elements(batch)));
  gradient.zeroed = request[key::gradientIsFresh].As<Napi::Boolean>();
  gradient.row_scale = elements_of<float>(request, key::rowScale, size_t(batch.rows));
  if (gradient.zeroed)
    cpu::advise_large_pages(gradient.data, size_t(gradient.elements) * batch.element_bytes());
  return gradient;
}

}  // namespace

int64_t integer(Napi::Value value) { return value.As<Napi::Number>().Int64Value(); }

Array<double> doubles(Napi::Value value, const char* name, size_t elements) {
  if (value.IsUndefined()) return {};
  if (untyped(value).type == napi_float32_array) {
    const auto* data =
        static_cast<const float*>(typed_data(value, name, napi_float32_array, elements));
    return {data, data + elements};
  }
  const auto* data =
      static_cast<const double*>(typed_data(value, name, napi_float64_array, elements));
  return {data, data + elements};
}

GivenNumbers given_numbers(const Request& request, const Property& at, size_t elements,
                           bool copies) {
  const Napi::Value value = request[at];
  const Untyped view = untyped(value);
  if (copies || !view.is_array || view.type != napi_float64_array)
    return doubles(value, at.name, elements);
  return {elements_of<double>(request, at, elements), elements};
}

Fields read_fields(Napi::Value value, const Units& units, int64_t rows) {
  Fields fields;
  if (value.IsUndefined()) return fields;
  const Napi::Array list = value.As<Napi::Array>();
  const uint32_t length = list.Length();
  for (uint32_t i = 0; i < length; i += 2) {
    const FieldInfo& field = field_infos[integer(list.Get(i))];
    fields.*field.data = static_cast<const double*>(
        typed_data(list.Get(i + 1), field.name, napi_float64_array, field.length(units, rows)));
  }
  return fields;
}

Batch read_batch(const Request& request) {
  namespace key = batch_request;
  Batch b;
  b.dtype = static_cast<Dtype>(integer(request, key::dtype));
  b.rows = integer(request, key::rows);
  b.vocab = integer(request, key::vocab);
  b.row_stride = integer(request, key::rowStride);
  b.sequences = integer(request, key::sequences);
  const size_t rows = size_t(b.rows);
  b.logits = memory(request, key::logits, b.dtype, needed_elements(b));
  b.offsets = elements_of<int32_t>(request, key::offsets, size_t(b.sequences) + 1);
  b.labels = elements_of<int32_t>(request, key::labels, rows);
  b.sft_labels = elements_of<int32_t>(request, key::sftLabels, rows);
  auto number = [&](const Property& at) { return request[at].As<Napi::Number>().DoubleValue(); };
  b.transform = {number(key::logitScale), number(key::logitSoftcap), number(key::temperature)};
  b.ignore_index = int32_t(integer(request, key::ignoreIndex));
  return b;
}

Array<Objective> read_objectives(const Request& request, uint32_t first) {
  namespace key = objective_request;
  const size_t count = untyped(request[key::methods.after(first)]).elements;
  constexpr size_t settings = sizeof(Settings) / sizeof(double);
  const int32_t* const methods = elements_of<int32_t>(request, key::methods.after(first), count);
  const double* const shares = elements_of<double>(request, key::shares.after(first), count);
  const double* const numbers =
      elements_of<double>(request, key::settings.after(first), count * settings);
  Array<Objective> objectives;
  for (size_t i = 0; i < count; i++) {
    Settings own;
    std::memcpy(&own, numbers + i * settings, sizeof own);
    objectives.push_back(make_objective(methods[i], own, shares[i]));
  }
  return objectives;
}

Units read_units(Napi::Value groups, const Array<Objective>& objectives, int64_t sequences) {
  const size_t elements = untyped(groups).elements;
  const int64_t count = int64_t(elements) - 1;
  const auto* const offsets = static_cast<const int32_t*>(
      typed_data(groups, batch_request::groups.name, napi_int32_array, elements));
  // A likelihood in a mixture is of the units of the others.
  for (const Objective& o : objectives)
    if (o.settings.sft_weight == 0 || !facts_of(o.method).is_linear)
      return units_of(o.method, sequences, offsets, count);
  return single_units(sequences);
}

std::optional<OutputLayer> read_layer(const Request& request, const Batch& batch) {
  namespace key = layer_request;
  if (request[key::hidden].IsUndefined()) return std::nullopt;
  OutputLayer layer;
  layer.hidden_size = integer(request, key::hiddenSize);
  layer.hidden = memory(request, key::hidden, batch.dtype, product(batch.rows, layer.hidden_size));
  layer.weight = memory(request, key::weight, batch.dtype, product(batch.vocab, layer.hidden_size));
  layer.bias = memory(request, key::bias, batch.dtype, size_t(batch.vocab));
  layer.memory = size_t(integer(request, key::memory));
  return layer;
}

LossOutputs read_outputs(const Request& request, uint32_t first, const Units& units,
                         size_t objectives) {
  namespace key = objective_request;
  const size_t sequences = size_t(units.sequences());
  auto numbers = [&](const Property& at, size_t elements) {
    return elements_of<double>(request, at.after(first), elements);
  };
  return {
      .losses = numbers(key::losses, objectives * size_t(units.count)),
      .rewards = numbers(key::rewards, objectives * sequences),
      .coefficients = numbers(key::coefficients, sequences),
      .metrics = numbers(key::metrics, objectives * metric_count),
      .values = numbers(key::values, objectives),
  };
}

GradientsWanted read_gradients(const Request& request, const Job& job) {
  namespace key = gradient_request;
  return {.logits = read_logits_gradient(request, job.batch),
          .layer = read_layer_gradients(request[key::layerGradients], job),
          .scale = request[key::gradientScale].As<Napi::Number>()};
}

MeasuresAsked read_measures(const Request& request) {
  const int64_t bits = integer(request, loss_request::metricsAsked);
  auto asked = [bits](Metric metric) { return (bits >> (metric - mean_entropy) & 1) != 0; };
  return {.entropy = asked(mean_entropy),
          .logits = asked(logits_chosen) || asked(logits_rejected),
          .accuracy = asked(token_accuracy)};
}

}  // namespace diralign
