// What ts/distributed/ is made of.
#pragma once
#include <napi.h>
#include "contract.h"
#include "distributed/parallel.h"

namespace diralign {

/// `NativeDistributed` of ts/native/interface.ts.
Napi::Object distributed_exports(Napi::Env env);

/// The columns that a batch has of a vocabulary: all, where its request has no `parallel`.
std::optional<Shard> read_shard(Napi::Value parallel);
/// Null for undefined. The call has its place in the lines from then on.
std::shared_ptr<Parallel> read_parallel(Napi::Value parallel);
/// Which argument of a job's call it is.
Property parallel_of(const Job& job);
/// Whether a job that has ended has found what its arguments had no room for.
bool has_more(const Job& job);
/// Hands that over.
void deliver(const Job& job, Napi::Value parallel);

/// Waits until it is the call's turn.
void wait_for_turn(Session& session);

}  // namespace diralign
