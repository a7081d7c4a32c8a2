"""Every pairwise objective, a function of two sequences."""

import mpmath
from exact import PART, Dual, dexp, log_odds, relu, saturating, sg, sp
from mpmath import mpf


class Side:
    """A sequence: log-ratio r and log-probability a, as `normalize` has them, and its length."""

    def __init__(self, logp, reference, count, normalize, chosen):
        n = count if normalize else 1
        seed = (mpf(1) / n, 0) if chosen else (0, mpf(1) / n)
        self.r = Dual((mpf(logp) - mpf(reference)) / n, *seed)
        self.a = Dual(mpf(logp) / n, *seed)
        self.length = count


def smoothed(u, e):
    return sp(-u) * (1 - mpf(e)) + sp(u) * e


def divergence(o):
    kind = o.get("divergence", "reverse_kl")
    if kind == "reverse_kl":
        return lambda r: r
    if kind == "forward_kl":
        return lambda r: -dexp(-r)
    if kind == "js":
        return lambda r: -sp(-r)
    return lambda r: saturating(r, mpf(o.get("alpha", 0.5)))


def calibration(w, l, beta):
    t = 1 / (2 * beta)
    return (w.r - t) * (w.r - t) + (l.r + t) * (l.r + t)


def dpo(w, l, beta, o):
    s = divergence(o)
    return smoothed((s(w.r) - s(l.r)) * beta, o.get("labelSmoothing", 0))


def ipo(w, l, beta, o):
    d = w.r - l.r - 1 / (2 * beta)
    return d * d


def simpo(w, l, beta, o):
    return smoothed((w.a - l.a) * beta - mpf(o.get("gamma", 0.5)), o.get("labelSmoothing", 0))


def orpo(w, l, beta, o):
    return sp((log_odds(w.a) - log_odds(l.a)) * -beta) * o.get("lambda", 1)


def asft(w, l, beta, o):
    return (sp(log_odds(w.a) * -beta) + sp(log_odds(l.a) * beta)) * o.get("lambda", 1)


def apo_zero(w, l, beta, o):
    return sg(w.r * -beta) + sg(l.r * beta)


def nca(w, l, beta, o):
    return sp(w.r * -beta) + (sp(w.r * beta) + sp(l.r * beta)) / 2


def cal_dpo(w, l, beta, o):
    return sp(l.r - w.r) + calibration(w, l, beta) * o.get("calibrationWeight", 1)


def hinge(w, l, beta, o):
    return relu(Dual(1) - (w.r - l.r) * beta)


def robust(w, l, beta, o):
    e, u = mpf(o.get("labelSmoothing", 0.1)), (w.r - l.r) * beta
    return (sp(-u) * (1 - e) - sp(u) * e) / (1 - 2 * e)


def exo_pair(w, l, beta, o):
    e, u = mpf(o.get("labelSmoothing", 0.001)), (w.r - l.r) * beta
    return sg(u) * (-sp(-u) - mpmath.log(1 - e)) + sg(-u) * (-sp(u) - mpmath.log(e))


def bco_pair(w, l, beta, o):
    return sp(w.r * -beta) + sp(l.r * beta)


def sppo_hard(w, l, beta, o):
    return calibration(w, l, beta)


def discopop(w, l, beta, o):
    u, tau = (w.r - l.r) * beta, mpf(o.get("tau", 0.05))
    return sg(u / -tau) * sp(-u) + sg(u / tau) * dexp(-u)


def apo_down(w, l, beta, o):
    return sg(w.r * beta) + sg((l.r - w.r) * beta)


def cpo(w, l, beta, o):
    return smoothed((w.a - l.a) * beta, o.get("labelSmoothing", 0))


def alphapo(w, l, beta, o):
    alpha = mpf(o.get("alpha", 0.25))
    u = (saturating(w.a, alpha) - saturating(l.a, alpha)) * beta - mpf(o.get("gamma", 0.5))
    return smoothed(u, o.get("labelSmoothing", 0))


def r_dpo(w, l, beta, o):
    return sp((w.r - l.r) * -beta - mpf(o.get("alpha", 0.05)) * (w.length - l.length))


def simper(w, l, beta, o):
    return dexp(l.a) - dexp(w.a)


def dpop(w, l, beta, o):
    return sp((w.r - l.r - relu(-w.r) * o.get("penalty", 50)) * -beta)


PAIRS = {
    f.__name__: f
    for f in (
        dpo,
        ipo,
        simpo,
        orpo,
        asft,
        apo_zero,
        nca,
        cal_dpo,
        hinge,
        robust,
        exo_pair,
        bco_pair,
        sppo_hard,
        discopop,
    )
}
PAIRS.update({f.__name__: f for f in (apo_down, cpo, alphapo, r_dpo, dpop, simper)})
COUPLED = ("aot", "aot_unpaired")
NORMALIZED = ("sft", "simpo", "orpo", "asft", "alphapo", "simper")
REFERENCE = tuple(
    m for m in (*PAIRS, *COUPLED) if m not in NORMALIZED and m != "cpo"
)


def normalizes(config):
    return config.get("normalize", config["method"] in NORMALIZED)


def uses_reference(config):
    return config["method"] in REFERENCE and not config.get("referenceFree", False)


def sides(config, pair, change=()):
    """The two sequences; `change` moves a log-ratio, by the amounts (chosen, rejected)."""
    made = []
    for k, chosen in ((0, True), (1, False)):
        reference = pair["reference"][k] if uses_reference(config) else 0
        side = Side(pair["logps"][k], reference, pair["counts"][k], normalizes(config), chosen)
        if change:
            side.r, side.a = side.r + change[k], side.a + change[k]
        made.append(side)
    return made


def evaluate(config, pair, change=()):
    w, l = sides(config, pair, change)
    return PAIRS[config["method"]](w, l, mpf(config.get("beta", 1)), config)


# What rounding the arguments does to a value


def is_exponential(config):
    kind = config["method"] == "alphapo" or config.get("divergence") in ("forward_kl", "alpha")
    return kind and config.get("alpha") != 0


def moved(config, pair):
    """Evaluations with one argument of the float64 computation each moved by a part in 10^30."""
    w, l = (s.r.value if uses_reference(config) else s.a.value for s in sides(config, pair))
    changes = [(PART * w, 0), (0, PART * l)]
    equal_counts = pair["counts"][0] == pair["counts"][1]
    if is_exponential(config) and (equal_counts or not normalizes(config)):
        # The margin of an exponential score is exact before it is rounded, and so are the ratios.
        changes = [(PART * (w - l), 0), (PART * w, PART * w), (PART * l, PART * l)]
    yield from (evaluate(config, pair, change) for change in changes)
    for name in ("beta", "labelSmoothing"):
        if name in config:
            yield evaluate({**config, name: config[name] * (1 + PART)}, pair)
