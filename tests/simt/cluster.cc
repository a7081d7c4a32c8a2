// Clusters of blocks: their barrier, and the shared memory of other blocks.
#include <cstring>
#include "block.h"
#include "sanitizers.h"

namespace simt {

void cluster_arrive(const char* file, int line) {
  Thread& t = current_thread();
  t.file = file;
  t.line = line;
  Machine::block_of(t).machine->arrive_at_cluster();
}

void cluster_wait(const char* file, int line) {
  Thread& t = current_thread();
  t.file = file;
  t.line = line;
  Machine::block_of(t).machine->wait_for_cluster();
}

void Machine::arrive_at_cluster() {
  Thread& t = *current_;
  Cluster& cluster = *t.warp->block->cluster;
  if (t.arrived_at_cluster)
    fail(t.file, t.line,
         "a thread arrives again at the barrier of its cluster, and has not waited");
  if (t.warp->ended)
    fail(t.file, t.line, "lanes %08x have ended of a warp that is at the barrier of its cluster",
         t.warp->ended);
  if (cluster.arrived == 0) {
    cluster.file = t.file;
    cluster.line = t.line;
  } else if (cluster.line != t.line ||
             (cluster.file != t.file && std::strcmp(cluster.file, t.file))) {
    fail(t.file, t.line, "divergent barrier: threads of the cluster have arrived at %s:%d",
         cluster.file, cluster.line);
  }
  t.arrived_at_cluster = true;
  t.cluster_phase = cluster.phase;
  release(&cluster.order[cluster.phase & 1]);
  if (++cluster.arrived == cluster.live) open_barrier(cluster);
}

void Machine::wait_for_cluster() {
  Thread& t = *current_;
  Cluster& cluster = *t.warp->block->cluster;
  if (!t.arrived_at_cluster)
    fail(t.file, t.line, "a thread waits at the barrier of its cluster, and has not arrived");
  if (t.cluster_phase == cluster.phase) {
    make_waiting(t);
    t.warp->at_cluster |= 1u << t.lane;
    go_on();
  }
  t.arrived_at_cluster = false;
  acquire(&cluster.order[t.cluster_phase & 1]);
}

void Machine::open_barrier(Cluster& cluster) {
  cluster.arrived = 0;
  // Two addresses by turns, as for blocks.
  ++cluster.phase;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    for (Warp& warp : cluster.blocks[rank]->warps) {
      if (!warp.at_cluster) continue;
      make_ready(warp, warp.at_cluster);
      warp.at_cluster = 0;
    }
  }
  idle_rounds_ = idle_yields_ = 0;
}

}  // namespace simt
