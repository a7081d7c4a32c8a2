"""DPO forward and backward in PyTorch, as trainers write it. Driven by
bench/peers/process-peer.mjs.

Arguments: directory, sequences, tokens, vocab, threads, beta, dtype (float32 or bfloat16). What it
prints: serve() in torch_peer.py.
"""

import sys

import torch
import torch.nn.functional as F
from torch_peer import load, serve


def main():
    directory, sequences, tokens, vocab, threads, beta, dtype = sys.argv[1:]
    sequences, tokens, vocab, beta = int(sequences), int(tokens), int(vocab), float(beta)
    torch.set_num_threads(int(threads))
    logits = load(directory, "logits", torch.float32, sequences, tokens, vocab)
    logits = logits.to(getattr(torch, dtype)).requires_grad_()
    labels = load(directory, "labels", torch.int32, sequences, tokens).long()
    reference = load(directory, "reference", torch.float64, sequences).float()

    def one_pass():
        logits.grad = None
        logp = F.log_softmax(logits.float(), dim=-1)
        token_logps = logp.gather(2, labels.unsqueeze(2)).squeeze(2)
        ratios = token_logps.sum(1) - reference
        chosen, rejected = ratios.chunk(2)
        loss = -F.logsigmoid(beta * (chosen - rejected)).mean()
        loss.backward()
        return loss

    serve(one_pass, lambda: [logits.grad])


main()
