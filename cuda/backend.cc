#include "backend.h"

namespace diralign::cuda {

namespace {

constexpr DeviceApi api{.status = status,
                        .properties = properties,
                        .free_memory = free_memory,
                        .kernel_residency = kernel_residency,
                        .cluster_residency = cluster_residency,
                        .layer_algorithms = layer_algorithms,
                        .layer_problem = layer_problem,
                        .allocate = allocate,
                        .release = release,
                        .inspect = inspect,
                        .pin = pin,
                        .unpin = unpin,
                        .copy_to_device = copy_to_device,
                        .copy_to_host = copy_to_host,
                        .copy_on_device = copy_on_device,
                        .fill = fill,
                        .copy_kernel = copy_kernel,
                        .create_stream = create_stream,
                        .destroy_stream = destroy_stream,
                        .synchronize = synchronize,
                        .create_event = create_event,
                        .destroy_event = destroy_event,
                        .record = record,
                        .wait = wait,
                        .ended = ended,
                        .synchronize_event = synchronize_event,
                        .milliseconds = milliseconds,
                        .notify = notify,
                        .collectives = collectives,
                        .collective_id = collective_id,
                        .join_collectives = join_collectives};

void run(Job& job, int device, Pool&) { run_staged(job, device); }

}  // namespace

extern const Backend backend;
const Backend backend{
    .run = run, .device = &api, .launch = launch, .run_logits = run_logits, .run_layer = run_layer};

}  // namespace diralign::cuda
