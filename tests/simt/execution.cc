#include "execution.h"
#include <sys/mman.h>
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include "block.h"
#include "sanitizers.h"

namespace simt {

__thread Self* self = nullptr;

namespace {

// Deep enough for printf and the mathematical functions; frames grow under the sanitizers.
size_t stack_bytes() { return address_sanitizer() || thread_sanitizer() ? 256 << 10 : 64 << 10; }
constexpr size_t page = 4096;
constexpr unsigned stacks_per_mapping = 64;
// A warp that goes on by itself, through collectives in a loop, lets others run after so many
// turns.
constexpr unsigned turns_per_warp = 1 << 14;
// When nothing but polling happened for so many rounds and calls, whoever is polled for will not
// come.
constexpr uint64_t idle_rounds_limit = 1000, idle_yields_limit = 500'000;

/// The set bit that follows bit `after` in the order of the schedule, around the end.
unsigned following(uint64_t bits, unsigned after, bool reverse) {
  if (reverse) {
    const uint64_t below = bits & ((uint64_t(1) << after) - 1);
    return 63u - unsigned(std::countl_zero(below ? below : bits));
  }
  const uint64_t above = bits & (~uint64_t(1) << after);
  return unsigned(std::countr_zero(above ? above : bits));
}

uint64_t mix(uint64_t x) {  // splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

const char* name(Collective kind) { return kind == Collective::sync ? "__syncwarp" : "a shuffle"; }

std::mutex schedule_mutex;
bool schedule_known = false;
Schedule current_schedule;

}  // namespace

void set_schedule(Schedule schedule) {
  std::lock_guard<std::mutex> lock(schedule_mutex);
  schedule_known = true;
  current_schedule = schedule;
}

Schedule schedule() {
  std::lock_guard<std::mutex> lock(schedule_mutex);
  if (!schedule_known) {
    schedule_known = true;
    const char* const order = std::getenv("SIMT_ORDER");
    char* end = nullptr;
    if (!order || !*order || !std::strcmp(order, "forward")) {
      current_schedule = {};
    } else if (!std::strcmp(order, "reverse")) {
      current_schedule = {Schedule::reverse, 0};
    } else {
      current_schedule = {Schedule::random, std::strtoull(order, &end, 0)};
      if (*end) {
        std::fprintf(stderr, "simt: SIMT_ORDER is forward, reverse or a seed, not %s\n", order);
        std::abort();
      }
    }
  }
  return current_schedule;
}

void release(const void* address) {
  if (thread_sanitizer()) __tsan_release(const_cast<void*>(address));
}
void acquire(const void* address) {
  if (thread_sanitizer()) __tsan_acquire(const_cast<void*>(address));
}

Timeline::Timeline() : fiber_(thread_sanitizer() ? __tsan_create_fiber(0) : nullptr) {}
Timeline::~Timeline() {
  if (fiber_) __tsan_destroy_fiber(fiber_);
}
void* Timeline::enter() {
  if (!fiber_) return nullptr;
  void* const before = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber_, tsan_no_sync);
  return before;
}
void Timeline::leave(void* before) {
  if (fiber_) __tsan_switch_to_fiber(before, tsan_no_sync);
}

void fail(const char* file, int line, const char* format, ...) {
  std::fflush(stdout);
  std::fputs("simt: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (self) {
    const Thread& t = current_thread();
    std::fprintf(stderr, "\n  in thread %u,%u,%u (warp %u, lane %u) of block %u,%u,%u", t.thread.x,
                 t.thread.y, t.thread.z, t.warp->index, t.lane, t.block.x, t.block.y, t.block.z);
  }
  if (file) std::fprintf(stderr, " at %s:%d", file, line);
  std::fputc('\n', stderr);
  if (self) Machine::block_of(current_thread()).machine->report(stderr);
  std::abort();
}

void yield(const char* file, int line) {
  if (!self) return;
  Thread& t = current_thread();
  t.file = file;
  t.line = line;
  Machine::block_of(t).machine->yield();
}

void barrier(const char* file, int line) {
  Thread& t = current_thread();
  t.file = file;
  t.line = line;
  Machine::block_of(t).machine->barrier();
}

uint64_t collective(Collective kind, uint32_t mask, uint64_t value, unsigned source,
                    const char* file, int line) {
  Thread& t = current_thread();
  t.file = file;
  t.line = line;
  return Machine::block_of(t).machine->collective(kind, mask, value, source);
}

unsigned blocks_per_multiprocessor(unsigned threads, size_t dynamic_shared_bytes) {
  const unsigned warps = (threads + warp_size - 1) / warp_size;
  const size_t by_memory =
      shared_memory_per_multiprocessor / (dynamic_shared_bytes + reserved_shared_memory_per_block);
  return unsigned(
      std::min<size_t>({max_blocks_per_multiprocessor,
                        max_threads_per_multiprocessor / (warps * warp_size), by_memory}));
}

Machine* create_machine(unsigned multiprocessors) { return new Machine(multiprocessors); }
void destroy_machine(Machine* machine) {
  Quiet quiet;
  delete machine;
}
void run(Machine& machine, const Launch& launch) { machine.run(launch); }

Machine::Machine(unsigned multiprocessors) : multiprocessors_(multiprocessors) {}

Machine::~Machine() {
  for (auto& block : blocks_) free_shared_memory(*block);
  if (thread_sanitizer()) {
    for (auto& thread : threads_) __tsan_destroy_fiber(thread->timeline);
  }
  for (char* stacks : stacks_) munmap(stacks, stacks_per_mapping * (page + stack_bytes()));
}

void Machine::add_fibers(unsigned count) {
  const size_t each = page + stack_bytes();
  while (threads_.size() < count) {
    const size_t i = threads_.size() % stacks_per_mapping;
    if (i == 0) {
      void* const mapping = mmap(nullptr, stacks_per_mapping * each, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (mapping == MAP_FAILED) fail(nullptr, 0, "no memory for the stacks of %u threads", count);
      stacks_.push_back(static_cast<char*>(mapping));
      for (size_t k = 0; k < stacks_per_mapping; ++k)
        mprotect(stacks_.back() + k * each, page, PROT_NONE);
    }
    auto thread = std::make_unique<Thread>();
    // The first frames of neighbours start in different sets of the cache.
    prepare(*thread, stacks_.back() + i * each + page, stack_bytes(), threads_.size() * 192 % page,
            fiber);
    threads_.push_back(std::move(thread));
  }
}

void Machine::take_places(unsigned places, unsigned threads) {
  if (threads == threads_per_block_ && places <= places_) return;
  shaped_places_ = 0;
  places_ = places;
  threads_per_block_ = threads;
  add_fibers(places * threads);
  const unsigned warps = (threads + warp_size - 1) / warp_size;
  lanes_.resize(size_t(places) * threads);
  for (unsigned p = 0; p < places; ++p) {
    if (p == blocks_.size()) {
      blocks_.push_back(std::make_unique<Block>());
      blocks_[p]->machine = this;
      blocks_[p]->place = p;
    }
    Block& block = *blocks_[p];
    block.warps.resize(warps);
    for (unsigned i = 0; i < threads; ++i) {
      Thread& t = *threads_[size_t(p) * threads + i];
      lanes_[size_t(p) * threads + i] = &t;
      t.lane = i % warp_size;
      t.warp = &block.warps[i / warp_size];
    }
    for (unsigned w = 0; w < warps; ++w) {
      Warp& warp = block.warps[w];
      warp.block = &block;
      warp.index = w;
      warp.lanes = &lanes_[size_t(p) * threads + w * warp_size];
      const unsigned lanes = std::min<unsigned>(warp_size, threads - w * warp_size);
      warp.all = lanes == warp_size ? ~0u : (1u << lanes) - 1;
    }
  }
}

/// What the threads of the places know of the launch.
void Machine::shape(unsigned places, const dim3& grid, const dim3& block) {
  const auto equal = [](const dim3& a, const dim3& b) {
    return a.x == b.x && a.y == b.y && a.z == b.z;
  };
  if (places <= shaped_places_ && equal(grid, shaped_grid_) && equal(block, shaped_block_)) return;
  shaped_places_ = places;
  shaped_grid_ = grid;
  shaped_block_ = block;
  for (unsigned i = 0; i < places * threads_per_block_; ++i) {
    Thread& t = *lanes_[i];
    const unsigned k = i % threads_per_block_;
    t.block_size = block;
    t.grid_size = grid;
    t.thread = {k % block.x, k / block.x % block.y, k / block.x / block.y};
  }
}

void Machine::run(const Launch& launch) {
  Quiet quiet;
  const size_t threads = size_t(launch.block.x) * launch.block.y * launch.block.z;
  clusters_total_ = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z / launch.cluster;
  const bool new_kernel = last_kernel_ != launch.kernel;
  const Launch copy = launch;
  launch_ = &copy;
  random_state_ = copy.schedule.seed;
  keep_warp_ = keep_block_ = 0;
  first_cluster_ = 0;
  cluster_step_ = 1;
  if (copy.schedule.order == Schedule::reverse) {
    first_cluster_ = clusters_total_ - 1;
    cluster_step_ = clusters_total_ - 1;  // modulo the total: one down
  } else if (copy.schedule.order == Schedule::random) {
    // Fine-grained turns in one launch, a warp or a block far ahead of the others in another.
    constexpr unsigned chances[] = {0, 128, 240};
    keep_warp_ = chances[draw() % 3];
    keep_block_ = chances[draw() % 3];
    first_cluster_ = draw() % clusters_total_;
    do {
      cluster_step_ = 1 + draw() % clusters_total_;
    } while (std::gcd(cluster_step_, clusters_total_) != 1);
  }
  const unsigned resident =
      multiprocessors_ * blocks_per_multiprocessor(unsigned(threads), copy.shared_bytes);
  const unsigned places =
      copy.cluster * unsigned(std::min<uint64_t>(clusters_total_, resident / copy.cluster));
  take_places(places, unsigned(threads));
  shape(places, copy.grid, copy.block);
  clusters_started_ = 0;
  live_blocks_ = polling_ = 0;
  idle_rounds_ = idle_yields_ = 0;
  ready_ = 0;
  if (thread_sanitizer()) host_.timeline = __tsan_get_current_fiber();
  for (unsigned p = 0; p < places; ++p)
    start_shared_memory(*blocks_[p], copy.shared_bytes, new_kernel);
  make_clusters(places);
  for (Cluster& cluster : clusters_) start_cluster(cluster);
  // The rest of the places holds variables of an earlier kernel.
  for (size_t p = places; p < blocks_.size(); ++p) free_shared_memory(*blocks_[p]);
  release(&begin_);
  current_ = nullptr;
  Thread& first = next();
  current_ = &first;
  self = &first;
  switch_fiber(host_, first);
  self = nullptr;
  acquire(&end_);
  launch_ = nullptr;
  last_kernel_ = copy.kernel;
}

void Machine::make_clusters(unsigned places) {
  places_in_order_.clear();
  for (unsigned p = 0; p < places; ++p) places_in_order_.push_back(blocks_[p].get());
  clusters_.assign(places / launch_->cluster, Cluster{});
  for (size_t c = 0; c < clusters_.size(); ++c) {
    clusters_[c].blocks = &places_in_order_[c * launch_->cluster];
    clusters_[c].size = launch_->cluster;
  }
}

void Machine::start_cluster(Cluster& cluster) {
  const uint64_t i =
      (first_cluster_ + (clusters_started_ % clusters_total_) * cluster_step_) % clusters_total_;
  ++clusters_started_;
  cluster.live = cluster.size * threads_per_block_;
  cluster.live_blocks = cluster.size;
  cluster.arrived = cluster.phase = 0;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    cluster.blocks[rank]->cluster = &cluster;
    start_block(*cluster.blocks[rank], i * cluster.size + rank);
  }
}

void Machine::start_block(Block& block, uint64_t i) {
  const dim3& grid = launch_->grid;
  block.index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                 unsigned(i / grid.x / grid.y)};
  block.serial = ++serial_;
  block.live = threads_per_block_;
  block.arrived = 0;
  block.turn = launch_->schedule.order == Schedule::reverse ? 0 : 63;
  for (Warp& warp : block.warps) {
    warp.polling = warp.at_barrier = warp.at_cluster = warp.at_collective = warp.ended = 0;
    make_ready(warp, warp.all);
  }
  Thread** const lanes = &lanes_[size_t(block.place) * threads_per_block_];
  for (unsigned t = 0; t < threads_per_block_; ++t) {
    lanes[t]->block = block.index;
    lanes[t]->file = nullptr;
    lanes[t]->arrived_at_cluster = false;
  }
  ++live_blocks_;
  idle_rounds_ = idle_yields_ = 0;
}

