// The requests of TypeScript as the core has them. Typed arrays are asked of the engine, and must
// hold what the request's numbers say: Refused where one does not.
#pragma once
#include <napi.h>
#include <optional>
#include "contract.h"
#include "jobs/job.h"

namespace diralign {

/// The arguments of a call, by the properties of its request.
using Request = Napi::CallbackInfo;

int64_t integer(Napi::Value value);
inline int64_t integer(const Request& request, const Property& at) { return integer(request[at]); }
/// A copy of so many log-probabilities, of either floating-point type; empty for undefined.
Array<double> doubles(Napi::Value value, const char* name, size_t elements);
inline Array<double> doubles(const Request& request, const Property& at, size_t elements) {
  return doubles(request[at], at.name, elements);
}

/// The caller's own where they are of float64, unless `copies`.
GivenNumbers given_numbers(const Request& request, const Property& at, size_t elements,
                           bool copies);

/// Without its fields.
Batch read_batch(const Request& request);
/// `first`: where objectives begin among the arguments.
Array<Objective> read_objectives(const Request& request, uint32_t first);
/// How the sequences of a request with objectives are compared.
Units read_units(Napi::Value groups, const Array<Objective>& objectives, int64_t sequences);
/// Of a list: the place of each field that is there, and its array. `units`: of the request's
/// sequences.
Fields read_fields(Napi::Value value, const Units& units, int64_t rows);
std::optional<OutputLayer> read_layer(const Request& request, const Batch& batch);
LossOutputs read_outputs(const Request& request, uint32_t first, const Units& units,
                         size_t objectives);
/// Of a job whose batch and layer were read.
GradientsWanted read_gradients(const Request& request, const Job& job);
/// Bit k of the request is the k-th metric of rows.
MeasuresAsked read_measures(const Request& request);

}  // namespace diralign
