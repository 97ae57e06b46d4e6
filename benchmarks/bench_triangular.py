"""Triangular solves of sparsetorch beside those of PyTorch (MKL) and SciPy.

    python benchmarks/bench_triangular.py [--grid 1000] [--nodes 200000] [--threads N] [--cpu-time]

The matrices are the lower triangles of the 2-D Poisson matrix and of the Laplacian (plus identity)
of a power-law graph, in the natural order. Every contender's result is compared with SciPy's in
float64 first, gradients with those of a solve whose products are written out; a mismatch ends the
run without a time. The contenders then take turns. Reported: median and quartiles of the wall-clock
(or, for a machine that others use too, processor) time and the ratio to the best peer (below 1:
sparsetorch is faster).

PyTorch's gradient of a triangular solve with a sparse matrix is a dense n x n one, so forward and
backward together have no peer: they are compared with PyTorch's forward alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import torch
from bench_csr import poisson, times, verify
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular
from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch.linalg import solve_triangular
from sparsetorch_kernels import backend_info

Contender = Callable[[], tuple]
Case = tuple[tuple[np.ndarray, ...], dict[str, Contender]]


def power_law(n: int) -> sparse.csr_array:
    """Laplacian plus identity of a graph with n nodes and about 2 n edges, whose degrees fall as
    rank^-0.6 (Chung and Lu 2002), the nodes in random order."""
    generator = np.random.default_rng(0)
    weights = np.arange(1, n + 1) ** -0.6
    ends = generator.choice(n, (2, 21 * n // 8), p=weights / weights.sum())
    ends = generator.permutation(n)[ends]
    half = sparse.csr_array((np.ones(ends.shape[1]), ends), shape=(n, n))
    links = sparse.csr_array(half + half.T)
    links = sparse.csr_array(links - sparse.diags_array(links.diagonal()))
    links.data[:] = 1
    links.eliminate_zeros()
    return sparse.csr_array(sparse.diags_array(links.sum(1) + 1) - links)


class Problem:
    """A lower triangle in every contender's form, with k right-hand sides."""

    def __init__(self, matrix: sparse.csr_array, value: torch.dtype, index: torch.dtype, k: int):
        self.exact = sparse.csr_array(sparse.tril(matrix))
        self.exact.sort_indices()
        self.A = CSRTensor.from_scipy(self.exact, dtype=value)
        crow, col = (i.to(index) for i in (self.A.pattern.crow, self.A.pattern.col))
        self.torch = torch.sparse_csr_tensor(crow, col, self.A.values, self.exact.shape)
        self.scipy = sparse.csr_array(self.exact.astype(self.A.values.numpy().dtype))
        generator = torch.Generator().manual_seed(0)
        n = self.exact.shape[0]
        self.b = torch.randn(n, k, generator=generator, dtype=value)

    def solved(self, transpose: bool = False) -> np.ndarray:
        """The solution in float64."""
        matrix = sparse.csr_array(self.exact.T) if transpose else self.exact
        return spsolve_triangular(matrix, self.b.double().numpy(), lower=not transpose)


def forward(p: Problem, transpose: bool = False) -> Case:
    contenders: dict[str, Contender] = {
        "sparsetorch": lambda: (solve_triangular(p.A, p.b, transpose=transpose),),
        "torch": lambda: (
            torch.triangular_solve(p.b, p.torch, upper=False, transpose=transpose)[0],
        ),
    }
    if not transpose:
        contenders["scipy"] = lambda: (spsolve_triangular(p.scipy, p.b.numpy(), lower=True),)
    return (p.solved(transpose),), contenders


def transposed(p: Problem) -> Case:
    return forward(p, transpose=True)


def both_gradients(p: Problem) -> Case:
    """Forward, gradient of the values and gradient of b; beside PyTorch's forward alone."""
    x = p.solved()
    back = spsolve_triangular(sparse.csr_array(p.exact.T), p.b.double().numpy(), lower=False)
    row, col = p.A.pattern.row.numpy(), p.A.pattern.col.numpy()
    gradient = -np.einsum("ek,ek->e", back[row], x[col])
    values, b = p.A.values.clone().requires_grad_(), p.b.clone().requires_grad_()

    def ours() -> tuple[Tensor, ...]:
        solution = solve_triangular(p.A.with_values(values), b)
        return solution, *torch.autograd.grad(solution, (values, b), p.b)

    def torchs() -> tuple[Tensor]:
        return (torch.triangular_solve(p.b, p.torch, upper=False)[0],)

    return (x, gradient, back), {"sparsetorch": ours, "torch (forward only)": torchs}


CASES = [  # title, contenders, dtype, index dtype of the peers, columns
    ("solve", forward, torch.float32, torch.int32, 1),
    ("solve", forward, torch.float64, torch.int32, 1),
    ("transposed solve", transposed, torch.float64, torch.int32, 1),
    ("solve, 16 columns", forward, torch.float64, torch.int32, 16),
    ("solve, both gradients", both_gradients, torch.float64, torch.int32, 1),
]


def row(title: str, seconds: dict[str, list[float]]) -> str:
    def cell(name: str) -> str:
        if name not in seconds:
            return "-"
        low, middle, high = statistics.quantiles(seconds[name], n=4)
        return f"{middle * 1e3:.2f} ({low * 1e3:.2f}-{high * 1e3:.2f})"

    names = ["sparsetorch", next(name for name in seconds if name.startswith("torch")), "scipy"]
    peers = [statistics.median(seconds[name]) for name in names[1:] if name in seconds]
    ratio = statistics.median(seconds["sparsetorch"]) / min(peers)
    return f"| {title} | {' | '.join(map(cell, names))} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Triangular solves beside PyTorch's and SciPy's.")
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--nodes", type=int, default=200_000, help="nodes of the power-law graph")
    parser.add_argument("--threads", type=int, help="PyTorch's threads; all by default")
    parser.add_argument("--repeats", type=int, default=15, help="turns")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, not wall clock")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    kind = "processor" if options.cpu_time else "wall-clock"
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    lines = [
        f"Lower triangles of 2-D Poisson, {options.grid} x {options.grid} grid, and of a power-law "
        f"graph, {options.nodes} nodes; {torch.get_num_threads()} threads (scipy: 1); torch "
        f"{torch.__version__}, scipy {scipy.__version__}; sparsetorch: "
        f"{backend_info()['cpu'].split()[0]}.",
        f"Transparent huge pages: {pages.read_text().strip() if pages.exists() else 'none'}. "
        f"Median (quartiles) of the {kind} time in ms.",
        "",
        "| solve | sparsetorch | torch | scipy | to best peer |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    clock = time.process_time if options.cpu_time else time.perf_counter
    matrices = {"Poisson": poisson(options.grid), "power law": power_law(options.nodes)}
    for name, matrix in matrices.items():
        for title, make, value, index, k in CASES:
            want, contenders = make(Problem(matrix, value, index, k))
            for contender, call in contenders.items():
                results = call()
                verify(f"{title} {contender}", results, want[: len(results)], value)
            seconds = times(contenders, options.repeats, clock)
            lines.append(row(f"{name}, {title}, {str(value)[6:]}", seconds))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
