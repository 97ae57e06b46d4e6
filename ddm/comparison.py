"""Methods on one system side by side: a table, and the runs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddm.given import as_problem
from ddm.learned import InterfaceNet
from ddm.limits import check_limits
from ddm.methods import Maker, makers
from ddm.problems.problem import Elements
from ddm.runs import COLUMNS, Run, run, warm_up
from ddm.table import Table
from ddm.workbench import Workbench

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT = ("ras", "oras", "oras_tuned", "geneo", "mggnn", "amg")


class Comparison(Table):
    """A table with a row for each run, and the runs by name.

    Columns: the method and its settings; number of subdomains, their overlap, the stored entries of
    all local matrices (`local_nnz`; of all levels for AMG), unknowns and stored entries of the
    coarse problem; iterations of the stationary iteration and its convergence factor; the Krylov
    method and its iterations; seconds of set-up and of the Krylov solve; and how it ended.

    Attributes:
        runs: `Run` by method.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        super().__init__(COLUMNS)
        self.runs: dict[str, Run] = {}
        for one in runs:
            self.add_run(one)

    def add_run(self, run: Run) -> None:
        """Append a run's row."""
        self.runs[run.method] = run
        self.add(**run.row())

    def plot(self) -> Figure:
        """Residuals of the Krylov methods and of the stationary iterations, and the seconds."""
        from ddm.plot import plot_runs

        return plot_runs(self.runs)


def compare(
    A: Any,
    b: np.ndarray | torch.Tensor | None = None,
    methods: Sequence[str] | Mapping[str, str | Maker] = DEFAULT,
    coords: np.ndarray | None = None,
    rtol: float = 1e-6,
    *,
    subdomain: int = 64,
    near_nullspace: np.ndarray | None = None,
    block_size: int | None = None,
    elements: Elements | None = None,
    net: InterfaceNet | str | None = None,
    maxiter: int = 500,
    partitioner: str = "auto",
    search_s: float = 30.0,
) -> Comparison:
    """Run methods on one system, all with the same subdomains: a table with a row for each.

    A method that does not apply, fails or diverges has a row that says so, with its history in
    `runs`; the others are not affected.

    Args:
        A: (n, n) SciPy sparse matrix, the path of a file of one (see `ddm.from_matrix`), CSRTensor
            (from any device; all runs on the CPU, in float64 or complex128), or
            `ddm.Problem`, which brings the arrays below.
        b: (n,) right-hand side; None takes the problem's, or normal numbers where that is zero.
        methods: short names (`ddm.methods.METHODS`): "ras", "oras" (Robin weight 0.5), "oras_tuned"
            (`ddm.best_classical`), "as", "soras", "geneo", "mggnn", "amg", "direct"; or a mapping
            from names to short names, to `ddm.classical.Classical`, or to functions of a
            `ddm.workbench.Workbench` that return a preconditioner.
        coords: (n, d) positions of the unknowns.
        rtol: relative residual.
        subdomain: unknowns that a subdomain owns.
        near_nullspace: (n, k), such as rigid-body modes; None: constants.
        block_size: unknowns a node, numbered node by node; None is one.
        elements: element matrices that sum to A, for "geneo", "soras" and "oras_tuned" on other
            matrices than M-matrices.
        net: the network of "mggnn", or the name of one that ships; None takes one that ships and
            has seen such matrices.
        maxiter: of the stationary iterations and of the Krylov methods.
        partitioner: "metis", "lloyd", "rcb" or "auto", see `ddm.partition.partition`.
        search_s: seconds after which the search of "oras_tuned" begins no other candidate; math.inf
            lets it end.

    Raises:
        TypeError, ValueError: arguments that do not fit, unknown methods, a singular matrix or one
            with NaN or zero rows.
    """
    chosen = makers(methods)
    problem = as_problem(
        A, b, coords=coords, near_nullspace=near_nullspace, block_size=block_size, elements=elements
    )
    maxiter = check_limits(rtol, maxiter)
    bench = Workbench(
        problem, subdomain=subdomain, partitioner=partitioner, net=net, search_s=search_s
    )
    warm_up()
    bench.owner(bench.subdomain)  # a partitioner that cannot be used is an error, not a row
    return Comparison(
        run(name, maker, bench, rtol=rtol, maxiter=maxiter) for name, maker in chosen.items()
    )
