// Shared memory and the copies into and out of it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include "block.h"
#include "sanitizers.h"

namespace simt {

namespace {

constexpr size_t dynamic_alignment = 128;

char* allocate(size_t bytes, size_t alignment) {
  void* data;
  if (posix_memalign(&data, std::max(alignment, sizeof(void*)), bytes))
    fail(nullptr, 0, "no memory for %zu bytes of shared memory", bytes);
  return static_cast<char*>(data);
}

/// Memory that a block finds undefined. For the race detector it is new: it knows nothing of the
/// block that had it before.
void renew(char*& data, size_t bytes, size_t alignment) {
  if (thread_sanitizer() && data) {
    std::free(data);
    data = nullptr;
  }
  if (!data) data = allocate(bytes, alignment);
  std::memset(data, 0xff, bytes);
}

Block& current_block() { return Machine::block_of(current_thread()); }

bool within(const char* data, size_t size, const void* address, size_t bytes) {
  const char* const p = static_cast<const char*>(address);
  return p >= data && p + bytes <= data + size;
}
bool is_shared(const Block& block, const void* address, size_t bytes) {
  if (block.dynamic && within(block.dynamic, block.dynamic_bytes, address, bytes)) return true;
  return std::any_of(block.variables.begin(), block.variables.end(), [&](const SharedVariable& v) {
    return within(v.data, v.bytes, address, bytes);
  });
}

void check_aligned(const void* a, const void* b, size_t alignment, const char* what,
                   const char* file, int line) {
  if (((reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) & (alignment - 1)) != 0) {
    fail(file, line, "%s of an address that is not a multiple of %zu", what, alignment);
  }
}

void perform(const Copy& copy) {
  if (!copy.from) {
    // Not by the C library: the race detector is to see what is written, and not the emulator's
    // own memory.
    if (thread_sanitizer()) __tsan_write_range(copy.to, copy.bytes);
    volatile uint32_t* const to = static_cast<volatile uint32_t*>(copy.to);
    for (unsigned i = 0; i < copy.bytes / 4; ++i) to[i] = copy.words[i];
    return;
  }
  std::memcpy(copy.to, copy.from, copy.source_bytes);
  std::memset(static_cast<char*>(copy.to) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}
/// Those of all groups before `end`, in the order of issue.
void perform_before(Copies& copies, unsigned end) {
  size_t n = 0;
  while (n < copies.pending.size() && copies.pending[n].group < end) perform(copies.pending[n++]);
  copies.pending.erase(copies.pending.begin(), copies.pending.begin() + ptrdiff_t(n));
}
unsigned groups_before(const Copies& copies, unsigned pending) {
  return copies.group > pending ? copies.group - pending : 0;
}

/// Whether a copy of a random schedule happens at once.
bool at_once(Machine& machine) {
  return machine.launch().schedule.order == Schedule::random && (machine.draw() & 1) == 0;
}

MbarrierState& state_of(const Block& block, Mbarrier* barrier, const char* file, int line) {
  for (auto& state : block.mbarriers) {
    if (state->address == barrier) return *state;
  }
  fail(file, line, "an mbarrier that was not initialised, or not yet");
}
MbarrierState& state_of(Mbarrier* barrier, const char* file, int line) {
  return state_of(current_block(), barrier, file, line);
}

/// Performs copies to a block's shared memory on a timeline of their own, ordered after their issue
/// only: that the waiting thread is done with their target is for barriers to see to, not for the
/// wait.
void perform(Block& block, MbarrierState& state, const Copy* copies, size_t count) {
  if (!block.copies) block.copies = std::make_unique<Timeline>();
  block.copies->with([&] {
    acquire(&state.issued);
    for (size_t i = 0; i < count; ++i) perform(copies[i]);
    release(&state.completed);
  });
}
void issue(Block& block, MbarrierState& state, const Copy& copy) {
  state.bytes_issued += copy.bytes;
  release(&state.issued);
  if (at_once(*block.machine)) return perform(block, state, &copy, 1);
  Quiet quiet;
  state.copies.push_back(copy);
}

/// Ends the phase if all that it waits for has come.
bool end_phase(MbarrierState& state) {
  if (state.arrivals_left != 0 || state.bytes_issued != state.bytes_expected) return false;
  if (!state.copies.empty()) {
    perform(current_block(), state, state.copies.data(), state.copies.size());
    state.copies.clear();
  }
  state.arrivals_left = state.count;
  state.bytes_issued = state.bytes_expected = 0;
  state.parity ^= 1;
  return true;
}

void arrive(Mbarrier* barrier, unsigned bytes, bool counts, const char* file, int line) {
  Quiet quiet;
  MbarrierState& state = state_of(barrier, file, line);
  if (state.arrivals_left == 0 && !end_phase(state)) {
    fail(file, line,
         "an arrival at an mbarrier whose phase has all its %u arrivals but not yet its bytes "
         "(%llu of %llu issued)",
         state.count, (unsigned long long)state.bytes_issued,
         (unsigned long long)state.bytes_expected);
  }
  state.bytes_expected += bytes;
  if (!counts) return;
  release(&state.completed);
  --state.arrivals_left;
}

}  // namespace

void start_shared_memory(Block& block, size_t dynamic_bytes, bool new_kernel) {
  Quiet quiet;
  if (new_kernel) free_shared_memory(block);
  if (block.dynamic_bytes != dynamic_bytes) {
    std::free(block.dynamic);
    block.dynamic = nullptr;
    block.dynamic_bytes = dynamic_bytes;
  }
  if (dynamic_bytes) renew(block.dynamic, dynamic_bytes, dynamic_alignment);
  block.mbarriers.clear();
  block.static_bytes = 0;
}

void free_shared_memory(Block& block) {
  std::free(block.dynamic);
  block.dynamic = nullptr;
  block.dynamic_bytes = 0;
  for (SharedVariable& variable : block.variables) std::free(variable.data);
  block.variables.clear();
}

void end_shared_memory(Block& block) {
  Quiet quiet;
  if (address_sanitizer()) return free_shared_memory(block);
  if (block.dynamic) std::memset(block.dynamic, 0xff, block.dynamic_bytes);
  for (SharedVariable& variable : block.variables) std::memset(variable.data, 0xff, variable.bytes);
}

void check_copies_at_end(Thread& thread) {
  if (!thread.bulk.pending.empty()) {
    const Copy& copy = thread.bulk.pending.front();
    fail(copy.file, copy.line, "a thread ends before a bulk copy has read its shared memory");
  }
  thread.async.pending.clear();
  thread.async.group = thread.bulk.group = 0;
}

void check_copies_at_end(Block& block) {
  for (const auto& state : block.mbarriers) {
    if (state->copies.empty()) continue;
    const Copy& copy = state->copies.front();
    fail(copy.file, copy.line,
         "a block ends before a bulk copy into its shared memory: nobody waited for it");
  }
}

namespace {
char* variable_of(Block& block, const void* declaration, size_t bytes, size_t alignment,
                  const char* file, int line) {
  const auto found =
      std::find_if(block.variables.begin(), block.variables.end(),
                   [=](const SharedVariable& v) { return v.declaration == declaration; });
  if (found != block.variables.end() && found->seen_by == block.serial) return found->data;
  Quiet quiet;
  block.static_bytes += bytes;
  if (block.static_bytes > max_static_shared_memory ||
      block.static_bytes + block.dynamic_bytes > max_shared_memory) {
    fail(file, line, "too much shared memory: %zu bytes of variables and %zu dynamic",
         block.static_bytes, block.dynamic_bytes);
  }
  SharedVariable& variable =
      found != block.variables.end()
          ? *found
          : block.variables.emplace_back(SharedVariable{declaration, nullptr, bytes, alignment, 0});
  renew(variable.data, bytes, alignment);
  variable.seen_by = block.serial;
  return variable.data;
}
}  // namespace

void* static_shared(const void* declaration, size_t bytes, size_t alignment, const char* file,
                    int line) {
  return variable_of(current_block(), declaration, bytes, alignment, file, line);
}

void* in_block_of_cluster(const void* own, unsigned rank, const char* file, int line) {
  Block& block = current_block();
  const Cluster& cluster = *block.cluster;
  if (rank >= cluster.size)
    fail(file, line, "shared memory of block %u of a cluster of %u", rank, cluster.size);
  Block& other = *cluster.blocks[rank];
  if (&other != &block && cluster.phase == 0)
    fail(file, line,
         "shared memory of another block before a barrier of the cluster: it may not "
         "have started");
  if (other.live == 0) fail(file, line, "shared memory of a block that has ended");
  const char* const address = static_cast<const char*>(own);
  if (block.dynamic && within(block.dynamic, block.dynamic_bytes, address, 1))
    return other.dynamic + (address - block.dynamic);
  for (const SharedVariable& v : block.variables)
    if (v.seen_by == block.serial && within(v.data, v.bytes, address, 1))
      return variable_of(other, v.declaration, v.bytes, v.alignment, file, line) +
             (address - v.data);
  fail(file, line, "an address that is not in the block's shared memory is mapped to another's");
}

void* dynamic_shared() { return current_block().dynamic; }

void copy_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes,
                const char* file, int line) {
  Thread& thread = current_thread();
  Block& block = current_block();
  if ((bytes != 4 && bytes != 8 && bytes != 16) || source_bytes > bytes)
    fail(file, line, "cp.async of %u bytes, %u of them read", bytes, source_bytes);
  check_aligned(shared, global, bytes, "cp.async", file, line);
  if (!is_shared(block, shared, bytes))
    fail(file, line, "cp.async to an address outside the block's shared memory");
  if (is_shared(block, global, 1)) fail(file, line, "cp.async from shared memory");
  const Copy copy{shared, global, bytes, source_bytes, thread.async.group, file, line};
  if (at_once(*block.machine)) {
    perform(copy);
  } else {
    thread.async.pending.push_back(copy);
  }
}
void copy_async_commit() { ++current_thread().async.group; }
void copy_async_wait(unsigned pending) {
  Copies& copies = current_thread().async;
  perform_before(copies, groups_before(copies, pending));
}
void copy_async_wait_all() {
  Copies& copies = current_thread().async;
  perform_before(copies, copies.group + 1);
}

void mbarrier_init(Mbarrier* barrier, unsigned count, const char* file, int line) {
  Quiet quiet;
  Block& block = current_block();
  check_aligned(barrier, barrier, 8, "mbarrier.init", file, line);
  if (!is_shared(block, barrier, sizeof(Mbarrier)))
    fail(file, line, "an mbarrier outside the block's shared memory");
  if (count == 0) fail(file, line, "an mbarrier for no arrivals");
  auto found = std::find_if(block.mbarriers.begin(), block.mbarriers.end(),
                            [=](const auto& s) { return s->address == barrier; });
  if (found == block.mbarriers.end())
    found = block.mbarriers.insert(found, std::make_unique<MbarrierState>());
  MbarrierState& state = **found;
  if (!state.copies.empty())
    fail(file, line, "an mbarrier is initialised again while copies are under way");
  state.address = barrier;
  state.count = state.arrivals_left = count;
  state.bytes_expected = state.bytes_issued = state.parity = 0;
  *barrier = 0;
}
void mbarrier_arrive(Mbarrier* barrier, const char* file, int line) {
  arrive(barrier, 0, true, file, line);
}
void mbarrier_arrive_expect_tx(Mbarrier* barrier, unsigned bytes, const char* file, int line) {
  arrive(barrier, bytes, true, file, line);
}
void mbarrier_expect_tx(Mbarrier* barrier, unsigned bytes, const char* file, int line) {
  arrive(barrier, bytes, false, file, line);
}

bool mbarrier_test_wait(Mbarrier* barrier, unsigned parity, const char* file, int line) {
  MbarrierState& state = state_of(barrier, file, line);
  if (state.parity == (parity & 1) && !end_phase(state)) return false;
  acquire(&state.completed);
  return true;
}
void mbarrier_wait(Mbarrier* barrier, unsigned parity, const char* file, int line) {
  while (!mbarrier_test_wait(barrier, parity, file, line)) yield(file, line);
}

void bulk_copy_to_shared(void* shared, const void* global, unsigned bytes, Mbarrier* barrier,
                         const char* file, int line) {
  Block& block = current_block();
  MbarrierState& state = state_of(barrier, file, line);
  if (bytes == 0 || bytes % 16 != 0)
    fail(file, line, "a bulk copy of %u bytes, which is not a multiple of 16", bytes);
  check_aligned(shared, global, 16, "a bulk copy", file, line);
  if (!is_shared(block, shared, bytes))
    fail(file, line, "a bulk copy to an address outside the block's shared memory");
  if (is_shared(block, global, 1)) fail(file, line, "a bulk copy from shared memory");
  issue(block, state, {shared, global, bytes, bytes, 0, file, line});
}

void store_async(void* shared, const void* value, unsigned bytes, Mbarrier* barrier,
                 const char* file, int line) {
  const Cluster& cluster = *current_block().cluster;
  Block* const* const end = cluster.blocks + cluster.size;
  Block* const* const owner = std::find_if(cluster.blocks, end, [=](const Block* block) {
    return is_shared(*block, barrier, sizeof(Mbarrier));
  });
  if (owner == end) fail(file, line, "st.async with an mbarrier outside the cluster");
  Block& block = **owner;
  MbarrierState& state = state_of(block, barrier, file, line);
  if (bytes != 4 && bytes != 8 && bytes != 16) fail(file, line, "st.async of %u bytes", bytes);
  check_aligned(shared, shared, bytes, "st.async", file, line);
  if (!is_shared(block, shared, bytes))
    fail(file, line, "st.async to an address outside the shared memory of the mbarrier's block");
  Copy copy{shared, nullptr, bytes, bytes, 0, file, line};
  {
    const Quiet quiet;
    std::memcpy(copy.words, value, bytes);
  }
  issue(block, state, copy);
}

void bulk_copy_to_global(void* global, const void* shared, unsigned bytes, const char* file,
                         int line) {
  Thread& thread = current_thread();
  Block& block = current_block();
  if (bytes == 0 || bytes % 16 != 0)
    fail(file, line, "a bulk copy of %u bytes, which is not a multiple of 16", bytes);
  check_aligned(shared, global, 16, "a bulk copy", file, line);
  if (!is_shared(block, shared, bytes))
    fail(file, line, "a bulk copy from an address outside the block's shared memory");
  const Copy copy{global, shared, bytes, bytes, thread.bulk.group, file, line};
  if (at_once(*block.machine)) {
    perform(copy);
  } else {
    thread.bulk.pending.push_back(copy);
  }
}
void bulk_commit() { ++current_thread().bulk.group; }
void bulk_wait(unsigned pending) {
  Copies& copies = current_thread().bulk;
  perform_before(copies, groups_before(copies, pending));
}
void bulk_wait_read(unsigned pending) { bulk_wait(pending); }

}  // namespace simt