void Machine::fiber() {
  enter_fiber(current_thread().warp->block->machine->host_);
  for (;;) {
    Thread& t = current_thread();
    Machine& machine = *t.warp->block->machine;
    acquire(&machine.begin_);
    machine.launch_->body->run();
    machine.end(t);
  }
}

void Machine::end(Thread& thread) {
  check_copies_at_end(thread);
  if (thread.arrived_at_cluster)
    fail(thread.file, thread.line, "a thread ends that has not waited where its cluster arrived");
  release(&end_);
  Warp& warp = *thread.warp;
  Block& block = *warp.block;
  const uint32_t bit = 1u << thread.lane;
  make_waiting(thread);
  warp.ended |= bit;
  for (uint32_t waiting = warp.at_collective; waiting; waiting &= waiting - 1) {
    const unsigned lane = unsigned(std::countr_zero(waiting));
    if (warp.mask[lane] & bit) {
      const Thread& other = *warp.lanes[lane];
      fail(other.file, other.line, "a lane ended that the mask %08x of a warp collective names",
           warp.mask[lane]);
    }
  }
  idle_rounds_ = idle_yields_ = 0;
  Cluster& cluster = *block.cluster;
  --cluster.live;
  if (--block.live == 0) {
    check_copies_at_end(block);
    --live_blocks_;
    if (--cluster.live_blocks > 0) end_shared_memory(block);
    else if (clusters_started_ < clusters_total_) {
      for (unsigned rank = 0; rank < cluster.size; ++rank)
        start_shared_memory(*cluster.blocks[rank], launch_->shared_bytes, false);
      start_cluster(cluster);
    }
  } else if (block.arrived == block.live) {
    open_barrier(block);
  }
  if (cluster.arrived > 0 && cluster.arrived == cluster.live) open_barrier(cluster);
  if (live_blocks_ == 0) {
    current_ = nullptr;
    self = nullptr;
    switch_fiber(thread, host_);
  } else {
    go_on();
  }
}

