// A build without CUDA: it says so, and the addon asks for nothing else.
#include "device.h"

namespace diralign::cuda {

namespace {
[[noreturn]] void absent() { throw std::logic_error("this build contains no CUDA kernels"); }
}  // namespace

Status status() { return {}; }
Device device(int) { absent(); }
size_t free_memory(int) { absent(); }
std::vector<KernelResidency> kernel_residency(int) { absent(); }
LayerAlgorithms layer_algorithms(int, Dtype, int64_t, int64_t) { absent(); }
void* allocate(int, size_t) { absent(); }
void release(int, void*) { absent(); }
PointerInfo inspect(const void*, size_t) { absent(); }
void pin(void*, size_t) { absent(); }
void unpin(void*) { absent(); }
void copy_to_device(int, Stream, void*, const void*, size_t) { absent(); }
void copy_to_host(int, Stream, void*, const void*, size_t) { absent(); }
void copy_on_device(int, Stream, void*, const void*, size_t) { absent(); }
void fill(int, Stream, void*, int, size_t) { absent(); }
Stream create_stream(int) { absent(); }
void destroy_stream(int, Stream) { absent(); }
void synchronize(int, Stream) { absent(); }
Event create_event(int, bool) { absent(); }
void destroy_event(int, Event) { absent(); }
void record(int, Event, Stream) { absent(); }
void wait(int, Stream, Event) { absent(); }
bool ended(int, Event) { absent(); }
void synchronize_event(int, Event) { absent(); }
double milliseconds(int, Event, Event) { absent(); }
void notify(int, Stream, std::function<void(int)>) { absent(); }
std::unique_ptr<Launch> launch(LossJob&, const Place&) { absent(); }
std::unique_ptr<Launch> launch(SequenceLogpsJob&, const Place&) { absent(); }
std::unique_ptr<Launch> launch(TokenLogpsJob&, const Place&) { absent(); }
const std::string& layer_problem() {
  static const std::string problem = "this build contains no CUDA kernels";
  return problem;
}
void run_layer(LossJob&, const Place&) { absent(); }
void run_layer(SequenceLogpsJob&, const Place&) { absent(); }
void run_layer(TokenLogpsJob&, const Place&) { absent(); }
void run_staged(LossJob&, int) { absent(); }
void run_staged(SequenceLogpsJob&, int) { absent(); }
void run_staged(TokenLogpsJob&, int) { absent(); }
void copy_kernel(int, Stream, void*, const void*, size_t) { absent(); }

}  // namespace diralign::cuda
