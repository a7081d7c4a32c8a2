// Devices, memory, copies and streams of the CUDA backend, on the emulation: what is copied, that
// nobody's device or error changes, and that what fails leaves nothing behind.
#include "runtime.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>
#include "check.h"

using namespace diralign;

namespace {

std::vector<unsigned char> numbers(size_t bytes, uint64_t seed) {
  check::Random random(seed);
  uint64_t drawn[512];
  for (auto& eight : drawn) eight = random.bits();
  std::vector<unsigned char> data(bytes);
  for (size_t at = 0, n; at < bytes; at += n) {
    drawn[0]++;  // no two of these blocks are the same
    std::memcpy(&data[at], drawn, n = std::min(bytes - at, sizeof(drawn)));
  }
  return data;
}

/// SIMT_FAIL for a scope.
struct Fault {
  explicit Fault(const char* what) { setenv("SIMT_FAIL", what, 1); }
  ~Fault() { unsetenv("SIMT_FAIL"); }
};

/// What a call throws: the number of CUDA's error, and the name of the call that failed; 0 for
/// nothing.
template <class Call>
std::pair<int, std::string> error_of(Call call) {
  try {
    call();
  } catch (const DeviceError& error) {
    return {error.code, std::string(error.what()).substr(0, std::string(error.what()).find(':'))};
  }
  return {0, ""};
}

int selected() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

struct Buffer {
  Buffer(int on, size_t bytes) : device(on), data(cuda::allocate(on, bytes)) {}
  ~Buffer() { cuda::release(device, data); }
  Buffer(const Buffer&) = delete;
  int device;
  void* data;
};

}  // namespace

TEST(cuda_status_and_devices) {
  const auto status = cuda::status();
  CHECK(status.compiled && status.error == 0 && status.devices == 2, "%d devices", status.devices);
  CHECK(status.runtime == 13000 && status.driver == 13000);
  for (int i = 0; i < status.devices; i++) {
    const auto device = cuda::properties(i);
    CHECK(device.major >= 7 && device.multiprocessors > 0 && device.memory > 0 &&
          cuda::free_memory(i) <= device.memory);
    CHECK(device.uuid.size() == 40 && device.uuid.substr(0, 4) == "GPU-" && device.uuid[12] == '-',
          "%s", device.uuid.c_str());
  }
  CHECK(cuda::properties(0).uuid != cuda::properties(1).uuid);
  CHECK(error_of([] { cuda::properties(2); }).first == cudaErrorInvalidDevice);
  CHECK(cudaPeekAtLastError() == cudaSuccess);
}

TEST(cuda_copies) {
  // Around the sizes of a stage; from memory of every kind; both devices, on streams of their own
  // and on the default one.
  constexpr size_t stage = size_t(4) << 20;
  for (const size_t bytes :
       {size_t(1), size_t(4097), stage - 1, stage, stage + 1, 3 * stage + 12345}) {
    for (const int device : {0, 1}) {
      const Stream own = cuda::create_stream(device);
      const Stream stream = device == 0 ? 0 : own;
      const auto from = numbers(bytes + 1, bytes + size_t(device));
      std::vector<unsigned char> to(bytes + 1, 7), pinned(bytes + 1, 9);
      Buffer a(device, bytes), b(device, bytes);
      cuda::copy_to_device(device, stream, a.data, from.data(), bytes);
      cuda::copy_on_device(device, stream, b.data, a.data, bytes);
      cuda::copy_to_host(device, stream, to.data(), b.data, bytes);
      CHECK(std::memcmp(to.data(), from.data(), bytes) == 0 && to[bytes] == 7, "%zu bytes", bytes);

      cuda::pin(pinned.data(), pinned.size());
      cuda::copy_to_host(device, stream, pinned.data() + 1, b.data, bytes);
      CHECK(std::memcmp(pinned.data() + 1, from.data(), bytes) == 0 && pinned[0] == 9,
            "%zu bytes, page-locked", bytes);
      std::memset(pinned.data(), 3, pinned.size());
      cuda::copy_to_device(device, stream, a.data, pinned.data(), bytes);
      std::memset(pinned.data(), 4, pinned.size());  // it must have ended
      cuda::unpin(pinned.data());
      cuda::copy_to_host(device, stream, to.data(), a.data, bytes);
      CHECK(to[0] == 3 && to[bytes - 1] == 3 && to[bytes] == 7);

      cuda::fill(device, stream, a.data, 0xa5, bytes);
      cuda::copy_to_host(device, stream, to.data(), a.data, bytes);
      CHECK(to[0] == 0xa5 && to[bytes / 2] == 0xa5 && to[bytes - 1] == 0xa5 && to[bytes] == 7);
      cuda::destroy_stream(device, own);
    }
  }
  cuda::copy_to_device(0, 0, nullptr, nullptr, 0);
  cuda::copy_to_host(0, 0, nullptr, nullptr, 0);
}

