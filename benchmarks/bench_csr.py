"""CSR products of sparsetorch beside those of PyTorch, SciPy and, where it is installed, numml.

    python benchmarks/bench_csr.py [--grid 1000] [--nodes 200000] [--threads N] [--cpu-time]
                                   [--only TEXT] [--out FILE]

On the 2-D Poisson matrix and on the Laplacian of a power-law graph.

Every contender's result, gradients included, is compared with SciPy's in float64 first; a mismatch
ends the run without a time. The contenders then take turns, so that whatever else the machine does
falls on all of them. Reported: median and quartiles of the wall-clock time (or, for a machine that
others use too, of the processor time of all threads), the ratio to the best peer (below 1:
sparsetorch is faster) beside the ratio that was aimed at and, for SpMV, the ratio to the time in
which the machine copies as many bytes as the product has to move.

PyTorch's gradients are taken by its best route, a leaf CSR tensor with torch.sparse.mm. The route
from a tensor of values through torch.sparse_csr_tensor, which is what a learned matrix needs, fills
a dense n x n gradient and is impossible at this size.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from matrices import poisson, power_law
from numml_peer import numml_matrix
from scipy import sparse
from side_by_side import (
    Contender,
    Results,
    Seconds,
    arguments,
    as_array,
    copy_rate,
    cpu_name,
    header,
    huge_pages,
    quartiles,
    report,
    require,
    times,
    verify,
    versions,
)
from torch import Tensor

from sparsetorch_kernels import (
    Layout,
    forward_layout,
    permute,
    spgemm,
    spgemm_structure,
    spmm,
    spmv,
    transpose_structure,
)


class Problem:
    """One matrix in every contender's form, with random dense operands."""

    def __init__(
        self,
        matrix: sparse.csr_array,
        value: torch.dtype,
        index: torch.dtype,
        k: int,
        torch_can_square: bool,
    ):
        self.torch_can_square = torch_can_square
        crow, col = (torch.from_numpy(t).to(index) for t in (matrix.indptr, matrix.indices))
        n = crow.numel() - 1
        generator = torch.Generator().manual_seed(0)
        self.exact = sparse.csr_array(matrix.astype(np.float64))
        self.layout = Layout(crow, col, None, *transpose_structure(crow, col, n), n, n)
        self.values = torch.from_numpy(matrix.data).to(value).requires_grad_()
        self.csr = torch.sparse_csr_tensor(crow, col, self.values.detach(), (n, n))
        self.leaf = self.csr.clone().requires_grad_()
        self.scipy = sparse.csr_array(
            (self.values.detach().numpy(), col.numpy(), crow.numpy()), shape=(n, n)
        )
        self.x = torch.randn(n, k, generator=generator, dtype=value, requires_grad=True)
        self.g = torch.randn(n, k, generator=generator, dtype=value)

    def entries(self, u: Tensor, v: Tensor) -> np.ndarray:
        """<u_i, v_j> at the entries (i, j) of the matrix, in float64."""
        row = np.repeat(np.arange(self.layout.n_rows), np.diff(self.scipy.indptr))
        u64, v64 = u.detach().double().numpy(), v.detach().double().numpy()
        return np.einsum("ek,ek->e", u64[row], v64[self.scipy.indices])


