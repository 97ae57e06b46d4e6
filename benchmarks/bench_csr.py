"""CSR products of sparsetorch beside those of PyTorch and SciPy, on the 2-D Poisson matrix.

    python benchmarks/bench_csr.py [--grid 1000] [--threads N] [--cpu-time] [--out FILE]

Every contender's result, gradients included, is compared with SciPy's in float64 first; a mismatch
ends the run without a time. The contenders then take turns, so that whatever else the machine does
falls on all of them. Reported: median and quartiles of the wall-clock time (or, for a machine that
others use too, of the processor time of all threads), the ratio to the best peer (below 1:
sparsetorch is faster) and, for SpMV, the ratio to the time in which the machine copies as many
bytes as the product has to move.

PyTorch's gradients are taken by its best route, a leaf CSR tensor with torch.sparse.mm. The route
from a tensor of values through torch.sparse_csr_tensor, which is what a learned matrix needs, fills
a dense n x n gradient and is impossible at this size.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from matrices import poisson
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
    times,
    to_best_peer,
    verify,
    versions,
)
from torch import Tensor

from sparsetorch_kernels import (
    Layout,
    forward_layout,
    spgemm,
    spgemm_structure,
    spmm,
    spmv,
    transpose_structure,
)


class Problem:
    """One matrix in every contender's form, with random dense operands."""

    def __init__(self, matrix: sparse.csr_array, value: torch.dtype, index: torch.dtype, k: int):
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


def spmv_forward(p: Problem) -> tuple[Results, dict[str, Contender]]:
    x, values = p.x.detach()[:, 0].contiguous(), p.values.detach()
    return (p.exact @ x.double().numpy(),), {
        "sparsetorch": lambda: (spmv(p.layout, values, x),),
        "torch": lambda: (p.csr @ x,),
        "scipy": lambda: (p.scipy @ x.numpy(),),
    }


def spmm_forward(p: Problem) -> tuple[Results, dict[str, Contender]]:
    x, values = p.x.detach(), p.values.detach()
    return (p.exact @ x.double().numpy(),), {
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

    x64, g64 = p.x.detach().double().numpy(), p.g.double().numpy()
    want = (p.exact @ x64, p.entries(p.g, p.x), p.exact.T @ g64)
    return want, {"sparsetorch": ours, "torch": torchs}


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


def transpose(p: Problem, known: bool) -> tuple[Results, dict[str, Contender]]:
    """The transpose in CSR form; `known`: only the values move, to places found before."""
    a, values = p.layout, p.values.detach()
    order = a.t_perm
    assert order is not None

    def ours():
        places = order if known else transpose_structure(a.crow, a.col, a.n_cols)[2]
        return (values.index_select(0, places),)

    return (as_array(sparse.csr_array(p.exact.T)),), {
        "sparsetorch": ours,
        "torch": lambda: (p.csr.t().to_sparse_csr(),),
        "scipy": lambda: (sparse.csr_array(p.scipy.T.tocsr()),),
    }


def row(title: str, seconds: Seconds, floor: float | None) -> str:
    """A line of the table."""
    names = ("sparsetorch", "torch", "scipy")
    cells = [quartiles(seconds[name]) if name in seconds else "-" for name in names]
    ours = statistics.median(seconds["sparsetorch"])
    to_floor = f"{ours / floor:.1f}" if floor else "-"
    return f"| {title} | {' | '.join(cells)} | {to_best_peer(seconds):.2f} | {to_floor} |"


def setting(options: argparse.Namespace) -> list[str]:
    """What a reader has to know to compare: machine, versions, threads, huge pages."""
    command = f"python benchmarks/bench_csr.py --grid {options.grid} --repeats {options.repeats}"
    command += f" --threads {options.threads}" if options.threads else ""
    command += " --cpu-time" if options.cpu_time else ""
    command += f" --only '{options.only}'" if options.only else ""
    return [
        f"2-D Poisson, {options.grid} x {options.grid} grid; {cpu_name()}; "
        f"{torch.get_num_threads()} threads (scipy: 1); {versions()}.",
        f"{huge_pages()}; THP_MEM_ALLOC_ENABLE={os.environ.get('THP_MEM_ALLOC_ENABLE', 'unset')}.",
        f"Command: `{command}`. Median (quartiles) of the "
        f"{'processor' if options.cpu_time else 'wall-clock'} time in ms.",
        "",
        *header("product", "sparsetorch", "torch", "scipy", "to best peer", "to copy floor"),
    ]


CASES = [  # title, contenders, dtypes, columns, share of the repeats
    ("SpMV", spmv_forward, torch.float32, torch.int32, 1, 1.0),
    ("SpMV", spmv_forward, torch.float32, torch.int64, 1, 1.0),
    ("SpMV", spmv_forward, torch.float64, torch.int32, 1, 1.0),
    ("SpMV", spmv_forward, torch.float64, torch.int64, 1, 1.0),
    ("SpMV, both gradients", both_gradients, torch.float32, torch.int32, 1, 0.5),
    ("SpMV, both gradients", both_gradients, torch.float64, torch.int32, 1, 0.5),
    ("SpMM 64", spmm_forward, torch.float32, torch.int32, 64, 0.3),
    ("SpMM 64", spmm_forward, torch.float64, torch.int32, 64, 0.3),
    ("SpMM 64, both gradients", both_gradients, torch.float32, torch.int32, 64, 0.3),
    ("SpGEMM A A", spgemm_forward, torch.float32, torch.int32, 1, 0.3),
    ("SpGEMM A A, new pattern", spgemm_new_pattern, torch.float32, torch.int32, 1, 0.3),
    ("transpose", partial(transpose, known=True), torch.float32, torch.int32, 1, 0.5),
    ("transpose, new pattern", partial(transpose, known=False), torch.float32, torch.int32, 1, 0.5),
]


def table(options: argparse.Namespace) -> Iterator[str]:
    yield from setting(options)
    clock = time.process_time if options.cpu_time else time.perf_counter
    matrix, rate = poisson(options.grid), copy_rate(clock)
    n, nnz = matrix.indptr.size - 1, matrix.nnz
    for title, make, value, index, k, share in CASES:
        if options.only not in title:
            continue
        want, contenders = make(Problem(matrix, value, index, k))
        for name, call in contenders.items():
            verify(f"{title} {name}", call(), want, value)
        seconds = times(contenders, max(3, round(options.repeats * share)), clock)
        moved = nnz * (value.itemsize + index.itemsize) + n * (2 * value.itemsize + index.itemsize)
        floor = moved / rate if make is spmv_forward else None
        yield row(f"{title}, {str(value)[6:]}/{str(index)[6:]}", seconds, floor)


def main() -> None:
    parser = arguments(
        "CSR products beside PyTorch's and SciPy's.", 31, "turns of the fastest products"
    )
    parser.add_argument("--grid", type=int, default=1000, help="points along a side")
    parser.add_argument("--only", default="", help="products whose title contains this")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