void Machine::make_ready(Warp& warp, uint32_t lanes) {
  warp.ready |= lanes;
  warp.block->ready |= 1u << warp.index;
  ready_ |= uint64_t(1) << warp.block->place;
}

void Machine::make_waiting(Thread& thread) {
  Warp& warp = *thread.warp;
  if ((warp.ready &= ~(1u << thread.lane))) return;
  if ((warp.block->ready &= ~(1u << warp.index))) return;
  ready_ &= ~(uint64_t(1) << warp.block->place);
}

bool Machine::wake_pollers() {
  if (polling_ == 0) return false;
  for (unsigned p = 0; p < places_; ++p) {
    for (Warp& warp : blocks_[p]->warps) {
      if (!warp.polling) continue;
      make_ready(warp, warp.polling);
      warp.polling = 0;
    }
  }
  polling_ = 0;
  return true;
}

/// The thread that goes on, of those that can.
Thread& Machine::next() {
  if (ready_ == 0) {
    if (!wake_pollers()) {
      const Thread* const t = current_;
      fail(t ? t->file : nullptr, t ? t->line : 0,
           "deadlock: every thread waits for threads that do not come");
    }
    if (++idle_rounds_ > idle_rounds_limit && idle_yields_ > idle_yields_limit) {
      fail(current_->file, current_->line,
           "deadlock: nothing but polling happens, and nobody is left who could end it");
    }
  }
  if (launch_->schedule.order == Schedule::random) return next_at_random();
  const bool reverse = launch_->schedule.order == Schedule::reverse;
  Warp* warp = current_ ? current_->warp : nullptr;
  if (warp && warp->ready && --turns_left_)
    return *warp->lanes[following(warp->ready, current_->lane, reverse)];
  turns_left_ = turns_per_warp;
  // On to the next warp of the block while that has one, unless this one used up its turns; then to
  // the next block.
  Block* block = warp ? warp->block : nullptr;
  const unsigned last = reverse ? 0 : 63;
  if (!block || !block->ready || warp->ready)
    block = blocks_[following(ready_, block ? block->place : last, reverse)].get();
  block->turn = following(block->ready, block->turn, reverse);
  warp = &block->warps[block->turn];
  return *warp->lanes[following(warp->ready, last, reverse)];
}

