"""The scan of Mamba-2 beside transformers' path and the paper's listing, on the CPU.

    python benchmarks/bench_ssd.py [--shapes nemotron small ...] [--repeats 11] [--threads N]
                                   [--cpu-time] [--out FILE]

float32, one document, no state carried in. The floor is the forward's products of matrices alone,
on operands that lie ready. Results and gradients are compared with each other first. The last rows
are one step of decoding, and the convolution before the scan beside `torch.nn.functional.conv1d`.
Needs `pip install transformers`.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from side_by_side import arguments, cpu_name, header, quartiles, report, require, times, versions
from torch import Tensor
from torch.nn import functional as F

from sparsetorch_kernels import causal_conv, ssd_scan, ssd_step
from sparsetorch_kernels.ssd.backend import LONGEST_CHUNK

CHUNK = 128
OURS = "sparsetorch"


class Shape(NamedTuple):
    batch: int
    length: int
    heads: int
    head_dim: int
    groups: int
    state: int


SHAPES = {
    "reference": Shape(1, 2048, 16, 64, 2, 128),
    "batch": Shape(4, 512, 8, 64, 1, 64),
    "small": Shape(8, 256, 8, 32, 1, 32),
    "nemotron": Shape(1, 1024, 128, 64, 8, 128),
}


def draw(shape: Shape, gradients: bool) -> list[Tensor]:
    """x, dt, A, B, C and D, with the decays of an initialized model."""
    batch, length, heads, head_dim, groups, state = shape
    dt = torch.exp(torch.empty(batch, length, heads).uniform_(-6.9, -2.3))  # 0.001 to 0.1
    drawn = [
        torch.randn(batch, length, heads, head_dim),
        dt,
        -torch.empty(heads).uniform_(1, 16),
        torch.randn(batch, length, groups, state),
        torch.randn(batch, length, groups, state),
        torch.randn(heads),
    ]
    return [t.requires_grad_(gradients) for t in drawn]


def transformers_path() -> dict[str, Callable]:
    try:
        from transformers.models.mamba2 import modeling_mamba2
    except ImportError as error:
        message = f"no transformers to compare with: pip install transformers ({error})"
        raise SystemExit(message) from error
    warnings.filterwarnings("ignore", message=".*falling back.*")
    scan = modeling_mamba2.mamba2_chunk_scan
    step = modeling_mamba2.mamba2_selective_state_update
    return {"scan": scan, "step": step}


def ssd_minimal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Listing 1 of arXiv:2405.21060 in pairs of operands, B and C repeated for every head."""
    repeats = x.shape[2] // B.shape[2]
    cut = lambda t: t.unflatten(1, (-1, CHUNK))  # noqa: E731
    B, C = (cut(t.repeat_interleave(repeats, 2)) for t in (B, C))
    X, a = cut(x * dt[..., None]), cut(dt * A).permute(0, 3, 1, 2)
    sums = a.cumsum(-1)
    scores = torch.einsum("bclhn,bcshn->bhcls", C, B) * segment_decay(a)
    within = torch.einsum("bhcls,bcshp->bclhp", scores, X)
    to_end = torch.exp(sums[..., -1:] - sums)
    weighted = B * to_end.permute(0, 2, 3, 1)[..., None]
    states = torch.einsum("bclhn,bclhp->bchpn", weighted, X)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], 1)
    between = segment_decay(F.pad(sums[..., -1], (1, 0)))
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)[:, :-1]
    carried = (
        torch.einsum("bclhn,bchpn->bclhp", C, states) * sums.exp().permute(0, 2, 3, 1)[..., None]
    )
    return (within + carried).flatten(1, 2) + D[:, None] * x


def segment_decay(a: Tensor) -> Tensor:
    """exp(a[s + 1] + ... + a[l]) for s <= l, else 0."""
    size = a.shape[-1]
    ones = torch.ones(size, size, dtype=torch.bool)
    terms = a[..., None].expand(*a.shape, size).masked_fill(~ones.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~ones.tril(), float("-inf")).exp()


def floor(shape: Shape) -> Callable[[], object]:
    """The four products of the forward, into memory that is there."""
    batch, length, heads, head_dim, groups, state = shape
    chunk = min(CHUNK, LONGEST_CHUNK)
    count, channels = batch * length // chunk, heads // groups * head_dim
    sizes = [
        (count * groups, chunk, state, chunk),
        (count * heads, chunk, chunk, head_dim),
        (count * groups, channels, chunk, state),
        (count * groups, chunk, state, channels),
    ]
    operands = [
        (torch.randn(n, i, j), torch.randn(n, j, k), torch.empty(n, i, k)) for n, i, j, k in sizes
    ]
    return lambda: [torch.bmm(a, b, out=out) for a, b, out in operands]


