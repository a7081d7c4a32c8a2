"""DPO from hidden states in PyTorch, as trainers write it: logits = hidden @ weight.T, then the loss and backward through both.
Driven by bench/hidden.mjs.

Arguments: directory, sequences, tokens, vocab, hidden size, threads, beta, dtype (float32 or bfloat16).
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
    directory, sequences, tokens, vocab, size, threads, beta, dtype = sys.argv[1:]
    sequences, tokens, vocab, size, beta = int(sequences), int(tokens), int(vocab), int(size), float(beta)
    torch.set_num_threads(int(threads))
    hidden = load(directory, "hidden", torch.float32, sequences, tokens, size).to(getattr(torch, dtype)).requires_grad_()
    weight = load(directory, "weight", torch.float32, vocab, size).to(getattr(torch, dtype)).requires_grad_()
    labels = load(directory, "labels", torch.int32, sequences, tokens).long()
    reference = load(directory, "reference", torch.float64, sequences).float()

    def one_pass():
        hidden.grad = weight.grad = None
        logp = F.log_softmax((hidden @ weight.T).float(), dim=-1)
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
    gradients = sum(x.grad.numel() * x.grad.element_size() for x in (hidden, weight)) / 2**20
    answer = {
        "version": f"torch {torch.__version__}",
        "loss": loss,
        "gradientSum": weight.grad.double().abs().sum().item(),
        "temporariesMiB": memory("VmHWM") - before - gradients,
    }
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        one_pass().item()
        print((time.perf_counter() - start) * 1000, flush=True)


main()