uint64_t Machine::draw() { return mix(random_state_ += 0x9e3779b97f4a7c15u); }

Thread& Machine::next_at_random() {
  uint64_t r = draw();
  if (polling_ && (r & 15) == 0) wake_pollers();
  r >>= 4;
  const auto chance = [&r](unsigned of_256) {
    const bool yes = (r & 255) < of_256;
    r >>= 8;
    return yes;
  };
  const auto any = [&r](uint64_t bits) {
    const unsigned i = following(bits, unsigned(r & 63), false);
    r >>= 6;
    return i;
  };
  Warp* warp = current_ ? current_->warp : nullptr;
  if (!(chance(keep_warp_) && warp && warp->ready)) {
    Block* block = warp ? warp->block : nullptr;
    if (!(chance(keep_block_) && block && block->ready)) block = blocks_[any(ready_)].get();
    warp = &block->warps[any(uint64_t(block->ready) | uint64_t(block->ready) << 32) & 31];
  }
  return *warp->lanes[any(uint64_t(warp->ready) | uint64_t(warp->ready) << 32) & 31];
}

/// Enters the next thread; returns when the calling one is entered again.
void Machine::go_on() {
  Thread& from = *current_;
  Thread& to = next();
  if (&from == &to) return;
  current_ = &to;
  self = &to;
  switch_fiber(from, to);
}

