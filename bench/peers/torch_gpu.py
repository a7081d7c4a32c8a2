"""DPO loss and gradient on a CUDA device in PyTorch, alone and with kernels of other packages, as trainers write it.

    torch_gpu.py --list                     which peers are installed, as JSON
    torch_gpu.py --table [--shape S,T,V]    medians of all of them on random data, by itself
    torch_gpu.py --peer NAME --directory D --shape S,T,V --dtype T --beta B

The last is driven by bench/gpu/peers.mjs: D holds `block` (64 rows of logits, which the batch repeats), `labels` (int32) and
`reference` (float64). It does the work once and prints a line of JSON; then, for each line "device" or "wall" on its input, it does
it again and prints {"ms": milliseconds} by CUDA events or by the clock.
"""

import argparse
import importlib
import json
import statistics
import sys
import time

DISTINCT_ROWS = 64


def dpo_loss(token_logps, mask, reference, beta):
    """Mean over pairs; the first half of the sequences are the chosen."""
    import torch.nn.functional as F

    ratios = (token_logps * mask).sum(1) - reference
    chosen, rejected = ratios.chunk(2)
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def eager_loss(logits, labels, reference, beta):
    """In float32, which is what it takes for the same accuracy."""
    mask = labels != -100
    logps = logits.float().log_softmax(-1)
    token_logps = logps.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
    return dpo_loss(token_logps, mask, reference, beta)


def compiled():
    import torch

    return torch.compile(eager_loss, dynamic=False)


def from_cross_entropy(cross_entropy):
    """A kernel for the cross-entropy of rows gives their negative log-probabilities, 0 where ignored."""

    def loss(logits, labels, reference, beta):
        rows = logits.view(-1, logits.shape[-1])
        token_logps = -cross_entropy(rows, labels.reshape(-1)).float().view(labels.shape)
        return dpo_loss(token_logps, labels != -100, reference, beta)

    return loss


def liger():
    functional = importlib.import_module("liger_kernel.transformers.functional")
    return from_cross_entropy(lambda x, y: functional.liger_cross_entropy(x, y, ignore_index=-100, reduction="none"))


def quack():
    module = importlib.import_module("quack.cross_entropy")
    return from_cross_entropy(lambda x, y: module.cross_entropy(x, y, ignore_index=-100, reduction="none"))


# Name, the package whose version counts, how its loss is made. Liger-Kernel writes the gradient over the logits, the others beside them.
PEERS = {
    "torch": ("torch", lambda: eager_loss),
    "torch-compile": ("torch", compiled),
    "liger": ("liger_kernel", liger),
    "quack": ("quack", quack),
}
OVERWRITES = {"liger"}


