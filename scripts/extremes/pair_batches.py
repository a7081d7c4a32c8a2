"""Batches of pairs: what is computed of them, and the options and numbers they are drawn from."""

import random

from exact import PART, Dual, slack
from mpmath import mpf
from pairs import COUPLED, PAIRS, REFERENCE, evaluate, moved, normalizes, sides, smoothed

LOGPS = [0, -1e-300, -1e-12, -1e-3, -1, -50, -300, -700, -710, -745, -750, -1e3, -1e4, -1e6]
REFERENCES = [0, -1e-12, -1, -50, -700, -1000, -1e6]
COUNTS = [1, 2, 3, 400]


def grid(seed, size, least):
    """Pairs of log-probabilities, each combination in one config or another; the reference is often
    that of a policy not yet moved. Nothing is nearer to 0 than `least`."""
    rng = random.Random(seed)
    beyond = lambda values: [x for x in values if x == 0 or x <= -least]
    logps, references = beyond(LOGPS), beyond(REFERENCES)
    combinations = [(w, l) for w in logps for l in logps]
    rng.shuffle(combinations)
    pairs = []
    for w, l in combinations[:size]:
        reference = [rng.choice(references), rng.choice(references)]
        if rng.random() < 0.3:
            reference[0] = w
        if rng.random() < 0.2:
            reference[1] = l
        counts = (
            [rng.choice(COUNTS), rng.choice(COUNTS)]
            if rng.random() < 0.5
            else [rng.choice(COUNTS)] * 2
        )
        pairs.append({"logps": [w, l], "reference": reference, "counts": counts})
    return pairs


def coupled(config, pairs):
    """Losses, derivatives and slacks by rank: the i-th smallest of one list is set against the i-th
    smallest of another; of equal numbers the first in the batch comes first."""
    both = [sides(config, pair) for pair in pairs]
    beta, e = mpf(config["beta"]), config.get("labelSmoothing", 0)
    if config["method"] == "aot":
        upper = [w.a - l.a for w, l in both]
        lower = [Dual((w.a - w.r).value - (l.a - l.r).value) for w, l in both]
        sizes = [
            abs(w.a.value) + abs(l.a.value) + abs((w.a - w.r).value) + abs((l.a - l.r).value)
            for w, l in both
        ]
    else:
        upper, lower = [w.r for w, _ in both], [l.r for _, l in both]
        sizes = [abs(w.r.value) + abs(l.r.value) for w, l in both]
    order = lambda values: sorted(range(len(values)), key=lambda i: (values[i].value, i))
    count = len(pairs)
    losses, chosen, rejected, slacks = [], [0] * count, [0] * count, [0] * (3 * count)
    for rank, (i, j) in enumerate(zip(order(upper), order(lower))):
        term = lambda by: smoothed((upper[i] - lower[j] + by) * beta, e)
        loss, of_rejected = term(0), i if config["method"] == "aot" else j
        losses.append(loss.value)
        chosen[i], rejected[of_rejected] = loss.slope(0), loss.slope(1)
        slacks[rank], slacks[count + i], slacks[2 * count + of_rejected] = slack(
            loss, [term(PART * (sizes[i] + sizes[j]))]
        )
    return losses, chosen, rejected, slacks


def batch(config, pairs):
    """Losses, derivatives of the chosen and of the rejected, and the slack of all in this order."""
    count, tokens = len(pairs), sum(p["counts"][0] for p in pairs)
    by_token = config.get("sftReduction") == "token"
    share = lambda p: (
        mpf(count) / tokens if by_token else mpf(1) / (p["counts"][0] if normalizes(config) else 1)
    )
    if config["method"] == "sft":
        return (
            [-mpf(p["logps"][0]) * share(p) for p in pairs],
            [-share(p) / count for p in pairs],
            [],
            [0] * (2 * count),
        )
    if config["method"] in COUPLED:
        losses, chosen, rejected, slacks = coupled(config, pairs)
    else:
        truths = [evaluate(config, pair) for pair in pairs]
        losses = [t.value for t in truths]
        chosen, rejected = ([t.slope(k) for t in truths] for k in (0, 1))
        each = [slack(truth, moved(config, pair)) for pair, truth in zip(pairs, truths)]
        slacks = [s[k] for k in range(3) for s in each]
    weight = config.get("sftWeight", 0)
    nll = [-mpf(p["logps"][0]) * share(p) for p in pairs]
    if by_token:
        nll = [sum(nll) / count] * count
    losses = [loss + weight * term for loss, term in zip(losses, nll)]
    chosen = [(c - weight * share(p)) / count for c, p in zip(chosen, pairs)]
    return losses, chosen, [c / count for c in rejected], slacks


