// Enumerations whose values have names outside C++: one list for both, so that neither can be in an
// order of its own. `src/node/contract.cc` hands the names to TypeScript.
#pragma once

#define DIRALIGN_ENUMERATOR(name) name,
#define DIRALIGN_TEXT(name) #name,
/// LIST(X) is X(first) X(second) ...
#define DIRALIGN_NAMED_ENUM(Enum, names, LIST)   \
  enum class Enum { LIST(DIRALIGN_ENUMERATOR) }; \
  inline constexpr const char* names[] = {LIST(DIRALIGN_TEXT)}
