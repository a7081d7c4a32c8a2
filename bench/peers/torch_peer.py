"""What the PyTorch peers on a CPU share: their arrays come from files, and they take their turns by
lines on their input."""

import json
import re
import sys
import time

import torch


def memory(field):
    with open("/proc/self/status") as status:
        return int(re.search(rf"^{field}:\s*(\d+) kB", status.read(), re.M).group(1)) / 1024


def load(directory, name, dtype, *shape):
    count = 1
    for size in shape:
        count *= size
    # A copy, so that no page of it has to be read from the file later.
    return torch.from_file(f"{directory}/{name}", size=count, dtype=dtype).view(*shape).clone()


def serve(one_pass, gradients):
    """Does the work once and prints one line of JSON: the loss, the sum of the sizes of the last of
    `gradients()`, and how far the resident memory rose, in MiB, with the gradients and without.
    Then, for each line "go" on the input, the milliseconds of one pass."""
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    loss = one_pass().item()
    extra = memory("VmHWM") - before
    own = sum(x.numel() * x.element_size() for x in gradients()) / 2**20
    magnitude = sum(row.float().abs().sum(dtype=torch.float64).item() for row in gradients()[-1])
    answer = {
        "version": f"torch {torch.__version__}",
        "loss": loss,
        "gradientSum": magnitude,
        "extraMiB": extra,
        "temporariesMiB": extra - own,
    }
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        one_pass().item()
        print((time.perf_counter() - start) * 1000, flush=True)