TEST(cuda_copies_in_the_order_of_the_stream) {
  // A copy sees what was enqueued before it, through either stage.
  const Stream stream = cuda::create_stream(0);
  constexpr size_t bytes = size_t(9) << 20;
  Buffer a(0, bytes);
  std::vector<unsigned char> to(bytes);
  for (int i = 1; i < 6; i++) {
    cuda::fill(0, stream, a.data, i, bytes);
    cuda::copy_to_host(0, stream, to.data(), a.data, bytes);
    CHECK(to == std::vector<unsigned char>(bytes, static_cast<unsigned char>(i)));
  }
  cuda::destroy_stream(0, stream);
}

TEST(cuda_copies_from_many_threads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([t] {
      for (int i = 0; i < 8; i++) {
        const size_t bytes = size_t(t + 1) * 1234567;
        const auto from = numbers(bytes, uint64_t(t * 100 + i));
        std::vector<unsigned char> to(bytes);
        Buffer a(t % 2, bytes);
        cuda::copy_to_device(t % 2, 0, a.data, from.data(), bytes);
        cuda::copy_to_host(t % 2, 0, to.data(), a.data, bytes);
        CHECK(to == from);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(cuda_copy_that_fails) {
  const Stream stream = cuda::create_stream(1);
  const size_t bytes = size_t(13) << 20;
  const auto from = numbers(bytes, 1);
  std::vector<unsigned char> to(bytes);
  Buffer a(1, bytes);
  for (const char* after : {"0", "1", "2", "3"}) {
    for (const char* call : {"cudaMemcpyAsync", "cudaEventRecord", "cudaStreamSynchronize"}) {
      const std::string fault = std::string(call) + ":719:" + after;
      std::pair<int, std::string> up, down;
      {
        const Fault scope(fault.c_str());
        up = error_of([&] { cuda::copy_to_device(1, stream, a.data, from.data(), bytes); });
      }
      {
        const Fault scope((fault + ":1").c_str());
        down = error_of([&] { cuda::copy_to_host(1, stream, to.data(), a.data, bytes); });
      }
      const bool expected =
          std::string(call) != "cudaStreamSynchronize" || after[0] == '0';  // a copy waits once
      CHECK(up.first == (expected ? 719 : 0) && down.first == up.first, "%s: %d %d", fault.c_str(),
            up.first, down.first);
      CHECK(!expected || (up.second == call && down.second == call), "%s %s", up.second.c_str(),
            down.second.c_str());
      CHECK(cudaPeekAtLastError() == cudaSuccess && selected() == 0);
    }
  }
  // The stages that failed copies gave back are nobody's any more.
  cuda::copy_to_device(1, stream, a.data, from.data(), bytes);
  cuda::copy_to_host(1, stream, to.data(), a.data, bytes);
  CHECK(to == from);
  cuda::destroy_stream(1, stream);
}

TEST(cuda_selected_device_stays) {
  for (const int mine : {1, 0}) {
    cudaSetDevice(mine);
    for (const int device : {0, 1}) {
      Buffer a(device, 64);
      char byte = 0;
      cuda::fill(device, 0, a.data, 1, 64);
      cuda::copy_to_host(device, 0, &byte, a.data, 1);
      CHECK(selected() == mine);
      CHECK(cuda::inspect(a.data).device == device);
      cuda::properties(device);
      cuda::synchronize(device, 0);
      CHECK(selected() == mine);
    }
    CHECK(error_of([] { cuda::allocate(9, 64); }) ==
          std::pair(int(cudaErrorInvalidDevice), std::string("cudaSetDevice")));
    CHECK(selected() == mine);
  }
}

TEST(cuda_inspect) {
  std::vector<char> host(4096);
  CHECK(cuda::inspect(host.data()).kind == PointerInfo::Kind::unregistered);
  CHECK(cuda::inspect(nullptr).kind == PointerInfo::Kind::unregistered);
  cuda::pin(host.data(), host.size());
  CHECK(cuda::inspect(host.data() + 100).kind == PointerInfo::Kind::host);
  CHECK(cuda::page_locked(host.data(), host.size()) &&
        !cuda::page_locked(host.data(), host.size() + 1));
  cuda::unpin(host.data());
  CHECK(cuda::inspect(host.data() + 100).kind == PointerInfo::Kind::unregistered);

  char* freed;
  {
    Buffer a(1, 1000);
    freed = static_cast<char*>(a.data);
    const auto info = cuda::inspect(freed + 999);
    CHECK(info.kind == PointerInfo::Kind::device && info.device == 1 && info.base == a.data &&
              info.bytes == 1000,
          "%zu bytes", info.bytes);
  }
  CHECK(cuda::inspect(freed).kind == PointerInfo::Kind::unregistered);
}

TEST(cuda_out_of_memory) {
  CHECK(error_of([] { cuda::allocate(0, size_t(1) << 50); }) ==
        std::pair(int(cudaErrorMemoryAllocation), std::string("cudaMalloc")));
  CHECK(error_of([] { cuda::Workspace(0, nullptr, size_t(1) << 50); }).first ==
        cudaErrorMemoryAllocation);
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  Buffer a(0, 100);
  CHECK(a.data != nullptr && cuda::allocate(0, 0) == nullptr);
  cuda::release(0, nullptr);
}

TEST(cuda_workspace) {
  const size_t before = simt::live_allocations();
  for (const int device : {0, 1}) {
    const Stream stream = cuda::create_stream(device);
    cuda::Workspace a(device, cuda::as_stream(stream), 1000),
        none(device, cuda::as_stream(stream), 0);
    CHECK(a.data() != nullptr && a.bytes() == 1000 && none.data() == nullptr);
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0);
    CHECK(cuda::inspect(a.data()).device == device);
    cuda::Workspace b = std::move(a);
    CHECK(a.data() == nullptr && b.data() != nullptr);
    b = cuda::Workspace(device, cuda::as_stream(stream), 500);
    CHECK(b.bytes() == 500);
    cuda::fill(device, stream, b.data(), 1, 500);
    b = {};
    cuda::synchronize(device, stream);
    cuda::destroy_stream(device, stream);
  }
  CHECK(simt::live_allocations() == before, "%zu, %zu before", simt::live_allocations(), before);
}

TEST(cuda_workspaces_are_kept_while_there_is_room) {
  if (check::thin) return;  // one thread, and gigabytes of the emulated device's memory
  auto free_bytes = [] {
    cuda::synchronize(0, {});
    size_t free = 0, total = 0;
    CHECK(cudaSetDevice(0) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess);
    return free;
  };
  auto use = [](size_t bytes) { cuda::Workspace(0, nullptr, bytes); };
  const size_t mib = size_t(1) << 20, before = free_bytes();
  use(200 * mib);
  const size_t kept = free_bytes();
  CHECK(kept <= before - 168 * mib, "%zu of %zu bytes are free", kept, before);
  use(100 * mib);
  CHECK(free_bytes() == kept);
  // Whatever asks for more than is left has what was kept: the caller's arrays, and workspaces.
  void* const array = cuda::allocate(0, kept + 100 * mib);
  CHECK(array != nullptr);
  cuda::release(0, array);
  CHECK(free_bytes() >= before);
  use(200 * mib);
  use(kept + 50 * mib);
  CHECK(error_of([&] { use(before + 64 * mib); }).first == cudaErrorMemoryAllocation);
  CHECK(free_bytes() >= before - 32 * mib);
}

TEST(cuda_pinned_blocks) {
  {
    cuda::PinnedBlock a(100), b(100);
    CHECK(a.data() != b.data() && a.bytes() >= 100 && b.bytes() >= 100);
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0 &&
          cuda::page_locked(a.data(), a.bytes()));
    std::memset(a.data(), 1, a.bytes());
    cuda::PinnedBlock c = std::move(a);
    CHECK(a.data() == nullptr && c.data() != nullptr);
  }
  {
    const Fault scope("cudaHostAlloc:2:0:99");
    cuda::PinnedBlock a(200), b(64 << 10);  // those of before
    CHECK(a.data() != b.data());
    CHECK(error_of([] { cuda::PinnedBlock(size_t(300) << 20); }) ==
          std::pair(2, std::string("cudaHostAlloc")));
  }
  // What is beyond the limit of the pool is freed.
  void* freed;
  {
    cuda::PinnedBlock huge(size_t(80) << 20);
    freed = huge.data();
  }
  CHECK(cuda::inspect(freed).kind == PointerInfo::Kind::unregistered);
}

TEST(cuda_events) {
  const Stream first = cuda::create_stream(0), second = cuda::create_stream(0);
  const Event from = cuda::create_event(0, true), to = cuda::create_event(0, true),
              order = cuda::create_event(0, false);
  Buffer a(0, 1 << 20);
  std::vector<unsigned char> data(1 << 20);
  const auto before = std::chrono::steady_clock::now();
  cuda::record(0, from, first);
  for (int i = 0; i < 20; i++) cuda::fill(0, first, a.data, i, 1 << 20);
  cuda::record(0, order, first);
  cuda::record(0, to, first);
  cuda::wait(0, second, order);
  cuda::copy_to_host(0, second, data.data(), a.data, 1 << 20);
  CHECK(data[0] == 19 && data[(1 << 20) - 1] == 19);
  cuda::synchronize_event(0, to);
  CHECK(cuda::ended(0, to) && cuda::ended(0, order));
  const std::chrono::duration<double, std::milli> passed =
      std::chrono::steady_clock::now() - before;
  const double between = cuda::milliseconds(0, from, to);
  CHECK(between > 0 && between <= passed.count(), "%g of %g ms", between, passed.count());

  // A stream that cannot go on before we let it: its event has not ended, and that is no error.
  std::atomic<bool> go{false};
  cuda::notify(0, first, [&](int) {
    while (!go) std::this_thread::yield();
  });
  cuda::record(0, order, first);
  CHECK(!cuda::ended(0, order));
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  go = true;
  cuda::synchronize_event(0, order);
  CHECK(cuda::ended(0, order));
  CHECK(error_of([&] { cuda::milliseconds(0, from, order); }).first ==
        cudaErrorInvalidResourceHandle);
  for (const Event event : {from, to, order}) cuda::destroy_event(0, event);
  for (const Stream stream : {first, second}) cuda::destroy_stream(0, stream);
}

TEST(cuda_notify) {
  const Stream stream = cuda::create_stream(1);
  std::atomic<int> called{-1};
  auto held = std::make_shared<int>(1);
  cuda::notify(1, stream, [&called, held](int error) { called = error; });
  cuda::synchronize(1, stream);
  while (held.use_count() > 1) std::this_thread::yield();  // the function goes after it was called
  CHECK(called == 0);
  {
    const Fault scope("cudaStreamAddCallback:400:0");
    CHECK(error_of([&] { cuda::notify(1, stream, [held](int) {}); }) ==
          std::pair(400, std::string("cudaStreamAddCallback")));
  }
  CHECK(held.use_count() == 1);
  cuda::destroy_stream(1, stream);
}