def precise(x: Tensor) -> np.ndarray:
    """The same numbers in twice the precision."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64).numpy()


def spmv_forward(p: Problem) -> tuple[Results, dict[str, Contender]]:
    x, values = p.x.detach()[:, 0].contiguous(), p.values.detach()
    return (p.exact @ precise(x),), {
        "sparsetorch": lambda: (spmv(p.layout, values, x),),
        "torch": lambda: (p.csr @ x,),
        "scipy": lambda: (p.scipy @ x.numpy(),),
    }


def spmm_forward(p: Problem) -> tuple[Results, dict[str, Contender]]:
    x, values = p.x.detach(), p.values.detach()
    return (p.exact @ precise(x),), {
        "sparsetorch": lambda: (spmm(p.layout, values, x),),
        "torch": lambda: (p.csr @ x,),
        "scipy": lambda: (p.scipy @ x.numpy(),),
    }


def both_gradients(p: Problem) -> tuple[Results, dict[str, Contender]]:
    """Forward, gradient of the values and gradient of x; one column goes through spmv."""

    def ours():
        one = p.x.shape[1] == 1
        y = spmv(p.layout, p.values, p.x[:, 0])[:, None] if one else spmm(p.layout, p.values, p.x)
        return y, *torch.autograd.grad(y, (p.values, p.x), p.g)

    def torchs():
        y = torch.sparse.mm(p.leaf, p.x)
        da, dx = torch.autograd.grad(y, (p.leaf, p.x), p.g)
        return y, da.values(), dx

    contenders: dict[str, Contender] = {"sparsetorch": ours, "torch": torchs}
    theirs = numml_matrix(p.values, p.layout.crow, p.layout.col)
    if theirs is not None and p.x.shape[1] == 1:

        def numml():
            y = theirs.spmv(p.x[:, 0])
            return y, *torch.autograd.grad(y, (p.values, p.x), p.g[:, 0])

        contenders["numml"] = numml
    x64, g64 = p.x.detach().double().numpy(), p.g.double().numpy()
    return (p.exact @ x64, p.entries(p.g, p.x), p.exact.T @ g64), contenders


def spgemm_forward(p: Problem) -> tuple[Results, dict[str, Contender]]:
    """A A: sparsetorch on the pattern it computed once, the peers from nothing, as they must."""
    a, values = p.layout, p.values.detach()
    crow, col = spgemm_structure(a, a)
    c = Layout(crow, col, None, *transpose_structure(crow, col, a.n_cols), a.n_rows, a.n_cols)
    return (as_array(sparse.csr_array(p.exact @ p.exact)),), {
        "sparsetorch": lambda: (spgemm(a, values, a, values, c),),
        "torch": lambda: (p.csr @ p.csr,),
        "scipy": lambda: (sparse.csr_array(p.scipy @ p.scipy),),
    }


def spgemm_new_pattern(p: Problem) -> tuple[Results, dict[str, Contender]]:
    """A A with nothing known of the product, as the peers always compute it."""
    want, contenders = spgemm_forward(p)
    a, values = p.layout, p.values.detach()

    def ours():
        c = forward_layout(*spgemm_structure(a, a), a.n_rows, a.n_cols)
        return (spgemm(a, values, a, values, c),)

    return want, contenders | {"sparsetorch": ours}


def spgemm_gradients(p: Problem) -> tuple[Results, dict[str, Contender]]:
    """A A on a known pattern and its gradient; PyTorch's is wider than A, and not for every A."""
    a = p.layout
    crow, col = spgemm_structure(a, a)
    c = Layout(crow, col, None, *transpose_structure(crow, col, a.n_cols), a.n_rows, a.n_cols)
    g = torch.randn(len(col), generator=torch.Generator().manual_seed(1), dtype=p.values.dtype)
    shape = (a.n_rows, a.n_cols)
    grad = torch.sparse_csr_tensor(crow, col, g, shape)

    def ours():
        product = spgemm(a, p.values, a, p.values, c)
        return product, torch.autograd.grad(product, p.values, g)[0]

    def torchs():
        product = p.leaf @ p.leaf
        return product, torch.autograd.grad(product, p.leaf, grad)[0]

    exact = sparse.csr_array((g.double().numpy(), col.numpy(), crow.numpy()), shape=shape)
    chosen = np.sort(np.random.default_rng(2).permutation(a.n_rows)[:5000])  # all take minutes
    want = gradient_of_square(p.exact, exact, chosen)
    parts = {"sparsetorch": (ours()[1], a.col, a.crow)}
    contenders: dict[str, Contender] = {"sparsetorch": lambda: (ours()[0].detach(),)}
    if p.torch_can_square:
        wide = torchs()[1]
        parts["torch"] = (wide.values(), wide.col_indices(), wide.crow_indices())
        contenders["torch"] = lambda: (torchs()[0].detach(),)
    for name, arrays in parts.items():
        found = sparse.csr_array(tuple(t.numpy() for t in arrays), shape=shape)
        found = at_entries(found[chosen], p.exact[chosen])
        error = np.linalg.norm(found - want) / np.linalg.norm(want)
        require(f"SpGEMM, gradient, {name}", float(error), 1e-5)
    return (as_array(sparse.csr_array(p.exact @ p.exact)),), contenders