def scans(shape: Shape, gradients: bool) -> dict[str, Callable[[], object]]:
    """The contenders; each returns y, and with it the gradients."""
    inputs = draw(shape, gradients)
    grad = torch.randn_like(inputs[0])
    theirs = transformers_path()["scan"]

    def result(y: Tensor) -> tuple[Tensor, ...]:
        return (y, *torch.autograd.grad(y, inputs, grad)) if gradients else (y,)

    x, dt, A, B, C, D = inputs
    return {
        OURS: lambda: result(ssd_scan(x, dt, A, B, C, D, chunk_size=CHUNK)[0]),
        "transformers": lambda: result(theirs(x, dt, A, B, C, chunk_size=CHUNK, D=D)),
        "ssd_minimal": lambda: result(ssd_minimal(x, dt, A, B, C, D)),
    }


def steps(shape: Shape) -> dict[str, Callable[[], object]]:
    """One step of decoding; transformers writes the new state over the old one."""
    inputs = [t if t.dim() == 1 else t[:, 0] for t in draw(shape, False)]
    x, dt, A, B, C, D = inputs
    state = torch.randn(*x.shape, B.shape[-1])
    theirs, kept = transformers_path()["step"], state.clone()
    wide = lambda t: t[..., None].expand(*t.shape, x.shape[2])  # noqa: E731
    decay = A[:, None, None].expand(*state.shape[1:])

    def their_step() -> tuple[Tensor, ...]:
        y = theirs(kept, x, wide(dt), decay, B, C, wide(D))
        return y, kept

    return {OURS: lambda: ssd_step(x, dt, A, B, C, D, state), "transformers": their_step}


def convolutions(shape: Shape, gradients: bool) -> dict[str, Callable[[], object]]:
    channels = shape.heads * shape.head_dim + 2 * shape.groups * shape.state
    sizes = (shape.batch, shape.length, channels), (channels, 4), (channels,)
    inputs = [torch.randn(size).requires_grad_(gradients) for size in sizes]
    x, weight, bias = inputs
    grad = torch.randn_like(x)

    def result(y: Tensor) -> tuple[Tensor, ...]:
        return (y, *torch.autograd.grad(y, inputs, grad)) if gradients else (y,)

    def conv1d() -> Tensor:
        y = F.conv1d(x.mT, weight[:, None], bias, padding=3, groups=channels)
        return F.silu(y[..., : x.shape[1]]).mT

    return {
        OURS: lambda: result(causal_conv(x, weight, bias)[0]),
        "conv1d": lambda: result(conv1d()),
    }


def verify(title: str, contenders: dict[str, Callable]) -> None:
    """End the run unless all contenders agree with the first."""
    ours, *others = ([t.detach() for t in call()] for call in contenders.values())
    for name, results in zip(list(contenders)[1:], others):
        for a, b in zip(ours, results, strict=True):
            error = float((a - b).norm() / b.norm())
            require(f"{title}, {name}", error, 1e-4)


def row(title: str, contenders: dict[str, Callable], repeats: int, clock, extra=None) -> str:
    verify(title, contenders)
    seconds = times(contenders | ({} if extra is None else {"floor": extra}), repeats, clock)
    median = {name: statistics.median(t) for name, t in seconds.items()}
    peers = ("transformers", "ssd_minimal", "conv1d", "floor")
    cells = [quartiles(seconds[OURS])]
    cells += [quartiles(seconds[name]) if name in seconds else "" for name in peers]
    cells += [f"{median[OURS] / median[name]:.2f}" if name in median else "" for name in peers]
    return f"| {' | '.join([title, *cells])} |"


def table(options: argparse.Namespace) -> Iterator[str]:
    yield (
        f"float32, chunks of {CHUNK}; {cpu_name()}; {torch.get_num_threads()} threads; "
        f"{versions()}."
    )
    yield f"Median (quartiles) of {'processor' if options.cpu_time else 'wall-clock'} time in ms."
    yield ""
    peers = ("transformers", "ssd_minimal", "conv1d", "floor")
    yield from header("what", OURS, *peers, *(f"to {peer}" for peer in peers))
    torch.manual_seed(0)
    clock = time.process_time if options.cpu_time else time.perf_counter
    for name in options.shapes:
        shape = SHAPES[name]
        title = f"{name} {tuple(shape)}"
        with torch.no_grad():
            forward = scans(shape, False)
            yield row(f"{title} forward", forward, options.repeats, clock, floor(shape))
            yield row(f"{title} step", steps(shape), options.repeats, clock)
        yield row(f"{title} both", scans(shape, True), options.repeats, clock)
        yield row(f"{title} conv both", convolutions(shape, True), options.repeats, clock)


def main() -> None:
    parser = arguments("The scan of Mamba-2 beside its peers.", 11, "turns")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
