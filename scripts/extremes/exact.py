"""Numbers of 400 digits whose exponents have no end, and dual numbers of them.

Derivatives come from dual numbers, so no slope is derived by hand, and nothing overflows or
underflows before a result is rounded to a float64.
"""

import itertools
import math

import mpmath
from mpmath import mpf

mpmath.mp.dps = 400  # -1e-300 beside -1e6, and 60 digits more
HUGE = mpf(10) ** 5000000
PART = mpf(10) ** -30  # by which `slack` moves an argument


def exp(x):
    """e^x. Past +-1e7 it only has to be larger, or smaller, than anything it meets."""
    return HUGE if x > 10**7 else mpf(0) if x < -(10**7) else mpmath.exp(x)


def log1p(x):
    return x - x * x / 2 if abs(x) < mpf(2) ** -1400 else mpmath.log(1 + x)


def logistic(x):
    if x >= 0:
        return 1 / (1 + exp(-x))
    e = exp(x)
    return e / (1 + e)


class Dual:
    """A value, and its derivatives by the log-probabilities of a unit's sequences: by the chosen
    and the rejected of a pair. Those that are left out are 0."""

    def __init__(self, value, *slopes):
        self.value, self.slopes = mpf(value), tuple(mpf(s) for s in slopes)

    def slope(self, k):
        return self.slopes[k] if k < len(self.slopes) else mpf(0)

    def map(self, value, slope):
        return Dual(value, *(s * slope for s in self.slopes))

    def __add__(self, other):
        other = dual(other)
        both = itertools.zip_longest(self.slopes, other.slopes, fillvalue=mpf(0))
        return Dual(self.value + other.value, *(a + b for a, b in both))

    def __mul__(self, other):
        other = dual(other)
        both = itertools.zip_longest(self.slopes, other.slopes, fillvalue=mpf(0))
        return Dual(
            self.value * other.value, *(a * other.value + self.value * b for a, b in both)
        )

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -dual(other)

    def __truediv__(self, number):
        return self.map(self.value / number, 1 / mpf(number))

    __radd__ = __add__
    __rmul__ = __mul__


def dual(x):
    return x if isinstance(x, Dual) else Dual(x)


def sg(x):
    return x.map(logistic(x.value), logistic(x.value) * logistic(-x.value))


def sp(x):
    return x.map(max(x.value, 0) + log1p(exp(-abs(x.value))), logistic(x.value))


def dexp(x):
    e = exp(x.value)
    return x.map(e, e)


def relu(x):
    return x if x.value > 0 else x.map(0, 0)


def log_odds(a):
    """a - log(1 - e^a). Above -1e-37 it and its derivative are those of -1e-37: docs/methods.md."""
    at = min(a.value, mpf(-1e-37))
    return a.map(
        at - mpmath.log(-mpmath.expm1(at)) if at > -1000 else at - log1p(-exp(at)),
        -1 / mpmath.expm1(at),
    )


def saturating(x, alpha):
    return x if alpha == 0 else (Dual(1) - dexp(x * -alpha)) / alpha


def lse(xs):
    """log of the sum of e^x, and softmax(x), its derivatives."""
    top = max(x.value for x in xs)
    shares = [exp(x.value - top) for x in xs]
    everything = sum(shares)
    # The largest entry's 1 is left to log1p, for the digits of what the others add to it.
    rest = sum(sorted(shares)[:-1])
    return sum(
        (x.map(0, share / everything) for x, share in zip(xs, shares)), Dual(top + log1p(rest))
    )


def slack(truth, others, terms=()):
    """How far off rounding leaves a value and its derivatives: the logarithms to base 2 of that
    many units in the last place. `others` are evaluations with an argument of the float64
    computation moved by PART each; `terms` are what is added up, rounded before it is."""
    parts = lambda x: [x.value, *(x.slope(k) for k in range(len(truth.slopes)))]
    sizes = [mpf(0)] * (1 + len(truth.slopes))
    for other in others:
        for k, (a, b) in enumerate(zip(parts(truth), parts(other))):
            sizes[k] += abs(a - b) / abs(a) / PART if a else 0
    for term in terms:
        for k, (a, b) in enumerate(zip(parts(truth), parts(term))):
            sizes[k] += abs(b) / abs(a) if a else 0
    return [min(60, max(0, math.ceil(float(mpmath.log(1 + size, 2))))) for size in sizes]


def number(x):
    """The nearest float64, as JSON has it; infinities by name."""
    x = float(x)
    return x if math.isfinite(x) else "Infinity" if x > 0 else "-Infinity"