def configs():
    """In an order that new ones are added to at the end: a batch is drawn by its place."""
    for normalize in (True, False):
        yield {"method": "sft", "normalize": normalize}
    yield {"method": "sft", "sftReduction": "token"}
    for method in (m for m in (*PAIRS, *COUPLED) if m != "simper"):
        base = {"method": method, "beta": 0.1}
        yield base
        yield {**base, "normalize": not normalizes(base)}
        yield {**base, "sftWeight": 0.5}
        yield {**base, "sftWeight": 0.5, "sftReduction": "token", "normalize": True}
        if method in REFERENCE:
            yield {**base, "referenceFree": True}
        for beta in (1e-300, 1e-3, 8.5, 1e300):
            yield {**base, "beta": beta}
    for e in (0, 0.2, 0.4):
        for method in ("dpo", "simpo", "cpo", "aot", "aot_unpaired", "alphapo"):
            yield {"method": method, "beta": 0.1, "labelSmoothing": e}
    for kind, alphas in (
        ("forward_kl", [None]),
        ("js", [None]),
        ("alpha", [-2, -1, -0.5, 0, 0.5, 1, 2]),
    ):
        for alpha in alphas:
            base = {
                "method": "dpo",
                "divergence": kind,
                **({} if alpha is None else {"alpha": alpha}),
            }
            for beta in (1e-300, 0.01, 0.1, 2, 1e300):
                yield {**base, "beta": beta}
            yield {**base, "beta": 0.1, "labelSmoothing": 0.2}
            yield {**base, "beta": 0.1, "normalize": True}
            yield {**base, "beta": 0.1, "referenceFree": True, "sftWeight": 1}
    for alpha in (-2, -1, -0.5, 0, 0.5, 1, 2):
        for normalize in (True, False):
            yield {"method": "alphapo", "beta": 2, "alpha": alpha, "normalize": normalize}
        yield {
            "method": "alphapo",
            "beta": 0.1,
            "alpha": alpha,
            "gamma": 3,
            "labelSmoothing": 0.2,
            "normalize": False,
        }
    for method in ("orpo", "asft"):
        for weight in (0, 0.25):
            yield {"method": method, "beta": 0.3, "lambda": weight, "sftWeight": 1}
    for weight in (0, 0.5):
        for beta in (0.1, 1e-300):
            yield {"method": "cal_dpo", "beta": beta, "calibrationWeight": weight}
    for e in (0, 0.4):
        yield {"method": "robust", "beta": 0.1, "labelSmoothing": e}
    yield {"method": "exo_pair", "beta": 0.1, "labelSmoothing": 0.3}
    for tau in (1e-300, 1e-3, 0.5, 1, 2, 1e300):
        yield {"method": "discopop", "beta": 0.1, "tau": tau}
    for penalty in (0, 5, 1e300):
        yield {"method": "dpop", "beta": 0.1, "penalty": penalty}
    for alpha in (0, -3, 1e300):
        yield {"method": "r_dpo", "beta": 0.1, "alpha": alpha}
    for normalize in (True, False):
        yield {"method": "simper", "normalize": normalize}
    yield {"method": "simper", "sftWeight": 0.5, "sftReduction": "token"}


def batches():
    """What the tests read of each config, and its batch."""
    for seed, config in enumerate(configs()):
        plain = set(config) <= {"method", "beta", "divergence"} and config.get("beta") == 0.1
        size = 196 if plain else 40
        # For the coupled methods, numbers that float64 rounds to one would be in another order.
        pairs = grid(seed, size, 1e-3 if config["method"] in COUPLED else 0)
        losses, chosen, rejected, slacks = batch(config, pairs)
        sft = config["method"] == "sft"
        flat = lambda key: [p[key][0] for p in pairs] + ([] if sft else [p[key][1] for p in pairs])
        given = {key: flat(key) for key in ("logps", "counts", "reference")}
        yield config, given, losses, (*chosen, *rejected), slacks
