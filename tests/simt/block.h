// The state of the emulated multiprocessors: threads, warps, blocks. For execution.cc and
// memory.cc.
#pragma once
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>
#include "async_copy.h"
#include "fiber.h"
#include "machine.h"

namespace simt {

struct Block;
struct Cluster;
struct Warp;

/// A copy that was issued and not yet performed.
struct Copy {
  void* to;
  const void* from;
  unsigned bytes, source_bytes;
  unsigned group;
  const char* file;
  int line;
  uint32_t words[4] = {};  ///< what is stored, where `from` is null
};
/// The copies of one thread, in the order of issue. Groups are counted from the start of the block.
struct Copies {
  std::vector<Copy> pending;
  unsigned group = 0;  ///< the one that is not yet committed
};

struct Thread : Self, Fiber {
  Warp* warp = nullptr;
  const char* file = nullptr;  ///< of the last place where it waited
  int line = 0;
  Copies async, bulk;
  /// Whether it has arrived at its cluster's barrier, and that barrier's phase.
  bool arrived_at_cluster = false;
  unsigned cluster_phase = 0;
};

/// Lanes as bits; which of them run, and what the others wait for.
struct Warp {
  Block* block = nullptr;
  unsigned index = 0;  ///< within the block
  Thread** lanes = nullptr;
  uint32_t all = 0;  ///< lanes that exist
  uint32_t ready = 0, polling = 0, at_barrier = 0, at_cluster = 0, at_collective = 0, ended = 0;
  // Of the collective that a lane is at, and its result.
  Collective kind[warp_size] = {};
  uint8_t source[warp_size] = {};
  uint32_t mask[warp_size] = {};
  uint64_t value[warp_size] = {}, result[warp_size] = {};
  char order[warp_size] = {};  ///< for the race detector: one address per lowest lane of a mask
};

/// A shared variable of a block, found by the address of its declaration's mark.
struct SharedVariable {
  const void* declaration;
  char* data;
  size_t bytes, alignment;
  uint64_t seen_by;  ///< the block for which it was last filled
};

/// Arrivals and bytes of one mbarrier's current phase.
struct MbarrierState {
  Mbarrier* address = nullptr;
  unsigned count = 0, arrivals_left = 0, parity = 0;
  uint64_t bytes_expected = 0, bytes_issued = 0;
  std::vector<Copy> copies;
  char issued = 0, completed = 0;  // for the race detector
};

/// A block in one of the places of the device. Its index is that of the blocks that took the place,
/// one after another.
struct Block {
  Machine* machine = nullptr;
  Cluster* cluster = nullptr;
  unsigned place = 0;
  uint3 index{};
  uint64_t serial = 0;  ///< counts blocks of the machine
  std::vector<Warp> warps;
  uint32_t ready = 0;  ///< warps with ready lanes
  unsigned turn = 0;   ///< the warp that was last to go on
  unsigned live = 0;
  // The barrier: who is there.
  unsigned arrived = 0, parity = 0;
  const char* barrier_file = nullptr;
  int barrier_line = 0;
  char order[2] = {};  // for the race detector, by turns
  // Shared memory.
  char* dynamic = nullptr;
  size_t dynamic_bytes = 0, static_bytes = 0;
  std::vector<SharedVariable> variables;
  std::vector<std::unique_ptr<MbarrierState>> mbarriers;
  std::unique_ptr<Timeline> copies;  ///< when bulk copies happen
};

/// Blocks that run together, in consecutive places. In a launch without clusters each block is one.
struct Cluster {
  Block* const* blocks = nullptr;
  unsigned size = 1;
  unsigned live = 0, live_blocks = 0;
  // The barrier: how many are there, and which one they are at.
  unsigned arrived = 0, phase = 0;
  const char* file = nullptr;
  int line = 0;
  char order[2] = {};  // for the race detector, by turns
};

class Machine {
 public:
  explicit Machine(unsigned multiprocessors);
  ~Machine();
  void run(const Launch& launch);

  void yield();
  void barrier();
  uint64_t collective(Collective kind, uint32_t mask, uint64_t value, unsigned source);
  void arrive_at_cluster();
  void wait_for_cluster();
  /// What every resident thread waits for, threads that wait for the same grouped.
  void report(FILE* out);
  uint64_t draw();
  const Launch& launch() const { return *launch_; }
  Thread& current() const { return *current_; }
  static Block& block_of(const Thread& thread) { return *thread.warp->block; }

 private:
  static void fiber();
  void end(Thread& thread);
  void take_places(unsigned places, unsigned threads);
  void shape(unsigned places, const dim3& grid, const dim3& block);
  void make_clusters(unsigned places);
  void start_cluster(Cluster& cluster);
  void start_block(Block& block, uint64_t index);
  void add_fibers(unsigned count);

  void make_ready(Warp& warp, uint32_t lanes);
  void make_waiting(Thread& thread);
  Thread& next();
  Thread& next_at_random();
  bool wake_pollers();
  void go_on();
  void complete(Warp& warp, uint32_t mask);
  void open_barrier(Block& block);
  void open_barrier(Cluster& cluster);

  const unsigned multiprocessors_;
  Fiber host_;
  Thread* current_ = nullptr;
  const Launch* launch_ = nullptr;
  const void* last_kernel_ = nullptr;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<char*> stacks_;  ///< of several fibers each, with a guard below each
  std::vector<Thread*> lanes_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Block*> places_in_order_;
  std::vector<Cluster> clusters_;
  unsigned places_ = 0, threads_per_block_ = 0;
  unsigned shaped_places_ = 0;
  dim3 shaped_grid_, shaped_block_;
  uint64_t ready_ = 0;  ///< places with ready warps
  uint64_t clusters_started_ = 0, clusters_total_ = 0, first_cluster_ = 0, cluster_step_ = 1,
           serial_ = 0;
  unsigned live_blocks_ = 0;
  unsigned polling_ = 0;
  uint64_t idle_rounds_ = 0, idle_yields_ = 0;  ///< since something else than polling happened
  unsigned turns_left_ = 0;                     ///< of the current warp, before others get theirs
  uint64_t random_state_ = 0;
  unsigned keep_warp_ = 0, keep_block_ = 0;  ///< chances of 256, drawn per launch
  char begin_ = 0, end_ = 0;                 // for the race detector
};

/// Shared memory at the start and the end of a block: memory.cc.
void start_shared_memory(Block& block, size_t dynamic_bytes, bool new_kernel);
void free_shared_memory(Block& block);
/// What a thread or a block that ends must not leave behind.
void check_copies_at_end(Thread& thread);
void check_copies_at_end(Block& block);
/// Nobody may use the shared memory of a block that has ended: others of its cluster might.
void end_shared_memory(Block& block);

/// The thread that runs on the calling thread of the process.
inline Thread& current_thread() { return *static_cast<Thread*>(self); }

}  // namespace simt
