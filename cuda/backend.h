// The functions that the backend's tables name (backend.cc): see Backend and DeviceApi.
#pragma once
#include "backends/backend.h"

namespace diralign::cuda {

DeviceStatus status();
DeviceProperties properties(int index);
size_t free_memory(int device);
std::vector<KernelResidency> kernel_residency(int device);
std::vector<ClusterResidency> cluster_residency(int device);
LayerAlgorithms layer_algorithms(int device, Dtype dtype, int64_t vocab, int64_t hidden);
const std::string& layer_problem();

void* allocate(int device, size_t bytes);
void release(int device, void* pointer);
PointerInfo inspect(const void* pointer, size_t bytes = 1);
void pin(void* data, size_t bytes);
void unpin(void* data);

void copy_to_device(int device, Stream stream, void* to, const void* from, size_t bytes);
void copy_to_host(int device, Stream stream, void* to, const void* from, size_t bytes);
void copy_on_device(int device, Stream stream, void* to, const void* from, size_t bytes);
void fill(int device, Stream stream, void* to, int byte, size_t bytes);
void copy_kernel(int device, Stream stream, void* to, const void* from, size_t bytes);

Stream create_stream(int device);
void destroy_stream(int device, Stream stream);
void synchronize(int device, Stream stream);
Event create_event(int device, bool timing);
void destroy_event(int device, Event event);
void record(int device, Event event, Stream stream);
void wait(int device, Stream stream, Event event);
bool ended(int device, Event event);
void synchronize_event(int device, Event event);
double milliseconds(int device, Event from, Event to);
void notify(int device, Stream stream, std::function<void(int)> done);

CollectiveLibrary collectives(const std::string& path);
CollectiveId collective_id();
std::shared_ptr<DeviceCarrier> join_collectives(int device, const CollectiveId& id, int rank,
                                                int size, std::chrono::milliseconds timeout,
                                                const std::function<bool()>& given_up);

std::unique_ptr<Launch> launch(Job& job, const Place& place);
void run_logits(Job& job, const Place& place, Pool& pool);
void run_layer(Job& job, const Place& place, Pool& pool);
/// Jobs on host arrays, those with an output layer included: scored rows travel in chunks of whole
/// units through pinned stages, copies and kernels overlapping.
void run_staged(Job& job, int device);

}  // namespace diralign::cuda
