// Copies between global and shared memory that end some time after they were issued. Here they
// happen as late as the hardware may perform them, at the wait, so that a missing wait shows; with
// a random schedule some happen at once, so that a copy into a buffer still in use shows as well.
// What other threads see of them is theirs to order, as on the device.
#pragma once
#include <cstddef>
#include <cstdint>
#include "execution.h"

namespace simt {

/// cp.async: 4, 8 or 16 bytes into shared memory, both addresses aligned to that; `source_bytes`
/// are read, the rest becomes zero.
void copy_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes, SIMT_SITE);
inline void copy_async16(void* shared, const void* global, SIMT_SITE) {
  copy_async(shared, global, 16, 16, file, line);
}
/// cp.async.commit_group: the calling thread's copies since the last one become a group.
void copy_async_commit();
/// cp.async.wait_group: until at most `pending` of the calling thread's latest groups are under
/// way.
void copy_async_wait(unsigned pending);
template <unsigned pending>
void copy_async_wait() {
  copy_async_wait(pending);
}
/// cp.async.wait_all: committed or not.
void copy_async_wait_all();

/// An mbarrier in shared memory. A phase ends when `count` threads have arrived and all bytes that
/// they expect were copied.
using Mbarrier = uint64_t;
void mbarrier_init(Mbarrier* barrier, unsigned count, SIMT_SITE);
void mbarrier_arrive(Mbarrier* barrier, SIMT_SITE);
void mbarrier_arrive_expect_tx(Mbarrier* barrier, unsigned bytes, SIMT_SITE);
void mbarrier_expect_tx(Mbarrier* barrier, unsigned bytes, SIMT_SITE);
/// Whether the phase of this parity, 0 for the first, has ended; does not wait.
bool mbarrier_test_wait(Mbarrier* barrier, unsigned parity, SIMT_SITE);
void mbarrier_wait(Mbarrier* barrier, unsigned parity, SIMT_SITE);

/// cp.async.bulk from global to shared memory; counts towards the bytes of the barrier's phase.
/// Addresses and size are multiples of 16.
void bulk_copy_to_shared(void* shared, const void* global, unsigned bytes, Mbarrier* barrier,
                         SIMT_SITE);
/// st.async: 4, 8 or 16 bytes, at an address aligned to that, into the shared memory of a block of
/// the cluster; counts towards the bytes of the phase of a barrier of that block.
void store_async(void* shared, const void* value, unsigned bytes, Mbarrier* barrier, SIMT_SITE);
/// cp.async.bulk from shared to global memory, in the calling thread's bulk group.
void bulk_copy_to_global(void* global, const void* shared, unsigned bytes, SIMT_SITE);
void bulk_commit();
/// Until at most `pending` of the latest groups are under way; `read`: until their sources were
/// read, no more.
void bulk_wait(unsigned pending);
void bulk_wait_read(unsigned pending);

}  // namespace simt
