// The list of methods, in the order of the catalogue. Adding one: a file in methods/ that names its
// score, its ranking loss and its description, and a line here.
#pragma once
#include <utility>
#include "group_rankings.h"
#include "pair_rankings.h"
#include "scores.h"
#include "single_rankings.h"

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

#include "objectives/methods/sft.h"
#include "objectives/methods/dpo.h"
#include "objectives/methods/ipo.h"
#include "objectives/methods/simpo.h"
#include "objectives/methods/orpo.h"
#include "objectives/methods/asft.h"
#include "objectives/methods/apo_zero.h"
#include "objectives/methods/nca.h"
#include "objectives/methods/cal_dpo.h"
#include "objectives/methods/hinge.h"
#include "objectives/methods/robust.h"
#include "objectives/methods/exo_pair.h"
#include "objectives/methods/bco_pair.h"
#include "objectives/methods/sppo_hard.h"
#include "objectives/methods/aot.h"
#include "objectives/methods/aot_unpaired.h"
#include "objectives/methods/discopop.h"
#include "objectives/methods/apo_down.h"
#include "objectives/methods/cpo.h"
#include "objectives/methods/alphapo.h"
#include "objectives/methods/r_dpo.h"
#include "objectives/methods/dpop.h"
#include "objectives/methods/kto.h"
#include "objectives/methods/apo_zero_unpaired.h"
#include "objectives/methods/bco.h"
#include "objectives/methods/simper.h"
#include "objectives/methods/plackett_luce.h"
#include "objectives/methods/info_nca.h"
#include "objectives/methods/nca_listwise.h"

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
