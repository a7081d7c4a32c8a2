"""DPO forward and backward in PyTorch, as trainers write it. Driven by bench/peers/process-peer.mjs.

Arguments: directory, sequences, tokens, vocab, threads, beta, dtype (float32 or bfloat16).
After a first pass it prints one line of JSON; then, for each line "go" on its input, the milliseconds of one pass.
"""

import json
import re
import sys
import time

import torch
import torch.nn.functional as F


def memory(field):
    with open("/proc/self/status") as status:
        return int(re.search(rf"^{field}:\s*(\d+) kB", status.read(), re.M).group(1)) / 1024


def load(directory, name, dtype, *shape):
    count = 1
    for size in shape:
        count *= size
    # A copy, so that no page of it has to be read from the file later.
    return torch.from_file(f"{directory}/{name}", size=count, dtype=dtype).view(*shape).clone()


def main():
    directory, sequences, tokens, vocab, threads, beta, dtype = sys.argv[1:]
    sequences, tokens, vocab, beta = int(sequences), int(tokens), int(vocab), float(beta)
    torch.set_num_threads(int(threads))
    logits = load(directory, "logits", torch.float32, sequences, tokens, vocab).to(getattr(torch, dtype))
    labels = load(directory, "labels", torch.int32, sequences, tokens).long()
    reference = load(directory, "reference", torch.float64, sequences).float()
    logits.requires_grad_()

    def one_pass():
        logits.grad = None
        logp = F.log_softmax(logits.float(), dim=-1)
        token_logps = logp.gather(2, labels.unsqueeze(2)).squeeze(2)
        ratios = token_logps.sum(1) - reference
        chosen, rejected = ratios.chunk(2)
        loss = -F.logsigmoid(beta * (chosen - rejected)).mean()
        loss.backward()
        return loss

    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    loss = one_pass().item()
    extra = memory("VmHWM") - before
    gradient = sum(row.float().abs().sum(dtype=torch.float64).item() for row in logits.grad)
    print(
        json.dumps({"version": f"torch {torch.__version__}", "loss": loss, "gradientSum": gradient, "extraMiB": extra}),
        flush=True,
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        one_pass().item()
        print((time.perf_counter() - start) * 1000, flush=True)


main()
