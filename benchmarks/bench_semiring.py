"""Maxima and log-sum-exps of messages beside the same in PyTorch, which stores every message.

    python benchmarks/bench_semiring.py [--grid 400] [--repeats 11] [--threads N] [--cpu-time]
                                        [--out FILE]

On the 2-D Poisson pattern with random values, float32. "both gradients" is forward and backward.
The results are compared with each other first; `A @ X` stands beside them as what the same
traffic costs at least.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from side_by_side import (
    Contender,
    arguments,
    as_array,
    cpu_name,
    header,
    quartiles,
    report,
    require,
    times,
    versions,
)
from torch import Tensor

from sparsetorch import CSRTensor, poisson, spmm


def stored_messages(A: CSRTensor, X: Tensor, reduce: str) -> Tensor:
    """The same product from a tensor of all messages, (nnz, k), by `scatter_reduce`."""
    row = A.pattern.row.long()
    messages = A.values.unsqueeze(-1) * X.index_select(0, A.pattern.col)
    index = row.unsqueeze(-1).expand(messages.shape)
    start = messages.new_zeros(A.shape[0], X.shape[1])
    largest = start.scatter_reduce(0, index, messages, "amax", include_self=False)
    if reduce == "max":
        return largest
    shift = largest.detach()
    sums = start.index_add(0, row, (messages - shift.index_select(0, row)).exp())
    return sums.log() + shift


def case(A: CSRTensor, X: Tensor, G: Tensor, reduce: str, gradients: bool) -> dict[str, Contender]:
    def result(y: Tensor) -> tuple[Tensor, ...]:
        return (y, *torch.autograd.grad(y, (A.values, X), G)) if gradients else (y.detach(),)

    return {
        "sparsetorch": lambda: result(spmm(A, X, reduce)),  # pyright: ignore
        "stored messages": lambda: result(stored_messages(A, X, reduce)),
        "A @ X": lambda: result(A @ X),
    }


def table(options: argparse.Namespace) -> Iterator[str]:
    yield (
        f"2-D Poisson, {options.grid} x {options.grid} grid, float32; {cpu_name()}; "
        f"{torch.get_num_threads()} threads; {versions()}."
    )
    command = f"python benchmarks/bench_semiring.py --grid {options.grid}"
    command += f" --repeats {options.repeats}"
    command += f" --threads {options.threads}" if options.threads else ""
    command += " --cpu-time" if options.cpu_time else ""
    yield (
        f"Command: `{command}`. Median (quartiles) of the "
        f"{'processor' if options.cpu_time else 'wall-clock'} time in ms."
    )
    yield ""
    peers = ("sparsetorch", "stored messages", "A @ X")
    yield from header("product", *peers, "to stored messages", "to A @ X")
    torch.manual_seed(0)
    clock = time.process_time if options.cpu_time else time.perf_counter
    pattern = poisson(options.grid, options.grid).pattern
    for k in (1, 64):
        for reduce in ("max", "logsumexp"):
            for gradients in (False, True):
                values = torch.randn(pattern.nnz, requires_grad=gradients)
                X = torch.randn(pattern.shape[1], k, requires_grad=gradients)
                A, G = CSRTensor(pattern, values), torch.randn(pattern.shape[0], k)
                contenders = case(A, X, G, reduce, gradients)
                title = f"{reduce} {k}{', both gradients' if gradients else ''}"
                first, second = (map(as_array, contenders[name]()) for name in peers[:2])
                for got, want in zip(first, second):
                    # Two messages that are equal by chance may share a gradient in one of them.
                    error = np.linalg.norm(got - want) / np.linalg.norm(want)
                    require(title, float(error), 1e-3 if gradients else 1e-5)
                seconds = times(contenders, options.repeats, clock)
                medians = [statistics.median(seconds[name]) for name in peers]
                cells = [quartiles(seconds[name]) for name in peers]
                ratios = [f"{medians[0] / m:.2f}" for m in medians[1:]]
                yield f"| {' | '.join([title, *cells, *ratios])} |"


def main() -> None:
    parser = arguments("Semiring products beside stored messages.", 11, "turns")
    parser.add_argument("--grid", type=int, default=400, help="points along a side")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
