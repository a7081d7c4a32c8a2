// The list of methods, in the order of the catalogue. Adding one: a file in methods/ that names its
// score, its ranking loss and its description, and a line here.
#pragma once
#include <utility>
#include "rankings.h"
#include "scores.h"

namespace diralign {

/// MethodAt<i>::type is the method of the i-th file below, which says so itself.
template <int index>
struct MethodAt;
constexpr int first_method = __COUNTER__ + 1;
#define DIRALIGN_METHOD(Method)                 \
  template <>                                   \
  struct MethodAt<__COUNTER__ - first_method> { \
    using type = Method;                        \
  }

}  // namespace diralign

#include "methods/sft.h"
#include "methods/dpo.h"
#include "methods/ipo.h"
#include "methods/simpo.h"
#include "methods/orpo.h"
#include "methods/asft.h"
#include "methods/apo_zero.h"
#include "methods/nca.h"
#include "methods/cal_dpo.h"
#include "methods/hinge.h"
#include "methods/robust.h"
#include "methods/exo_pair.h"
#include "methods/bco_pair.h"
#include "methods/sppo_hard.h"
#include "methods/aot.h"
#include "methods/aot_unpaired.h"
#include "methods/discopop.h"
#include "methods/apo_down.h"
#include "methods/cpo.h"
#include "methods/alphapo.h"
#include "methods/r_dpo.h"
#include "methods/dpop.h"

namespace diralign {

constexpr int methods_listed = __COUNTER__ - first_method;
using MethodIndices = std::make_integer_sequence<int, methods_listed>;

/// Calls `visitor.template operator()<Method>()` for the method at `index`.
template <class Visitor, int... i>
DIRALIGN_HD void visit_method(std::integer_sequence<int, i...>, int index, Visitor&& visitor) {
  (void)((i == index ? (visitor.template operator()<typename MethodAt<i>::type>(), true) : false) ||
         ...);
}
template <class Visitor>
DIRALIGN_HD void visit_method(int index, Visitor&& visitor) {
  visit_method(MethodIndices{}, index, visitor);
}

}  // namespace diralign
