// The requests of TypeScript as the core has them. Typed arrays are asked of the engine, and must
// hold what the request's numbers say: Refused where one does not.
#pragma once
#include <napi.h>
#include <optional>
#include "contract.h"
#include "jobs/job.h"

namespace diralign {

int64_t integer(Napi::Value value);
inline int64_t integer(const Napi::Object& request, const Property& at) {
  return integer(request.Get(at));
}
/// A copy of so many log-probabilities, of either floating-point type; empty for undefined.
Array<double> doubles(Napi::Value value, const char* name, size_t elements);
inline Array<double> doubles(const Napi::Object& request, const Property& at, size_t elements) {
  return doubles(request.Get(at), at.name, elements);
}

/// Without its fields.
Batch read_batch(const Napi::Object& request);
Array<Objective> read_objectives(const Napi::Object& request);
/// How the sequences of a request with objectives are compared.
Units read_units(Napi::Value groups, const Array<Objective>& objectives, int64_t sequences);
/// Arrays by the names of the fields. `units`: of the request's sequences.
Fields read_fields(Napi::Value value, const Units& units, int64_t rows);
std::optional<OutputLayer> read_layer(Napi::Value value, const Batch& batch);
LossOutputs read_outputs(const Napi::Object& request, const Units& units, size_t objectives);
/// Of a job whose batch and layer were read.
GradientsWanted read_gradients(Napi::Value value, const Job& job);
/// Bit k of the request is the k-th metric of rows.
MeasuresAsked read_measures(const Napi::Object& request);

}  // namespace diralign