def gradient_of_square(A: sparse.csr_array, G: sparse.csr_array, rows: np.ndarray) -> np.ndarray:
    """G A^T + A^T G at the entries of some rows of A."""
    turned = sparse.csr_array(A.T)
    return at_entries(G[rows] @ turned + turned[rows] @ G, A[rows])


def at_entries(matrix: sparse.csr_array, pattern: sparse.csr_array) -> np.ndarray:
    """The entries of a matrix where the other one has some."""
    return np.asarray(sparse.csr_matrix(matrix)[sparse.coo_array(pattern).coords]).ravel()


def transpose(p: Problem, known: bool) -> tuple[Results, dict[str, Contender]]:
    """The transpose in CSR form; `known`: only the values move, to places found before."""
    a, values = p.layout, p.values.detach()
    order = a.t_perm
    assert order is not None

    def ours():
        places = order if known else transpose_structure(a.crow, a.col, a.n_cols)[2]
        return (permute(values, places),)

    return (as_array(sparse.csr_array(p.exact.T)),), {
        "sparsetorch": ours,
        "torch": lambda: (p.csr.t().to_sparse_csr(),),
        "scipy": lambda: (sparse.csr_array(p.scipy.T.tocsr()),),
    }


@dataclass(frozen=True)
class Case:
    """What is timed, and the ratios to each peer's time that were aimed at."""

    title: str
    make: Callable[[Problem], tuple[Results, dict[str, Contender]]]
    value: torch.dtype = torch.float32
    index: torch.dtype = torch.int32
    columns: int = 1
    share: float = 1.0  # of the repeats
    goals: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.title}, {str(self.value)[6:]}/{str(self.index)[6:]}"


F64, I64 = torch.float64, torch.int64
SPMM, GRADIENTS = {"torch": 0.4, "scipy": 0.55}, {"torch": 1 / 20, "numml": 1 / 2}
CASES = [
    Case("SpMV", spmv_forward, goals={"torch": 0.95}),
    Case("SpMV", spmv_forward, index=I64, goals={"torch": 0.6}),
    Case("SpMV", spmv_forward, F64, goals={"torch": 0.95}),
    Case("SpMV", spmv_forward, F64, I64, goals={"torch": 0.6}),
    Case("SpMV", spmv_forward, torch.complex128),
    Case("SpMV, both gradients", both_gradients, share=0.5, goals=GRADIENTS),
    Case("SpMV, both gradients", both_gradients, F64, share=0.5, goals=GRADIENTS),
    Case("SpMM 64", spmm_forward, columns=64, share=0.3, goals=SPMM),
    Case("SpMM 64", spmm_forward, F64, columns=64, share=0.3, goals=SPMM),
    Case("SpMM 64", spmm_forward, torch.complex128, columns=64, share=0.2),
    Case("SpMM 64, both gradients", both_gradients, columns=64, share=0.3, goals={"torch": 1 / 4}),
    Case("SpGEMM A A, known pattern", spgemm_forward, share=0.3, goals={"scipy": 0.5}),
    Case("SpGEMM A A, new pattern", spgemm_new_pattern, share=0.3, goals={"scipy": 0.8}),
    Case("SpGEMM A A, gradient", spgemm_gradients, share=0.1, goals={"torch": 1 / 10}),
    Case("transpose, known pattern", partial(transpose, known=True), goals={"scipy": 0.25}),
    Case("transpose, new pattern", partial(transpose, known=False), goals={"scipy": 0.7}),
]
PEERS = ("torch", "scipy", "numml")


