"""DPO loss and gradient on a CUDA device in PyTorch, alone and with kernels of other packages, as
trainers write it.

    torch_gpu.py --list                     which peers are installed, as JSON
    torch_gpu.py --table [--shape S,T,V]    medians of those from logits on random data, by itself
    torch_gpu.py --peer NAME --directory D --shape S,T,V [--hidden-size H] --dtype T --beta B

The last is driven by bench/gpu/peers.mjs: D holds `block` (64 rows of logits, which the batch
repeats), `labels` (int32) and `reference` (float64); for a peer of the output layer `hidden` and
`weight` (numbers that the array repeats) in place of `block`. It does the work once and prints a
line of JSON; then, for each line "device" or "wall" on its input, it does it again and prints
{"ms": milliseconds} by CUDA events or by the clock.
"""

import argparse
import importlib
import json
import os
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


def from_cross_entropy(kernel):
    """A kernel for the cross-entropy of rows gives negative log-probabilities, 0 where ignored."""

    def loss(logits, labels, reference, beta):
        rows = logits.view(-1, logits.shape[-1])
        losses = kernel(rows, labels.reshape(-1), ignore_index=-100, reduction="none")
        token_logps = -losses.float().view(labels.shape)
        return dpo_loss(token_logps, labels != -100, reference, beta)

    return loss


def liger():
    functional = importlib.import_module("liger_kernel.transformers.functional")
    return from_cross_entropy(functional.liger_cross_entropy)


def quack():
    module = importlib.import_module("quack.cross_entropy")
    return from_cross_entropy(module.cross_entropy)


def eager_layer_loss(hidden, weight, labels, reference, beta):
    """Every row goes through every product, as in trainers, whether its label counts or not."""
    return eager_loss(hidden @ weight.T, labels, reference, beta)


def compiled_layer():
    import torch

    return torch.compile(eager_layer_loss, dynamic=False)


def liger_layer():
    """Liger-Kernel computes the reference's log-probabilities itself, from its hidden states:
    another product over all rows. Without a reference model they are 0, and the work is ours."""
    fused = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearDPOLoss
    options = {"ignore_index": -100, "use_ref_model": False, "average_log_prob": False}
    make = lambda beta: fused(beta=beta, **options)
    # Here, so that a version without these options is reported as not available.
    make(0.1)

    def loss(hidden, weight, labels, reference, beta):
        return make(beta)(weight, hidden, labels)[0]

    return loss


# Name, the package whose version counts, how its loss is made. Liger-Kernel writes the gradient
# over the logits, the others beside them.
PEERS = {
    "torch": ("torch", lambda: eager_loss),
    "torch-compile": ("torch", compiled),
    "liger": ("liger_kernel", liger),
    "quack": ("quack", quack),
}
OVERWRITES = {"liger"}

# The same for the output layer and the loss together.
LAYER_PEERS = {
    "torch-layer": ("torch", lambda: eager_layer_loss),
    "torch-compile-layer": ("torch", compiled_layer),
    "liger-fused-dpo": ("liger_kernel", liger_layer),
}
WITHOUT_REFERENCE = {"liger-fused-dpo"}
ALL_PEERS = {**PEERS, **LAYER_PEERS}


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
    for name, (package, make) in ALL_PEERS.items():
        reason = None
        try:
            import torch

            if not torch.cuda.is_available():
                reason = "this PyTorch sees no CUDA device"
            else:
                make()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        peers.append(
            {
                "name": name,
                "version": version_of(package) if reason is None else None,
                "reason": reason,
                "layer": name in LAYER_PEERS,
                "withoutReference": name in WITHOUT_REFERENCE,
            }
        )
    return peers


