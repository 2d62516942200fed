"""Sequences of allocations and frees: random ones by seed, and recorded ones that lie frozen in traces/.

A trace is a list of numbers: n > 0 allocates n bytes, and -1 frees the first allocation of the trace, -2 the second.
`python tests/benchmarks/traces.py NAME ...` records frozen ones anew, all of them without a name, which takes a minute.

What is in use at the peak: `training` 566 MiB, of blocks that are mostly powers of two; `generate` 95 MiB, of which keys and values that grow to 5 MiB
each have 61, which leaves much more behind than it needs; `training-768` 973 MiB and `generate-768` 243 MiB, of models whose width is no power of two.
"""

from __future__ import annotations

import gc
import heapq
import random
from pathlib import Path

FOLDER = Path(__file__).with_name("traces")
RECORDED = ("training", "generate", "training-768", "generate-768")


def random_trace(seed: int, allocations: int) -> list[int]:
    """Sizes from 16 bytes to 16 MiB, most of them small, and lifetimes of 10, 1,000 or 10,000 allocations on average, drawn apart from each
    other; about 1 GiB is in use."""
    rng = random.Random(seed)
    trace, deaths = [], []
    for number in range(1, allocations + 1):
        while deaths and deaths[0][0] <= number:
            trace.append(-heapq.heappop(deaths)[1])
        trace.append(int(2 ** rng.uniform(4, rng.choice([12, 16, 20, 24]))))
        heapq.heappush(deaths, (number + rng.expovariate(1 / rng.choice([10, 1000, 10_000])), number))
    return trace + [-number for _, number in sorted(deaths)]


def recorded_trace(name: str) -> list[int]:
    return [int(word) for word in (FOLDER / f"{name}.txt").read_text().split()]


def record(work) -> list[int]:
    """What `work()` allocates and frees on the device, from the profiler's events. Those have sizes and no addresses: a free counts as that of
    the youngest block of its size."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
        gc.collect()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    trace, live, count = [], {}, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() != torch._C._autograd.DeviceType.PrivateUse1:
            continue
        size = event.nbytes()
        if size > 0:
            count += 1
            live.setdefault(size, []).append(count)
            trace.append(size)
        elif live.get(-size):
            trace.append(-live[-size].pop())
    assert trace, "the profiler saw no memory of the device"
    return trace + [-number for numbers in live.values() for number in numbers]


def training(width=256, heads=8, words=8000, batches=((16, 128), (12, 128))):
    """Steps of a transformer of six layers with AdamW, one per (batch size, length)."""
    import torch

    device = "openreg"
    layer = torch.nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True)
    model = torch.nn.Sequential(torch.nn.Embedding(words, width), torch.nn.TransformerEncoder(layer, 6), torch.nn.Linear(width, words)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    for batch, length in batches:
        tokens = torch.randint(words, (batch, length), device=device)
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def training_768():
    training(768, 12, 5000, ((2, 64), (3, 50), (2, 100)))


def generate():
    """100 tokens from a decoder whose keys and values grow by concatenation."""
    import torch

    device, heads, width, layers = "openreg", 8, 512, 6
    weights = [[torch.randn(width, 3 * width, device=device), torch.randn(width, width, device=device)] for _ in range(layers)]
    with torch.no_grad():
        cache = [None] * layers
        x = torch.randn(16, 64, width, device=device)
        for _ in range(100):
            for number, (into, out) in enumerate(weights):
                q, k, v = (x @ into).view(16, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
                if cache[number] is not None:
                    k, v = torch.cat([cache[number][0], k], 2), torch.cat([cache[number][1], v], 2)
                cache[number] = k, v
                weight = (q @ k.transpose(-1, -2)).softmax(-1)
                x = x + (weight @ v).transpose(1, 2).flatten(2) @ out * 0.01
            x = torch.nn.functional.layer_norm(x[:, -1:], (width,))


def generate_768():
    """100 tokens for 8 prompts from a decoder with an embedding and feed-forward layers."""
    import torch

    device, heads, width = "openreg", 12, 768
    words = torch.empty(8000, width, device=device).normal_()
    sizes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    weights = [[torch.empty(size, device=device).normal_() for size in sizes] for _ in range(6)]
    with torch.no_grad():
        cache = [None] * len(weights)
        tokens = torch.randint(8000, (8, 64), device=device)
        for _ in range(100):
            x = words[tokens]
            for number, (into, out, widen, narrow) in enumerate(weights):
                q, k, v = (torch.nn.functional.layer_norm(x, (width,)) @ into).view(8, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
                if cache[number] is not None:
                    k, v = torch.cat([cache[number][0], k], 2), torch.cat([cache[number][1], v], 2)
                cache[number] = k, v
                weight = (q @ k.transpose(-1, -2)).softmax(-1)
                x = x + (weight @ v).transpose(1, 2).flatten(2) @ out
                x = x + torch.nn.functional.gelu(x @ widen) @ narrow
            tokens = (x[:, -1:] @ words.t()).argmax(-1)


WORK = {"training": training, "generate": generate, "training-768": training_768, "generate-768": generate_768}

if __name__ == "__main__":
    import sys

    import torch_openreg  # noqa: F401

    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or RECORDED:
        trace = record(WORK[name])
        (FOLDER / f"{name}.txt").write_text("\n".join(map(str, trace)) + "\n")
        print(f"{name}: {sum(size > 0 for size in trace)} allocations, {max(trace)} bytes the largest")