def row(title: str, seconds: Seconds, goals: dict[str, float], floor: float | None) -> str:
    """A line of the table."""
    medians = {name: statistics.median(t) for name, t in seconds.items()}
    ours = medians["sparsetorch"]
    cells = [quartiles(seconds[n]) if n in seconds else "-" for n in ("sparsetorch", *PEERS)]
    ratios, met = [], []
    for name in PEERS:
        if name not in medians:
            ratios.append("-")
            continue
        ratio = ours / medians[name]
        aim = f" (<= {goals[name]:.2f})" if name in goals else ""
        met += [ratio <= goals[name]] if name in goals else []
        ratios.append(f"{ratio:.2f}{aim}")
    verdict = ("yes" if all(met) else "no") if met else "-"
    to_floor = f"{ours / floor:.1f}" if floor else "-"
    return f"| {' | '.join([title, *cells, *ratios, verdict, to_floor])} |"


def setting(options: argparse.Namespace) -> list[str]:
    """What a reader has to know to compare: machine, versions, threads, huge pages."""
    command = f"python benchmarks/bench_csr.py --grid {options.grid} --nodes {options.nodes}"
    command += f" --repeats {options.repeats}"
    command += f" --threads {options.threads}" if options.threads else ""
    command += " --cpu-time" if options.cpu_time else ""
    command += f" --only '{options.only}'" if options.only else ""
    titles = ("product", "sparsetorch", *PEERS, *(f"to {peer} (goal)" for peer in PEERS))
    return [
        f"2-D Poisson, {options.grid} x {options.grid} grid, and a power-law graph, "
        f"{options.nodes} nodes; {cpu_name()}; {torch.get_num_threads()} threads (scipy: 1); "
        f"{versions()}.",
        f"{huge_pages()}; THP_MEM_ALLOC_ENABLE={os.environ.get('THP_MEM_ALLOC_ENABLE', 'unset')}.",
        f"Command: `{command}`. Median (quartiles) of the "
        f"{'processor' if options.cpu_time else 'wall-clock'} time in ms.",
        "",
        *header(*titles, "met", "to copy floor"),
    ]


def table(options: argparse.Namespace) -> Iterator[str]:
    yield from setting(options)
    clock = time.process_time if options.cpu_time else time.perf_counter
    rate = copy_rate(clock)
    matrices = {"Poisson": poisson(options.grid), "power law": power_law(options.nodes)}
    for (name, matrix), case in product(matrices.items(), CASES):
        title = f"{name}: {case.name}"
        if options.only not in title:
            continue
        # PyTorch does not mask the gradient of a product: on the graph it takes over 24 GB.
        square = name == "Poisson"
        problem = Problem(matrix, case.value, case.index, case.columns, square)
        want, contenders = case.make(problem)
        for contender, call in contenders.items():
            verify(f"{title} {contender}", call(), want, case.value)
        seconds = times(contenders, max(3, round(options.repeats * case.share)), clock)
        value, index = case.value.itemsize, case.index.itemsize
        n, nnz = matrix.indptr.size - 1, matrix.nnz
        moved = nnz * (value + index) + n * (2 * value + index)
        floor = moved / rate if case.make is spmv_forward else None
        yield row(title, seconds, case.goals, floor)


def main() -> None:
    parser = arguments(
        "CSR products beside those of PyTorch, SciPy and numml.", 31, "turns of the fastest"
    )
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--nodes", type=int, default=200_000, help="nodes of the power-law graph")
    parser.add_argument("--only", default="", help="products whose title contains this")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
