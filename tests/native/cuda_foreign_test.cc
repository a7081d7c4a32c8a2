// What other libraries may pass in: memory made of several mappings, streams that are captured into
// graphs, and events that take the time of a launch.
#include <cstdlib>
#include <string>
#include "check.h"
#include "device_jobs.h"
#include "runtime.h"

using namespace diralign;
using namespace problems;

namespace {

/// The number of CUDA's error that a call throws; 0 for nothing.
template <class Call>
int error_of(Call call) {
  try {
    call();
  } catch (const DeviceError& error) {
    return error.code;
  }
  return 0;
}

Problem small_problem(int64_t tokens = 3) {
  Shape shape;
  shape.sequences = 2;
  shape.tokens = tokens;
  shape.vocab = 33;
  shape.seed = 5;
  return Problem(reference::objective("dpo", 0.1), shape);
}

/// Says that a stream is captured, for a scope.
struct Capture {
  cudaStream_t stream;
  explicit Capture(Stream handle) : stream(cuda::as_stream(handle)) {
    simt::set_capturing(stream, true);
  }
  ~Capture() { simt::set_capturing(stream, false); }
};

}  // namespace

TEST(cuda_memory_of_several_mappings) {
  constexpr size_t bytes = 10000, piece = 4096;
  DeviceBytes memory(1, bytes);
  char* const data = memory.data;
  auto known_from = [data](size_t offset, size_t wanted) {
    const PointerInfo info = cuda::inspect(data + offset, wanted);
    CHECK(info.kind == PointerInfo::Kind::device && info.device == 1);
    return size_t(static_cast<const char*>(info.base) + info.bytes - (data + offset));
  };
  CHECK(known_from(100, 1) == bytes - 100 && known_from(100, 2 * bytes) == bytes - 100,
        "one allocation is what it is");

  simt::map_in_pieces(data, piece);
  CHECK(known_from(0, 1) == piece, "no further than it must");
  CHECK(known_from(0, piece) == piece && known_from(0, piece + 1) == 2 * piece);
  CHECK(known_from(100, bytes - 100) == bytes - 100);
  CHECK(known_from(piece + 1, bytes - piece - 1) == bytes - piece - 1, "from within the second");
  CHECK(known_from(0, 2 * bytes) == bytes, "no further than there is memory");
  CHECK(simt::live_mapping_handles() == 0, "%zu handles", simt::live_mapping_handles());
  simt::map_in_one(data);
  CHECK(known_from(0, bytes) == bytes);
}

TEST(cuda_allocations_side_by_side_are_two) {
  // Of cudaMalloc: the next one may be right behind, and is somebody else's.
  DeviceBytes memory(0, 8192);
  simt::map_in_pieces(memory.data, 4096);
  simt::unmark_mapped(memory.data + 4096);
  CHECK(cuda::inspect(memory.data, 8192).bytes == 4096, "what follows is no mapping");
  simt::map_in_pieces(memory.data + 4096, 4096);
  CHECK(cuda::inspect(memory.data, 8192).bytes == 8192);
  simt::map_in_one(memory.data);
}

TEST(cuda_captured_streams_are_refused) {
  OwnStream stream(0);
  const Problem p = small_problem();
  Prepared prepared(p, {Mode::none, false, false, 1});
  const DeviceLogits logits(p, {}, stream);
  prepared.job.batch.logits = logits.data();
  char byte = 0;
  const size_t before = simt::live_allocations();
  const uint64_t kernels = simt::kernels_run();
  {
    const Capture capture(stream.stream);
    const Place place{0, stream.stream};
    CHECK(error_of([&] { cuda::launch(prepared.job, place); }) ==
          int(cudaErrorStreamCaptureUnsupported));
    CHECK(error_of([&] { cuda::copy_to_device(0, stream.stream, logits.memory.data, &byte, 1); }) ==
          int(cudaErrorStreamCaptureUnsupported));
    CHECK(error_of([&] { cuda::copy_to_host(0, stream.stream, &byte, logits.memory.data, 1); }) ==
          int(cudaErrorStreamCaptureUnsupported));
    CHECK(error_of([&] { cuda::synchronize(0, stream.stream); }) ==
          int(cudaErrorStreamCaptureUnsupported));
  }
  CHECK(simt::live_allocations() == before && simt::kernels_run() == kernels &&
        cudaPeekAtLastError() == cudaSuccess);
  run_on_device(prepared.job, {0, stream.stream});
  CHECK(std::isfinite(prepared.collect().loss));
}

TEST(cuda_default_stream_beside_a_capture_is_refused) {
  setenv("SIMT_FAIL", "cudaStreamIsCapturing:906:0", 1);
  CHECK(error_of([] { cuda::synchronize(0, 0); }) == int(cudaErrorStreamCaptureUnsupported));
  // An error of earlier work is told in the words of the call that meets it.
  setenv("SIMT_FAIL", "cudaStreamIsCapturing:700:0,cudaStreamSynchronize:700:0", 1);
  std::string said;
  try {
    cuda::synchronize(0, 0);
  } catch (const DeviceError& error) {
    said = error.what();
  }
  unsetenv("SIMT_FAIL");
  CHECK(said.find("cudaStreamSynchronize: cudaErrorIllegalAddress") == 0, "%s", said.c_str());
}

TEST(cuda_time_begins_when_the_host_is_ready) {
  OwnStream stream(0);
  const Problem p = small_problem();
  Prepared prepared(p, {Mode::none, false, false, 1});
  const DeviceLogits logits(p, {}, stream);
  prepared.job.batch.logits = logits.data();
  const Event begin = cuda::create_event(0, true), end = cuda::create_event(0, true);
  const Place place{0, stream.stream, begin};
  cuda::record(0, end, stream.stream);

  // The workspace comes before anything is written to it: where there is none, nothing was
  // recorded.
  setenv("SIMT_FAIL", "cudaMallocAsync:2:0:2", 1);
  CHECK(error_of([&] { cuda::launch(prepared.job, place); }) == int(cudaErrorMemoryAllocation));
  unsetenv("SIMT_FAIL");
  CHECK(error_of([&] { cuda::milliseconds(0, begin, end); }) == int(cudaErrorInvalidResourceHandle),
        "recorded too soon");

  run_on_device(prepared.job, place);
  cuda::record(0, end, stream.stream);
  cuda::synchronize(0, stream.stream);
  CHECK(cuda::milliseconds(0, begin, end) >= 0);
  for (const Event event : {begin, end}) cuda::destroy_event(0, event);
}

TEST(cuda_time_of_a_batch_without_rows) {
  OwnStream stream(0);
  Problem p = small_problem();
  std::fill(p.labels.begin(), p.labels.end(), ignored);
  Prepared prepared(p, {Mode::none, false, false, 1});
  const DeviceLogits logits(p, {}, stream);
  prepared.job.batch.logits = logits.data();
  const Event begin = cuda::create_event(0, true), end = cuda::create_event(0, true);
  run_on_device(prepared.job, {0, stream.stream, begin});
  cuda::record(0, end, stream.stream);
  cuda::synchronize(0, stream.stream);
  CHECK(cuda::milliseconds(0, begin, end) >= 0);
  for (const Event event : {begin, end}) cuda::destroy_event(0, event);
}
