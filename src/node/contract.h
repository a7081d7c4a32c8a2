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

// The properties of requests, each a name that has to exist. They come as the arguments of a call:
// the engine hands over all of those at once, where it takes 50 ns to find an element of a list and
// 100 to find a name, and a call has fifty of them. Those of a batch come first, then those of a
// layer, of the gradients, and what only this call has.

/// Which argument a property is, and what messages call it.
struct Property {
  uint32_t index;
  const char* name;
  constexpr operator uint32_t() const { return index; }
  constexpr Property after(uint32_t others) const { return {others + index, name}; }
};
#define DIRALIGN_INDEX(name) name##_index,
#define DIRALIGN_PROPERTY(name) inline constexpr Property name{first + name##_index, #name};
/// After `begin` other arguments; `end`: what comes after these.
#define DIRALIGN_ARGUMENTS(begin, request)               \
  inline constexpr uint32_t first = begin;               \
  enum : uint32_t { request(DIRALIGN_INDEX) own_count }; \
  inline constexpr uint32_t end = first + own_count;     \
  request(DIRALIGN_PROPERTY)
// Of objects.
#define DIRALIGN_NAMED(name) inline constexpr const char* name = #name;

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
DIRALIGN_ARGUMENTS(0, DIRALIGN_BATCH_REQUEST)
}

/// Of a batch that is spread over processes. Out: `begun`, `losses`.
#define DIRALIGN_PARALLEL_REQUEST(X) \
  X(begun)                           \
  X(groups)                          \
  X(first)                           \
  X(words)                           \
  X(columnGrid)                      \
  X(sumsHidden)                      \
  X(nativeWire)                      \
  X(logRatios)                       \
  X(losses)
namespace parallel_request {
DIRALIGN_PARALLEL_REQUEST(DIRALIGN_NAMED)
}

#define DIRALIGN_LAYER_REQUEST(X) \
  X(hidden)                       \
  X(weight)                       \
  X(bias)                         \
  X(hiddenSize)                   \
  X(memory)                       \
  X(memoryUsed)
namespace layer_request {
DIRALIGN_ARGUMENTS(batch_request::end, DIRALIGN_LAYER_REQUEST)
}

#define DIRALIGN_LAYER_GRADIENT_REQUEST(X) X(data) X(accumulate) X(zeroed)
namespace layer_gradient_request {
DIRALIGN_LAYER_GRADIENT_REQUEST(DIRALIGN_NAMED)
}

/// Of losses: what they are, and where their numbers go.
#define DIRALIGN_OBJECTIVE_REQUEST(X) \
  X(methods)                          \
  X(settings)                         \
  X(shares)                           \
  X(losses)                           \
  X(rewards)                          \
  X(coefficients)                     \
  X(metrics)                          \
  X(values)
namespace objective_request {
DIRALIGN_ARGUMENTS(0, DIRALIGN_OBJECTIVE_REQUEST)
}

#define DIRALIGN_GRADIENT_REQUEST(X) \
  X(gradientMode)                    \
  X(gradient)                        \
  X(gradientElements)                \
  X(gradientIsFresh)                 \
  X(gradientScale)                   \
  X(rowScale)                        \
  X(layerGradients)
namespace gradient_request {
DIRALIGN_ARGUMENTS(layer_request::end, DIRALIGN_GRADIENT_REQUEST)
}

#define DIRALIGN_LOSS_REQUEST(X) \
  DIRALIGN_OBJECTIVE_REQUEST(X)  \
  X(reference)                   \
  X(logps)                       \
  X(metricsAsked)
namespace loss_request {
DIRALIGN_ARGUMENTS(gradient_request::end, DIRALIGN_LOSS_REQUEST)
}

#define DIRALIGN_SEQUENCE_LOGPS_REQUEST(X) X(logps)
#define DIRALIGN_TOKEN_LOGPS_REQUEST(X) \
  DIRALIGN_SEQUENCE_LOGPS_REQUEST(X) X(logsumexp) X(entropy) X(collision)
namespace sequence_logps_request {
DIRALIGN_ARGUMENTS(layer_request::end, DIRALIGN_SEQUENCE_LOGPS_REQUEST)
}
namespace token_logps_request {
DIRALIGN_ARGUMENTS(layer_request::end, DIRALIGN_TOKEN_LOGPS_REQUEST)
}

/// `rows`, `sequences`, `entropy`: the derivatives; the three after them: of a forward pass.
#define DIRALIGN_BACKWARD_REQUEST(X) \
  X(rows)                            \
  X(sequences)                       \
  X(entropy)                         \
  X(forwardLogps)                    \
  X(forwardLogsumexp)                \
  X(forwardEntropy)
namespace backward_request {
DIRALIGN_ARGUMENTS(gradient_request::end, DIRALIGN_BACKWARD_REQUEST)
}

#define DIRALIGN_FROM_LOGPS_REQUEST(X) \
  DIRALIGN_OBJECTIVE_REQUEST(X)        \
  X(sequences)                         \
  X(gradLogps)                         \
  X(gradientScale)                     \
  X(logps)                             \
  X(counts)                            \
  X(reference)                         \
  X(groups)                            \
  X(fields)                            \
  X(parallel)
namespace from_logps_request {
DIRALIGN_ARGUMENTS(0, DIRALIGN_FROM_LOGPS_REQUEST)
}

#undef DIRALIGN_ARGUMENTS
#undef DIRALIGN_INDEX
#undef DIRALIGN_PROPERTY
#undef DIRALIGN_NAMED

}  // namespace diralign