void Machine::yield() {
  Thread& t = *current_;
  make_waiting(t);
  t.warp->polling |= 1u << t.lane;
  ++polling_;
  ++idle_yields_;
  go_on();
}

void Machine::barrier() {
  Thread& t = *current_;
  Warp& warp = *t.warp;
  Block& block = *warp.block;
  if (block.arrived == 0) {
    block.barrier_file = t.file;
    block.barrier_line = t.line;
  } else if (block.barrier_line != t.line ||
             (block.barrier_file != t.file && std::strcmp(block.barrier_file, t.file))) {
    fail(t.file, t.line,
         "divergent barrier: threads of the block are at the __syncthreads of %s:%d",
         block.barrier_file, block.barrier_line);
  }
  char* const order = &block.order[block.parity];
  release(order);
  ++block.arrived;
  make_waiting(t);
  warp.at_barrier |= 1u << t.lane;
  if (block.arrived == block.live) open_barrier(block);
  go_on();
  acquire(order);
}

void Machine::open_barrier(Block& block) {
  block.arrived = 0;
  // Two addresses by turns: who leaves late must not see the arrivals at the next barrier.
  block.parity ^= 1;
  for (Warp& warp : block.warps) {
    if (!warp.at_barrier) continue;
    make_ready(warp, warp.at_barrier);
    warp.at_barrier = 0;
  }
  idle_rounds_ = idle_yields_ = 0;
}

uint64_t Machine::collective(Collective kind, uint32_t mask, uint64_t value, unsigned source) {
  Thread& t = *current_;
  Warp& warp = *t.warp;
  const unsigned lane = t.lane;
  const uint32_t bit = 1u << lane;
  if (!(mask & bit))
    fail(t.file, t.line, "a lane calls %s whose mask %08x leaves it out", name(kind), mask);
  if (const uint32_t missing = mask & ~(warp.all & ~warp.ended)) {
    fail(t.file, t.line, "the mask %08x of %s names lanes that %s: %08x", mask, name(kind),
         missing & warp.all ? "have ended" : "do not exist", missing);
  }
  if (kind == Collective::shuffle && !(mask >> (source & 31) & 1)) {
    fail(t.file, t.line, "a shuffle reads lane %u, which is outside its mask %08x", source, mask);
  }
  warp.kind[lane] = kind;
  warp.mask[lane] = mask;
  warp.value[lane] = value;
  warp.source[lane] = uint8_t(source);
  warp.at_collective |= bit;
  make_waiting(t);
  if ((warp.at_collective & mask) == mask) {
    bool agreed = true;
    for (uint32_t lanes = mask; lanes; lanes &= lanes - 1)
      agreed &= warp.mask[std::countr_zero(lanes)] == mask;
    if (agreed) complete(warp, mask);
  }
  go_on();
  return warp.result[lane];
}

