"""The scan of Mamba-2, its convolution and gated norm on a GPU, beside mamba-ssm and causal-conv1d.

    python benchmarks/bench_ssd_gpu.py [--check-only] [--length 8192] [--repeats 21] [--launches]
                                       [--out FILE]

First results and gradients are compared with the chunked reference in float64, in float32, bfloat16
and float16, with packed documents and a first state; `--check-only` stops there, and an error that
is too large makes the exit code 1. Then bfloat16 is timed by CUDA events, contenders in turns, the
GPU's cache overwritten before each. The GPU is kept waiting until all kernels of a call have been
launched, as one that is busy would be; with `--launches` it is not, and launching counts. The floor
is the time in which this GPU copies what the forward has to read and write; "PyTorch" is made of
its own operators. Peers that are not installed have empty cells. Without CUDA the exit code is 2;
`--device cpu` runs the same code, to test the script.
"""

import argparse
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from side_by_side import arguments, header, in_turns, quartiles, report, require, stopwatch
from torch import Tensor
from torch.nn import functional as F

from sparsetorch_kernels import causal_conv, gated_rms_norm, ssd_scan
from sparsetorch_kernels.norm.reference import norm as plain_norm
from sparsetorch_kernels.ssd import reference

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
OURS, PLAIN = "sparsetorch", "PyTorch"
SHAPES = {  # heads, head dim, groups, state
    "Nemotron-H 8B": (128, 64, 8, 128),
    "Nemotron 3 Nano 30B-A3B": (64, 64, 8, 128),
    "Nemotron 3 Ultra": (256, 64, 8, 128),
    "Nano 9B-v2": (128, 80, 8, 128),
}
Inputs = list[Tensor]


