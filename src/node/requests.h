// The requests of TypeScript as the core has them. Typed arrays are asked of the engine, and must
// hold what the request's numbers say: Refused where one does not.
#pragma once
#include <napi.h>
#include <optional>
#include "jobs/job.h"

namespace diralign {

int64_t integer(const Napi::Object& request, const char* name);
/// A copy of so many log-probabilities, of either floating-point type; empty for undefined.
Array<double> doubles(const Napi::Object& request, const char* name, size_t elements);

Batch read_batch(const Napi::Object& request);
Objective read_objective(const Napi::Object& request);
std::optional<OutputLayer> read_layer(Napi::Value value, const Batch& batch);
LayerGradients read_layer_gradients(Napi::Value value, const Job& job);
LossOutputs read_outputs(const Napi::Object& request, const Units& units);
GradientOutput read_gradient(const Napi::Object& request, const Batch& batch);
/// Bit k of the request is the k-th metric of rows.
MeasuresAsked read_measures(const Napi::Object& request);

}  // namespace diralign
