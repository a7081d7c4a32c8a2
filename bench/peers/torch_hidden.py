"""DPO from hidden states in PyTorch, as trainers write it: logits = hidden @ weight.T, then the
loss and backward through both. Driven by bench/hidden.mjs.

Arguments: directory, sequences, tokens, vocab, hidden size, threads, beta, dtype (float32 or
bfloat16), and "held" or "released": whether the variables of the forward pass stay alive during
backward. What it prints: serve() in torch_peer.py; the gradient that is summed is the weight's.
"""

import sys

import torch
import torch.nn.functional as F
from torch_peer import load, serve


def main():
    directory, sequences, tokens, vocab, size, threads, beta, dtype, intermediates = sys.argv[1:]
    sequences, tokens, vocab, size = int(sequences), int(tokens), int(vocab), int(size)
    beta = float(beta)
    torch.set_num_threads(int(threads))
    kind = getattr(torch, dtype)
    hidden = load(directory, "hidden", torch.float32, sequences, tokens, size)
    hidden = hidden.to(kind).requires_grad_()
    weight = load(directory, "weight", torch.float32, vocab, size).to(kind).requires_grad_()
    labels = load(directory, "labels", torch.int32, sequences, tokens).long()
    reference = load(directory, "reference", torch.float64, sequences).float()

    def forward(held):
        logp = F.log_softmax((hidden @ weight.T).float(), dim=-1)
        held.append(logp)
        token_logps = logp.gather(2, labels.unsqueeze(2)).squeeze(2)
        ratios = token_logps.sum(1) - reference
        chosen, rejected = ratios.chunk(2)
        return -F.logsigmoid(beta * (chosen - rejected)).mean()

    def one_pass():
        hidden.grad = weight.grad = None
        held = []
        loss = forward(held)
        if intermediates == "released":
            held.clear()
        loss.backward()
        return loss

    serve(one_pass, lambda: [hidden.grad, weight.grad])


main()