def draw(length: int, sizes: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    """x, dt, A, B, C, D and a first state."""
    heads, head_dim, groups, state = sizes
    make = {"device": device, "dtype": torch.float32}
    drawn = [
        torch.randn(1, length, heads, head_dim, **make).to(dtype),
        torch.empty(1, length, heads, **make).uniform_(-6.9, -2.3).exp(),
        -torch.empty(heads, **make).uniform_(1, 16),
        torch.randn(1, length, groups, state, **make).to(dtype),
        torch.randn(1, length, groups, state, **make).to(dtype),
        torch.randn(heads, **make),
        torch.randn(1, heads, head_dim, state, **make),
    ]
    return [t.requires_grad_() for t in drawn]


def errors(dtype: torch.dtype, device: str, packed: bool) -> dict[str, float]:
    """rms(want - got) / rms(want) of results and gradients, on a small model's sizes."""
    inputs = draw(700, (8, 80, 2, 128), dtype, device)
    seq_idx = (torch.arange(700, device=device) // 150)[None] if packed else None
    wide = [t.detach().double().requires_grad_() for t in inputs]
    got = ssd_scan(*inputs[:7], seq_idx=seq_idx)
    want = reference.ssd_chunked(*wide[:7], seq_idx_BL=seq_idx)
    grads = [torch.randn_like(t) for t in got]
    pairs = dict(zip(("y", "state"), zip(got, want)))
    ours = torch.autograd.grad(got, inputs, grads)
    theirs = torch.autograd.grad(want, wide, [g.double() for g in grads])
    names = ("dx", "ddt", "dA", "dB", "dC", "dD", "dstate")
    pairs |= dict(zip(names, zip(ours, theirs)))
    rms = lambda t: float(t.detach().double().square().mean().sqrt())  # noqa: E731
    return {name: rms(a - b) / rms(b) for name, (a, b) in pairs.items()}


def checks(device: str) -> Iterator[tuple[str, bool]]:
    """A line for each case, and whether it is right."""
    for dtype, tolerance in TOLERANCE.items():
        for packed in (False, True):
            found = errors(dtype, device, packed)
            right = all(error < tolerance for error in found.values())  # NaN is not
            told = ", ".join(f"{name} {error:.0e}" for name, error in found.items())
            yield f"{'ok' if right else 'WRONG'}: {dtype}, packed {packed}: {told}", right


def optional(module: str, name: str) -> Callable | None:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None


def scans(inputs: Inputs) -> dict[str, Callable[[], Tensor]]:
    x, dt, A, B, C, D, _ = inputs
    theirs = optional("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
    calls = {OURS: lambda: ssd_scan(x, dt, A, B, C, D)[0]}
    if theirs is not None:
        calls["peer"] = lambda: theirs(x, dt, A, B, C, 128, D=D)
    return calls


def convolutions(inputs: Inputs) -> dict[str, Callable[[], Tensor]]:
    x, weight, bias = inputs
    theirs = optional("causal_conv1d", "causal_conv1d_fn")
    calls = {OURS: lambda: causal_conv(x, weight, bias)[0]}
    if theirs is not None:
        calls["peer"] = lambda: theirs(x.mT, weight, bias, activation="silu").mT
    calls[PLAIN] = lambda: (
        F.silu(
            F.conv1d(x.mT, weight[:, None], bias, padding=3, groups=x.shape[2])[..., : x.shape[1]]
        ).mT
    )
    return calls


def norms(inputs: Inputs, groups: int) -> dict[str, Callable[[], Tensor]]:
    y, z, weight = inputs
    theirs = optional("mamba_ssm.ops.triton.layernorm_gated", "rmsnorm_fn")
    size = len(weight) // groups
    calls = {OURS: lambda: gated_rms_norm(y, z, weight, groups)}
    if theirs is not None:
        calls["peer"] = lambda: theirs(
            y, weight, None, z=z, eps=1e-5, group_size=size, norm_before_gate=False
        )
    calls[PLAIN] = lambda: plain_norm(y, z, weight, groups, 1e-5)
    return calls


def both(call: Callable[[], Tensor], inputs: Inputs, grad: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call(), inputs, grad, allow_unused=True)


def agree(name: str, calls: Mapping[str, Callable[[], Any]]) -> None:
    """End the run unless all contenders find what ours does, in bfloat16."""
    found = {contender: call() for contender, call in calls.items()}
    found = {n: (y,) if isinstance(y, Tensor) else y for n, y in found.items()}
    for contender, results in found.items():
        for k, (got, want) in enumerate(zip(results, found[OURS])):
            error = float((got - want).double().norm() / want.double().norm())
            require(f"{name}, {contender}, result {k}", error, 3e-2)


def forward(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return torch.no_grad()(call)


def measure_on(device: str, launches: bool) -> Callable[[Callable[[], object]], float]:
    if device == "cpu":
        return stopwatch(time.perf_counter)
    flush = torch.empty(1 << 26, device=device)
    # The GPU is kept waiting for 5 ms while its work is launched; if that takes longer, for more.
    waits = [0] if launches else [10_000_000 << k for k in range(6)]

    def measure(call: Callable[[], object]) -> float:
        for cycles in waits:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            torch.cuda._sleep(cycles)
            begin.record()
            call()
            end.record()
            waited = not begin.query()
            end.synchronize()
            if launches or waited:
                return begin.elapsed_time(end) / 1e3
        raise SystemExit("launching took longer than the GPU was kept waiting; see --launches")

    return measure


def bytes_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def rows(options: argparse.Namespace) -> Iterator[str]:
    device, length = options.device, options.length
    measure = measure_on(device, options.launches)
    source = torch.ones(1 << (26 if device == "cuda" else 20), device=device)
    target = torch.empty_like(source)
    copies = in_turns({"copy": lambda: target.copy_(source)}, 7, measure)["copy"]
    rate = 2 * bytes_of(source) / statistics.median(copies)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    yield f"{name}; torch {torch.__version__}; copies {rate / 1e9:.0f} GB/s; {length} tokens, bf16."
    counted = "launches counted" if options.launches else "launches not counted"
    yield f"Median (quartiles) in ms, {counted}; the floor is that of the forward."
    yield ""
    yield from header("what", OURS, "peer", PLAIN, "floor", "to peer", "to floor")
    for title, sizes in SHAPES.items():
        heads, head_dim, groups, state = sizes
        inputs = draw(length, sizes, torch.bfloat16, device)
        channels = heads * head_dim + 2 * groups * state
        made = [torch.randn(s, device=device) for s in ((1, length, channels), (channels, 4))]
        taps = [t.bfloat16().requires_grad_() for t in (*made, torch.randn(channels).to(device))]
        inner = heads * head_dim
        drawn = (torch.randn(s, device=device) for s in (*2 * [(1, length, inner)], (inner,)))
        gated = [t.bfloat16().requires_grad_() for t in drawn]
        for kind, calls, given in (
            ("scan", scans(inputs), inputs[:6]),
            ("conv", convolutions(taps), taps),
            ("norm", norms(gated, groups), gated),
        ):
            floor = (bytes_of(*given) + bytes_of(given[0])) / rate
            grad = torch.randn_like(given[0])
            for way, make in (("forward", forward), ("both", lambda c: both(c, given, grad))):  # noqa: B023
                ready = {contender: make(call) for contender, call in calls.items()}
                agree(f"{title} {kind} {way}", ready)
                seconds = in_turns(ready, options.repeats, measure)
                median = {n: statistics.median(t) for n, t in seconds.items()}
                cells = [quartiles(seconds[n]) if n in seconds else "" for n in (OURS, "peer")]
                cells += [quartiles(seconds[PLAIN]) if PLAIN in seconds else ""]
                cells += [f"{floor * 1e3:.3f}"]
                ratio = median[OURS] / median.get("peer", math.nan)
                cells += [f"{ratio:.2f}", f"{median[OURS] / floor:.2f}"]
                yield f"| {title} {kind} {way} | {' | '.join(cells)} |"


def main() -> None:
    parser = arguments("The scan of Mamba-2 on a GPU.", 21, "turns", cpu_time=False)
    parser.add_argument("--check-only", action="store_true", help="compare, but do not time")
    parser.add_argument("--launches", action="store_true", help="count the launching of kernels")
    parser.add_argument("--length", type=int, default=8192, help="tokens")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        raise SystemExit(2)
    right = True
    for line, fine in checks(options.device):
        print(line, flush=True)
        right = right and fine
    if not right:
        raise SystemExit(1)
    if not options.check_only:
        report(rows(options), options.out)


if __name__ == "__main__":
    main()
