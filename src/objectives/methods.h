// The list of methods. Adding one: a file in methods/ that names its score, its ranking loss and its description, and a line here.
#pragma once
#include "methods/alphapo.h"
#include "methods/aot.h"
#include "methods/aot_unpaired.h"
#include "methods/apo_down.h"
#include "methods/apo_zero.h"
#include "methods/asft.h"
#include "methods/bco_pair.h"
#include "methods/cal_dpo.h"
#include "methods/cpo.h"
#include "methods/discopop.h"
#include "methods/dpo.h"
#include "methods/dpop.h"
#include "methods/exo_pair.h"
#include "methods/hinge.h"
#include "methods/ipo.h"
#include "methods/nca.h"
#include "methods/orpo.h"
#include "methods/r_dpo.h"
#include "methods/robust.h"
#include "methods/sft.h"
#include "methods/simpo.h"
#include "methods/sppo_hard.h"

namespace diralign {

template <class... M>
struct MethodList {
  static constexpr int size = sizeof...(M);
};

using Methods = MethodList<Sft,
                       Dpo,
                       Ipo,
                       Simpo,
                       Orpo,
                       Asft,
                       ApoZero,
                       Nca,
                       CalDpo,
                       Hinge,
                       Robust,
                       ExoPair,
                       BcoPair,
                       SppoHard,
                       Aot,
                       AotUnpaired,
                       Discopop,
                       ApoDown,
                       Cpo,
                       Alphapo,
                       RDpo,
                       Dpop>;

/// Calls `visitor.template operator()<Method>()` for the method at `index`.
template <class Visitor, class... M>
DIRALIGN_HD void visit_method(MethodList<M...>, int index, Visitor&& visitor) {
  int i = 0;
  (void)((i++ == index ? (visitor.template operator()<M>(), true) : false) || ...);
}

}  // namespace diralign
