#!/usr/bin/env python3
"""Writes tests/fixtures/extremes.json.gz: every method at the ends of its range, from mpmath.

    python3 -m pip install mpmath
    python3 scripts/extremes

Every objective is written down here once more, from its source, in numbers of 400 digits: pairs.py
has those of pairs (pair_batches.py what is computed of them), units.py those of single sequences
and of groups.
tests/objectives/extremes.test.ts holds the package to them.

A value can be no better than the rounding of what it is computed from: float64 log-ratios, beta and
so on. `slack` says how far a change of each of those by one part in 2^52 moves the value.
"""

import gzip
import itertools
import json
import pathlib

import pair_batches
import units
from exact import number

TARGET = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/extremes.json.gz"


def main():
    written = []
    batches = itertools.chain(pair_batches.batches(), units.batches())
    for config, given, losses, slopes, slack in batches:
        written.append(
            {
                "config": config,
                **given,
                "losses": [number(x) for x in losses],
                "gradLogps": [number(x) for x in slopes],
                "slack": slack,
            }
        )
    text = json.dumps(written, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]")
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    count = sum(len(c["losses"]) for c in written)
    print(f"{len(written)} configs, {count} units, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
