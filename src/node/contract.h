// Everything that crosses the border to TypeScript and is not a function: names, their order, the
// descriptions of methods, and the properties of requests. `npm run generate` makes
// ts/contract.generated.ts of it.
#pragma once
#include <cstdint>
#include <string>

namespace diralign {

/// As JSON.
const std::string& contract_json();
/// A hash of it: an addon and a package that differ in it would misunderstand each other.
const std::string& contract_hash();

// The properties of requests, each a name that has to exist.
#define DIRALIGN_PROPERTY(name) inline constexpr const char* name = #name;

#define DIRALIGN_BATCH_REQUEST(X) \
  X(target)                       \
  X(device)                       \
  X(stream)                       \
  X(logits)                       \
  X(dtype)                        \
  X(rows)                         \
  X(vocab)                        \
  X(rowStride)                    \
  X(sequences)                    \
  X(offsets)                      \
  X(labels)                       \
  X(sftLabels)                    \
  X(groups)                       \
  X(fields)                       \
  X(logitScale)                   \
  X(logitSoftcap)                 \
  X(temperature)                  \
  X(ignoreIndex)                  \
  X(threads)                      \
  X(parallel)                     \
  X(counts)
namespace batch_request {
DIRALIGN_BATCH_REQUEST(DIRALIGN_PROPERTY)
}

/// Of a batch that is spread over processes. Out: `begun`, `losses`.
#define DIRALIGN_PARALLEL_REQUEST(X) \
  X(begun)                           \
  X(groups)                          \
  X(first)                           \
  X(words)                           \
  X(columnGrid)                      \
  X(sumsHidden)                      \
  X(logRatios)                       \
  X(losses)
namespace parallel_request {
DIRALIGN_PARALLEL_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_LAYER_REQUEST(X) \
  X(hidden)                       \
  X(weight)                       \
  X(bias)                         \
  X(hiddenSize)                   \
  X(memory)                       \
  X(memoryUsed)
namespace layer_request {
DIRALIGN_LAYER_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_LAYER_GRADIENT_REQUEST(X) X(data) X(accumulate) X(zeroed)
namespace layer_gradient_request {
DIRALIGN_LAYER_GRADIENT_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_OBJECTIVE_REQUEST(X) X(methods) X(settings) X(shares)
#define DIRALIGN_OUTPUTS_REQUEST(X) X(losses) X(rewards) X(coefficients) X(metrics) X(values)
#define DIRALIGN_GRADIENT_REQUEST(X) \
  X(gradientMode)                    \
  X(gradient)                        \
  X(gradientElements)                \
  X(gradientIsFresh)                 \
  X(gradientScale)                   \
  X(rowScale)                        \
  X(layerGradients)
namespace gradient_request {
DIRALIGN_GRADIENT_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_LOSS_REQUEST(X) \
  DIRALIGN_OBJECTIVE_REQUEST(X)  \
  DIRALIGN_OUTPUTS_REQUEST(X)    \
  X(batch)                       \
  X(reference)                   \
  X(logps)                       \
  X(metricsAsked)                \
  X(layer)                       \
  X(gradients)
namespace loss_request {
DIRALIGN_LOSS_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_SEQUENCE_LOGPS_REQUEST(X) X(batch) X(layer) X(logps)
#define DIRALIGN_TOKEN_LOGPS_REQUEST(X) \
  X(batch) X(layer) X(logps) X(logsumexp) X(entropy) X(collision)
namespace logps_request {
DIRALIGN_TOKEN_LOGPS_REQUEST(DIRALIGN_PROPERTY)
}

/// `rows`, `sequences`, `entropy`: the derivatives; the three after them: of a forward pass.
#define DIRALIGN_BACKWARD_REQUEST(X) \
  X(batch)                           \
  X(rows)                            \
  X(sequences)                       \
  X(entropy)                         \
  X(forwardLogps)                    \
  X(forwardLogsumexp)                \
  X(forwardEntropy)                  \
  X(layer)                           \
  X(gradients)
namespace backward_request {
DIRALIGN_BACKWARD_REQUEST(DIRALIGN_PROPERTY)
}

#define DIRALIGN_FROM_LOGPS_REQUEST(X) \
  DIRALIGN_OBJECTIVE_REQUEST(X)        \
  DIRALIGN_OUTPUTS_REQUEST(X)          \
  X(sequences)                         \
  X(logps)                             \
  X(counts)                            \
  X(reference)                         \
  X(groups)                            \
  X(fields)                            \
  X(gradLogps)                         \
  X(gradientScale)
namespace from_logps_request {
DIRALIGN_FROM_LOGPS_REQUEST(DIRALIGN_PROPERTY)
}

#undef DIRALIGN_PROPERTY

}  // namespace diralign