class Work:
    """One peer on one batch of logits. `device` may be "cpu", where only its numbers count."""

    def __init__(self, name, inputs, labels, reference, beta, device):
        import torch

        self.torch = torch
        if name in WITHOUT_REFERENCE and reference.any():
            raise ValueError(f"{name} takes no reference log-probabilities")
        self.loss = ALL_PEERS[name][1]()
        self.device = device
        self.inputs = [values.to(device) for values in inputs]
        self.labels = labels.to(device).long()
        self.reference = reference.to(device).float()
        self.beta = beta
        self.overwrites = name in OVERWRITES
        self.leaves = [self.fresh(values) for values in self.inputs]
        # More than twice any card's last-level cache.
        count = 2**28 if device == "cuda" else 2**10
        self.flushed = torch.randn(count, device=device, dtype=torch.float32).to(torch.bfloat16)

    def fresh(self, values):
        return (values.clone() if self.overwrites else values.detach()).requires_grad_()

    def forget(self):
        for leaf in self.leaves:
            leaf.grad = None

    def run(self):
        self.forget()
        loss = self.loss(*self.leaves, self.labels, self.reference, self.beta)
        loss.backward()
        return loss

    def prepare(self):
        """Untimed: logits that were overwritten are restored, and the caches cleared by reading."""
        if self.overwrites:
            with self.torch.no_grad():
                for leaf, values in zip(self.leaves, self.inputs):
                    leaf.copy_(values)
        self.forget()
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
        gradients = self.magnitudes()
        if extra is not None:
            extra -= self.result_bytes()
        # The second pass has everything compiled and its memory cached.
        self.prepare()
        self.run()
        return {"loss": loss, **gradients, "extraBytes": extra}

    def magnitudes(self):
        """Of the last rows."""
        (leaf,) = self.leaves
        rows = leaf.grad.view(-1, leaf.shape[-1])[-DISTINCT_ROWS:]
        return {"gradientSum": rows.float().abs().sum(dtype=self.torch.float64).item()}

    def result_bytes(self):
        """The gradient of the logits counts as extra memory: a call of ours can do without."""
        return 0

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


class LayerWork(Work):
    """One peer on hidden states and the output layer's weight."""

    def magnitudes(self):
        """Of everything, a slice at a time: float64 copies of a whole gradient would be several
        gigabytes."""

        def total(leaf):
            slices = leaf.grad.view(-1, leaf.shape[-1]).split(4096)
            return sum(rows.double().abs().sum().item() for rows in slices)

        hidden, weight = self.leaves
        return {"gradHidden": total(hidden), "gradWeight": total(weight)}

    def result_bytes(self):
        return sum(leaf.grad.numel() * leaf.grad.element_size() for leaf in self.leaves)


def read(directory, name, dtype, count=None):
    import torch

    kind = getattr(torch, dtype)
    if count is None:
        count = os.path.getsize(f"{directory}/{name}") // torch.empty((), dtype=kind).element_size()
    return torch.from_file(f"{directory}/{name}", size=count, dtype=kind)


def load_block(directory, shape, dtype):
    vocab = shape[-1]
    return read(directory, "block", dtype, DISTINCT_ROWS * vocab).view(DISTINCT_ROWS, vocab)


def load_labels(directory, shape):
    sequences, tokens, _ = shape
    labels = read(directory, "labels", "int32", sequences * tokens).view(sequences, tokens)
    return labels, read(directory, "reference", "float64", sequences)


def filled(numbers, shape, device):
    """An array of the numbers over and over."""
    count = 1
    for size in shape:
        count *= size
    return numbers.to(device).repeat(-(-count // len(numbers)))[:count].view(*shape)


def repeated(block, shape, device):
    sequences, tokens, vocab = shape
    rows = block.to(device).repeat(sequences * tokens // DISTINCT_ROWS, 1)
    return rows.view(sequences, tokens, vocab)


def serve(arguments):
    directory, shape, dtype = arguments.directory, arguments.shape, arguments.dtype
    peer, beta, device = arguments.peer, arguments.beta, arguments.device
    labels, reference = load_labels(directory, shape)
    if peer in LAYER_PEERS:
        sequences, tokens, vocab = shape
        size = arguments.hidden_size
        hidden = filled(read(directory, "hidden", dtype), (sequences, tokens, size), device)
        weight = filled(read(directory, "weight", dtype), (vocab, size), device)
        work = LayerWork(peer, [hidden, weight], labels, reference, beta, device)
    else:
        logits = repeated(load_block(directory, shape, dtype), shape, device)
        work = Work(peer, [logits], labels, reference, beta, device)
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
        if peer["layer"]:
            continue
        if peer["reason"] is not None:
            print(f"{peer['name']:14} not available: {peer['reason']}")
            continue
        work = Work(peer["name"], [logits], labels, reference, arguments.beta, "cuda")
        work.first()
        times = [work.device_ms() for _ in range(15)]
        print(f"{peer['name']:14} {statistics.median(times):8.3f} ms   {peer['version']}")


def main():
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--peer", choices=ALL_PEERS)
    parser.add_argument("--directory")
    sizes = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--shape", type=sizes, default=[8, 1024, 32000])
    parser.add_argument("--hidden-size", type=int, help="of a peer of the output layer")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    if arguments.list:
        print(json.dumps(available()))
    elif arguments.table:
        table(arguments)
    elif arguments.peer in LAYER_PEERS and arguments.hidden_size is None:
        parser.error("--hidden-size is missing")
    elif arguments.peer and arguments.directory:
        serve(arguments)
    else:
        parser.error("one of --list, --table, or --peer with --directory")


if __name__ == "__main__":
    main()