def version_of(package):
    from importlib import metadata

    for name in (package, package.replace("_", "-"), f"{package}-kernels"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            pass
    return package


def available():
    peers = []
    for name, (package, make) in PEERS.items():
        reason = None
        try:
            import torch

            if not torch.cuda.is_available():
                reason = "this PyTorch sees no CUDA device"
            else:
                make()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        peers.append({"name": name, "version": version_of(package) if reason is None else None, "reason": reason})
    return peers


class Work:
    """One peer on one batch. `device` may be "cpu", where only its numbers are of interest."""

    def __init__(self, name, logits, labels, reference, beta, device):
        import torch

        self.torch = torch
        self.loss = PEERS[name][1]()
        self.device = device
        self.pristine = logits.to(device)
        self.labels = labels.to(device).long()
        self.reference = reference.to(device).float()
        self.beta = beta
        self.overwrites = name in OVERWRITES
        self.leaf = self.fresh()
        # More than twice any card's last-level cache.
        self.flushed = torch.randn(2**28 if device == "cuda" else 2**10, device=device, dtype=torch.float32).to(torch.bfloat16)

    def fresh(self):
        logits = self.pristine.clone() if self.overwrites else self.pristine.detach()
        return logits.requires_grad_()

    def run(self):
        self.leaf.grad = None
        loss = self.loss(self.leaf, self.labels, self.reference, self.beta)
        loss.backward()
        return loss

    def prepare(self):
        """Untimed: logits that were overwritten are restored, and the caches cleared by reading."""
        if self.overwrites:
            with self.torch.no_grad():
                self.leaf.copy_(self.pristine)
        self.leaf.grad = None
        # Long enough for the host to run ahead.
        for _ in range(4):
            self.flushed.sum()

    def first(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()
            self.torch.cuda.reset_peak_memory_stats()
            before = self.torch.cuda.memory_allocated()
        loss = self.run().item()
        extra = self.torch.cuda.max_memory_allocated() - before if self.device == "cuda" else None
        rows = self.leaf.grad.view(-1, self.leaf.shape[-1])[-DISTINCT_ROWS:]
        gradient = rows.float().abs().sum(dtype=self.torch.float64).item()
        # The second pass has everything compiled and its memory cached.
        self.prepare()
        self.run()
        return {"loss": loss, "gradientSum": gradient, "extraBytes": extra}

    def device_ms(self):
        self.prepare()
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def wall_ms(self):
        self.prepare()
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        start = time.perf_counter()
        self.run().item()
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)


def load(directory, shape, dtype):
    import torch

    sequences, tokens, vocab = shape
    read = lambda name, kind, count: torch.from_file(f"{directory}/{name}", size=count, dtype=kind)
    block = read("block", getattr(torch, dtype), DISTINCT_ROWS * vocab).view(DISTINCT_ROWS, vocab)
    labels = read("labels", torch.int32, sequences * tokens).view(sequences, tokens)
    return block, labels, read("reference", torch.float64, sequences)


def repeated(block, shape, device):
    sequences, tokens, vocab = shape
    return block.to(device).repeat(sequences * tokens // DISTINCT_ROWS, 1).view(sequences, tokens, vocab)


def serve(arguments):
    block, labels, reference = load(arguments.directory, arguments.shape, arguments.dtype)
    logits = repeated(block, arguments.shape, arguments.device)
    work = Work(arguments.peer, logits, labels, reference, arguments.beta, arguments.device)
    print(json.dumps(work.first()), flush=True)
    for line in sys.stdin:
        ms = work.device_ms() if line.strip() == "device" else work.wall_ms()
        print(json.dumps({"ms": ms}), flush=True)


def table(arguments):
    import torch

    sequences, tokens, vocab = arguments.shape
    generator = torch.Generator().manual_seed(1)
    block = 2.5 * torch.randn(DISTINCT_ROWS, vocab, generator=generator)
    labels = torch.randint(vocab, (sequences, tokens), generator=generator, dtype=torch.int32)
    logits = repeated(block.to(getattr(torch, arguments.dtype)), arguments.shape, "cuda")
    reference = torch.full((sequences,), -tokens * 14.0)
    print(f"{torch.cuda.get_device_name()}, [{sequences}, {tokens}, {vocab}] {arguments.dtype}")
    for peer in available():
        if peer["reason"] is not None:
            print(f"{peer['name']:14} not available: {peer['reason']}")
            continue
        work = Work(peer["name"], logits, labels, reference, arguments.beta, "cuda")
        work.first()
        times = [work.device_ms() for _ in range(15)]
        print(f"{peer['name']:14} {statistics.median(times):8.3f} ms   {peer['version']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--directory")
    parser.add_argument("--shape", type=lambda text: [int(n) for n in text.split(",")], default=[8, 1024, 32000])
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    if arguments.list:
        print(json.dumps(available()))
    elif arguments.table:
        table(arguments)
    elif arguments.peer and arguments.directory:
        serve(arguments)
    else:
        parser.error("one of --list, --table, or --peer with --directory")


if __name__ == "__main__":
    main()
