#include "layer_run.h"
#include <cstring>
#include "layer_phases.h"
#include "staging.h"

namespace diralign::cuda {

namespace {

/// Whether the job came to its end.
bool complete(Job& job, LayerPhases& run) {
  run.start();
  run_phases(job, run);
  return !job.cancelled;
}

void need_products() {
  if (!layer_problem().empty()) throw std::runtime_error(layer_problem());
}

}  // namespace

void run_layer(Job& job, const Place& place, Pool& pool) {
  need_products();
  const DeviceGuard guard(place.device);
  LayerPhases run(
      job, place,
      {job.layer->hidden, job.layer->weight, job.layer->bias, job.gradients.layer, false}, &pool);
  complete(job, run);
}

/// The scored rows, the weight and the bias go up, and the gradients come down; those that are
/// added to go up first. All of them are on the device at once.
void run_staged_layer(Job& job, int device) {
  need_products();
  const DeviceGuard guard(device);
  const OutputLayer& layer = *job.layer;
  const Batch& batch = job.batch;
  const LayerGradients& host = job.gradients.layer;
  const size_t rows = job.rows.scored.size(),
               row_bytes = size_t(layer.hidden_size) * batch.element_bytes(),
               weight_elements = size_t(batch.vocab) * size_t(layer.hidden_size);
  OwnStream stream;
  const Stream handle = reinterpret_cast<Stream>(stream.get());
  auto memory = [&](size_t bytes) { return Workspace(device, stream.get(), bytes); };
  auto memory_for = [&](const LayerGradients::Buffer& buffer, size_t bytes) {
    return memory(buffer.data ? bytes : 0);
  };
  const Workspace hidden = memory(rows * row_bytes),
                  weight = memory(weight_elements * batch.element_bytes()),
                  bias = memory(layer.bias ? size_t(batch.vocab) * batch.element_bytes() : 0),
                  hidden_gradient = memory_for(host.hidden, rows * row_bytes),
                  weight_gradient = memory_for(host.weight, weight_elements * sizeof(float)),
                  bias_gradient = memory_for(host.bias, size_t(batch.vocab) * sizeof(float));
  // A job that no row is scored of has no gradient of hidden states to bring back.
  const LayerGradients on_device{{hidden_gradient.data(), host.hidden.accumulate, false},
                                 {weight_gradient.data(), host.weight.accumulate, false},
                                 {bias_gradient.data(), host.bias.accumulate, false}};
  LayerPhases run(job, {device, handle},
                  {hidden.data(), weight.data(), bias.data(), on_device, true});

  StageRing ring;
  auto scored = [&](auto* data) {
    return [&, data](size_t i) {
      using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(data)>>,
                                       const char, char>;
      return static_cast<Bytes*>(data) + size_t(job.rows.scored[i].row) * row_bytes;
    };
  };
  if (job.cancelled) return;
  upload_rows(ring, stream.get(), hidden.data(), rows, row_bytes, job.cancelled,
              scored(layer.hidden));
  if (rows > 0) {
    copy_to_device(device, handle, weight.data(), layer.weight, weight.bytes());
    if (layer.bias) copy_to_device(device, handle, bias.data(), layer.bias, bias.bytes());
  }
  if (host.hidden.data && host.hidden.accumulate)
    upload_rows(ring, stream.get(), hidden_gradient.data(), rows, row_bytes, job.cancelled,
                scored(host.hidden.data));
  if (host.weight.data && host.weight.accumulate)
    copy_to_device(device, handle, weight_gradient.data(), host.weight.data,
                   weight_gradient.bytes());
  if (host.bias.data && host.bias.accumulate)
    copy_to_device(device, handle, bias_gradient.data(), host.bias.data, bias_gradient.bytes());
  if (job.cancelled || !complete(job, run)) return;

  if (host.hidden.data) {
    if (!host.hidden.accumulate && !host.hidden.zeroed)
      for (const int64_t row : job.rows.ignored)
        std::memset(static_cast<char*>(host.hidden.data) + size_t(row) * row_bytes, 0, row_bytes);
    download_rows(ring, stream.get(), hidden_gradient.data(), rows, row_bytes, job.cancelled,
                  scored(host.hidden.data));
  }
  if (host.weight.data)
    copy_to_host(device, handle, host.weight.data, weight_gradient.data(), weight_gradient.bytes());
  if (host.bias.data)
    copy_to_host(device, handle, host.bias.data, bias_gradient.data(), bias_gradient.bytes());
}

}  // namespace diralign::cuda
