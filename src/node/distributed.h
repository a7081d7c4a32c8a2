// What ts/distributed/ is made of.
#pragma once
#include <napi.h>
#include "distributed/parallel.h"

namespace diralign {

/// `NativeDistributed` of ts/native/interface.ts.
Napi::Object distributed_exports(Napi::Env env);

/// The columns that a batch has of a vocabulary: all, where its request has no `parallel`.
std::optional<Shard> read_shard(Napi::Value parallel);
/// Null for undefined. The call has its place in the lines from then on.
std::shared_ptr<Parallel> read_parallel(Napi::Value parallel);
/// Of a request with a batch.
Napi::Value parallel_of(const Napi::Object& request);
/// Hands over what a job that has ended has found, and its request had no room for.
void deliver(const Job& job, const Napi::Object& request);

/// Waits until it is the call's turn.
void wait_for_turn(Session& session);

}  // namespace diralign
