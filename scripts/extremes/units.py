"""Single sequences with feedback, and groups of candidates."""

import random

from exact import PART, Dual, dual, exp, lse, sg, slack, sp
from mpmath import mpf
from pair_batches import COUNTS, LOGPS, REFERENCES

BASELINES = [0, 1e-12, 0.5, 40, 1e6]  # kl; with either sign, shift
SEQUENCES = 80  # of a batch
REWARDS = [-1e300, -1e6, -40, -1, -1e-3, 0, 1e-12, 0.5, 1, 3, 50, 1e4, 1e300]


def ratio(config, sequence, of=0):
    """Its log-ratio, over its length where the config says so; sequence `of` of its unit."""
    reference = 0 if config.get("referenceFree") else sequence["reference"]
    n = sequence["counts"] if config.get("normalize") else 1
    return Dual((mpf(sequence["logps"]) - mpf(reference)) / n, *[0] * of, mpf(1) / n)


def with_moved(numbers):
    """Some numbers; then all of them again with one moved, for each."""
    yield numbers
    for k, x in enumerate(numbers):
        by = PART * (x.value if isinstance(x, Dual) else x)
        yield [*numbers[:k], x + by, *numbers[k + 1 :]]


# Single sequences


def kto(up, r, beta, z):
    return sg((r - z) * beta * (-1 if up else 1))


def apo_zero_unpaired(up, r, beta, _):
    return sg(r * beta * (-1 if up else 1))


def bco(up, r, beta, shift):
    return sp((r * beta - shift) * (-1 if up else 1))


SINGLES = {
    "kto": (kto, "kl"),
    "apo_zero_unpaired": (apo_zero_unpaired, None),
    "bco": (bco, "shift"),
}


def feedback(config, given):
    loss, field = SINGLES[config["method"]]
    baseline = mpf(given.get(field, 0))
    for k, up in enumerate(given["desirable"]):
        sequence = {key: given[key][k] for key in ("logps", "counts", "reference")}
        weight = mpf(config.get("desirableWeight" if up else "undesirableWeight", 1))
        arguments = with_moved([ratio(config, sequence), mpf(config["beta"]), baseline])
        yield [[loss(up, *a) * weight] for a in arguments]


# Groups: each gives its terms


def softmax(xs):
    return [exp(x - max(xs)) / sum(exp(y - max(xs)) for y in xs) for x in xs]


def plackett_luce(u, _):
    return [lse(u[k:]) - u[k] for k in range(len(u) - 1)]


def info_nca(u, y):
    top = max(u, key=lambda x: x.value)
    return [lse(u) - top, sum(((top - x) * share for x, share in zip(u, y)), Dual(0))]


def nca_listwise(u, y):
    up = [sp(-x) * share for x, share in zip(u, y)]
    return up + [sp(x) / len(u) for x in u]


GROUPS = {f.__name__: f for f in (plackett_luce, info_nca, nca_listwise)}


def candidates(config, given):
    for first, end in zip(given["groups"], given["groups"][1:]):
        order = list(range(first, end))
        if "ranks" in given:
            order.sort(key=lambda k: given["ranks"][k])
        one = lambda k: {key: given[key][k] for key in ("logps", "counts", "reference")}
        ratios = [ratio(config, one(k), k - first) for k in order]
        rewards = [mpf(given["rewards"][k]) for k in order] if "rewards" in given else []
        arguments = [*ratios, mpf(config["beta"]), mpf(config.get("rewardTemperature", 1))]
        unit = []
        for *rs, beta, temperature in with_moved(arguments):
            y = softmax([x / temperature for x in rewards]) if rewards else []
            terms = GROUPS[config["method"]]([r * beta for r in rs], y)
            # A group of one has no terms, or none that its candidate moves.
            unit.append([Dual(0, *[0] * (end - first)) + term for term in terms] or [Dual(0, 0)])
        yield unit


# Batches


def draw(config, seed):
    rng = random.Random(seed)
    given = {"logps": [], "counts": [], "reference": []}
    for _ in range(SEQUENCES):
        given["logps"].append(rng.choice(LOGPS))
        given["counts"].append(rng.choice(COUNTS))
        own = rng.random() < 0.3
        given["reference"].append(given["logps"][-1] if own else rng.choice(REFERENCES))
    if config["method"] in SINGLES:
        given["desirable"] = [rng.randrange(2) for _ in range(SEQUENCES)]
        if config["method"] == "kto":
            given["kl"] = BASELINES[seed % len(BASELINES)]
        if config["method"] == "bco":
            given["shift"] = BASELINES[seed % len(BASELINES)] * rng.choice((-1, 1))
        return given
    given["groups"] = [0]
    while given["groups"][-1] < SEQUENCES:
        given["groups"].append(min(SEQUENCES, given["groups"][-1] + rng.choice((1, 2, 2, 3, 5))))
    if config["method"] == "plackett_luce":
        given["ranks"] = []
        for first, end in zip(given["groups"], given["groups"][1:]):
            given["ranks"] += rng.sample(range(end - first), end - first)
    else:
        given["rewards"] = [rng.choice(REWARDS) for _ in range(SEQUENCES)]
    return given


def configs():
    """In an order that new ones are added to at the end: a batch is drawn by its place."""
    for method in (*SINGLES, *GROUPS):
        for beta in (0.1, 1e-300, 1e-3, 8.5, 1e300):
            yield {"method": method, "beta": beta}
        yield {"method": method, "beta": 0.1, "normalize": True}
        if method in SINGLES:
            for weight in (0, 1e-300, 1.33, 1e300):
                yield {"method": method, "beta": 0.1, "desirableWeight": weight}
                yield {"method": method, "beta": 0.1, "undesirableWeight": weight}
        else:
            yield {"method": method, "beta": 0.1, "referenceFree": True}
        if method in ("info_nca", "nca_listwise"):
            for temperature in (1e-300, 0.1, 30, 1e300):
                yield {"method": method, "beta": 2, "rewardTemperature": temperature}


def batches():
    """What the tests read of each config, and its batch."""
    for seed, config in enumerate(configs()):
        given = draw(config, seed)
        units = list((feedback if config["method"] in SINGLES else candidates)(config, given))
        add = lambda terms: sum(terms, dual(0))
        losses, slopes, of_losses, of_slopes = [], [], [], []
        for truth, *moved in units:
            total = add(truth)
            losses.append(total.value)
            slopes += [s / len(units) for s in total.slopes]
            terms = truth if len(truth) > 1 else ()
            size, *sizes = slack(total, [add(m) for m in moved], terms)
            of_losses.append(size)
            of_slopes += sizes
        yield config, given, losses, slopes, [*of_losses, *of_slopes]
