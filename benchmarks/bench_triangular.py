"""Triangular solves of sparsetorch beside those of PyTorch (MKL) and SciPy.

    python benchmarks/bench_triangular.py [--grid 1000] [--nodes 200000] [--threads N] [--cpu-time]

The matrices are the lower triangles of the 2-D Poisson matrix and of the Laplacian (plus identity)
of a power-law graph, in the natural order. Every contender's result is compared with SciPy's in
float64 first, gradients with those of a solve whose products are written out; a mismatch ends the
run without a time. The contenders then take turns. Reported: median and quartiles of the wall-clock
(or, for a machine that others use too, processor) time and the ratio to a peer's (below 1:
sparsetorch is faster) beside the one that was aimed at.

PyTorch's gradient of a triangular solve with a sparse matrix is a dense n x n one, so forward and
backward together are shown beside its forward alone, and compared with numml's, if installed.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from matrices import poisson, power_law
from numml_peer import numml_matrix
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular
from side_by_side import (
    Contender,
    Results,
    Seconds,
    arguments,
    header,
    huge_pages,
    quartiles,
    report,
    times,
    verify,
    versions,
)
from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch.linalg import solve_triangular

Case = tuple[Results, dict[str, Contender]]


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
    """Forward, gradient of the values and gradient of b; beside PyTorch's forward alone.

    numml, where it is installed, is the peer that has both gradients.
    """
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

    contenders: dict[str, Contender] = {"sparsetorch": ours, "torch (forward only)": torchs}
    theirs = numml_matrix(values, p.A.pattern.crow, p.A.pattern.col)
    if theirs is not None:

        def numml() -> tuple[Tensor, ...]:
            solution = theirs.solve_triangular(False, False, b[:, 0])
            return solution, *torch.autograd.grad(solution, (values, b), p.b[:, 0])

        contenders["numml"] = numml
    return (x, gradient, back), contenders


CASES = [  # title, contenders, dtype, index dtype of the peers, columns, share of the repeats, goal
    ("solve", forward, torch.float32, torch.int32, 1, 1.0, ("torch", 1.0)),
    ("solve", forward, torch.float64, torch.int32, 1, 1.0, ("torch", 1.0)),
    ("transposed solve", transposed, torch.float64, torch.int32, 1, 1.0, ("torch", 1.0)),
    ("solve, 16 columns", forward, torch.float64, torch.int32, 16, 1.0, ("torch", 1.0)),
    ("solve, both gradients", both_gradients, torch.float64, torch.int32, 1, 0.2, ("numml", 0.02)),
]


def row(title: str, seconds: Seconds, goal: tuple[str, float]) -> str:
    names = ["sparsetorch", next(n for n in seconds if n.startswith("torch")), "scipy", "numml"]
    cells = [quartiles(seconds[name]) if name in seconds else "-" for name in names]
    medians = {name: statistics.median(t) for name, t in seconds.items()}
    peer, most = goal
    reached = medians["sparsetorch"] / medians[peer] if peer in medians else None
    cells.append("-" if reached is None else f"{reached:.3f} of {peer}'s (<= {most})")
    return f"| {title} | {' | '.join(cells)} |"


def table(options: argparse.Namespace) -> Iterator[str]:
    kind = "processor" if options.cpu_time else "wall-clock"
    yield (
        f"Lower triangles of 2-D Poisson, {options.grid} x {options.grid} grid, and of a power-law "
        f"graph, {options.nodes} nodes; {torch.get_num_threads()} threads (scipy: 1); {versions()}."
    )
    yield f"{huge_pages()}. Median (quartiles) of the {kind} time in ms."
    yield ""
    yield from header("solve", "sparsetorch", "torch", "scipy", "numml", "ratio (goal)")
    clock = time.process_time if options.cpu_time else time.perf_counter
    matrices = {"Poisson": poisson(options.grid), "power law": power_law(options.nodes)}
    for name, matrix in matrices.items():
        for title, make, value, index, k, share, goal in CASES:
            want, contenders = make(Problem(matrix, value, index, k))
            for contender, call in contenders.items():
                results = call()
                verify(f"{title} {contender}", results, want[: len(results)], value)
            seconds = times(contenders, max(3, round(options.repeats * share)), clock)
            yield row(f"{name}, {title}, {str(value)[6:]}", seconds, goal)


def main() -> None:
    parser = arguments("Triangular solves beside PyTorch's and SciPy's.", 15, "turns")
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--nodes", type=int, default=200_000, help="nodes of the power-law graph")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