/// All lanes of the mask are there: gives each its result and lets them go on.
void Machine::complete(Warp& warp, uint32_t mask) {
  const unsigned lowest = unsigned(std::countr_zero(mask));
  const Collective kind = warp.kind[lowest];
  const auto each = [mask](const auto& what) {
    for (uint32_t lanes = mask; lanes; lanes &= lanes - 1) what(unsigned(std::countr_zero(lanes)));
  };
  each([&](unsigned lane) {
    if (warp.kind[lane] == kind) return;
    const Thread &a = *warp.lanes[lowest], &b = *warp.lanes[lane];
    fail(a.file, a.line,
         "lanes of one mask are at different collectives: lane %u at %s (%s:%d), lane %u at %s "
         "(%s:%d)",
         lowest, name(kind), a.file, a.line, lane, name(warp.kind[lane]), b.file, b.line);
  });
  if (kind == Collective::shuffle) {
    each([&](unsigned lane) { warp.result[lane] = warp.value[warp.source[lane]]; });
  } else if (thread_sanitizer()) {
    // A waiting lane does nothing, so what it did until now can be released, and what others did
    // be acquired, on its behalf.
    void* const before = __tsan_get_current_fiber();
    char* const order = &warp.order[lowest];
    for (const bool arriving : {true, false}) {
      each([&](unsigned lane) {
        __tsan_switch_to_fiber(warp.lanes[lane]->timeline, tsan_no_sync);
        if (arriving) release(order);
        else acquire(order);
      });
    }
    __tsan_switch_to_fiber(before, tsan_no_sync);
  }
  warp.at_collective &= ~mask;
  make_ready(warp, mask);
}

void Machine::report(FILE* out) {
  constexpr int limit = 64;
  int lines = 0;
  for (unsigned p = 0; p < places_ && lines < limit; ++p) {
    const Block& block = *blocks_[p];
    if (block.live == 0) continue;
    for (const Warp& warp : block.warps) {
      for (uint32_t left = warp.all & ~warp.ended; left && lines < limit;) {
        const unsigned lane = unsigned(std::countr_zero(left));
        const Thread& t = *warp.lanes[lane];
        const auto state = [&](unsigned i) -> const char* {
          if (warp.at_barrier >> i & 1) return "waits at __syncthreads";
          if (warp.at_cluster >> i & 1) return "waits for its cluster";
          if (warp.at_collective >> i & 1) return name(warp.kind[i]);
          if (warp.polling >> i & 1) return "polls";
          return "can go on";
        };
        // Lanes that are at the same place share a line.
        uint32_t same = 0;
        for (uint32_t others = left; others; others &= others - 1) {
          const unsigned i = unsigned(std::countr_zero(others));
          const Thread& other = *warp.lanes[i];
          if (state(i) == state(lane) && other.file == t.file && other.line == t.line &&
              warp.mask[i] == warp.mask[lane])
            same |= 1u << i;
        }
        left &= ~same;
        std::fprintf(out, "  block %u,%u,%u warp %u lanes %08x: %s", block.index.x, block.index.y,
                     block.index.z, warp.index, same, state(lane));
        if (warp.at_collective >> lane & 1) std::fprintf(out, " with mask %08x", warp.mask[lane]);
        if (t.file) std::fprintf(out, ", %s:%d\n", t.file, t.line);
        else std::fprintf(out, ", from the kernel's start\n");
        ++lines;
      }
    }
  }
  if (lines == limit) std::fprintf(out, "  ...\n");
}

}  // namespace simt
