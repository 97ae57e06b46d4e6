"""Direct solves of sparsetorch beside SciPy's SuperLU, on Poisson matrices.

    python benchmarks/bench_direct.py [--sizes 300x300 30x30x30] [--threads N] [--out FILE]

Every contender's solution is compared with the known one first, the log-determinant with that of
SuperLU's factors and the selected inverse with columns that SuperLU solves for; a mismatch ends the
run without a time. The contenders then take turns. SuperLU gets its best ordering for these
matrices, minimum degree on A + A^T in symmetric mode without interchanges; it runs on one thread.
Reported: median and quartiles of the wall-clock time, and the ratio to SuperLU's factorization and
solve (below 1: sparsetorch is faster).

"New pattern" is all the work from arrays of indices to the solution: checks, transpose, ordering,
symbolic and numeric factorization. "New values" is what each step of a training or of a Newton
iteration costs, on a pattern that is known. The indefinite matrix is the Poisson matrix minus half
the identity, for which SuperLU has to be free to exchange rows. The gradient is that of log det A
in all its values.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from side_by_side import Seconds, arguments, header, quartiles, report, require, times, versions

from sparsetorch import CSRTensor, Pattern, poisson
from sparsetorch.linalg import factorized, logdet, selected_inverse

SHIFT = 0.5  # of the indefinite matrix A - SHIFT I


def superlu(matrix: sparse.csc_array) -> SuperLU:
    return splu(
        matrix,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


class Problem:
    """A Poisson matrix, a right-hand side, and what all contenders must find."""

    def __init__(self, sizes: tuple[int, ...]):
        self.A = poisson(*sizes, dtype=torch.float64)
        self.matrix = sparse.csc_array(self.A.to_scipy())
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(self.A.shape[0], generator=generator, dtype=torch.float64)
        self.b = self.A @ self.x
        self.known = factorized(self.A, "cholesky")
        shift = torch.full((self.A.shape[0],), SHIFT, dtype=torch.float64)
        self.helmholtz = self.A.add_diagonal(-shift)
        self.known_ldlt = factorized(self.helmholtz, "ldlt")
        self.known_lu = factorized(self.A, "lu").refactorized(self.A)

    def contenders(self) -> dict[str, Callable[[], object]]:
        A, b, right = self.A, self.b, self.b.numpy()
        crow, col, shape = A.pattern.crow, A.pattern.col, A.pattern.shape
        return {
            "SuperLU: factor and solve": lambda: superlu(self.matrix).solve(right),
            "Cholesky, new pattern: factor and solve": lambda: factorized(
                CSRTensor(Pattern(crow, col, shape), A.values), "cholesky"
            ).solve(b),
            "Cholesky, new values: factor and solve": lambda: self.known.refactorized(A).solve(b),
            "LU, new values: factor and solve": lambda: self.known_lu.refactorized(A).solve(b),
            **self.indefinite(),
            "Cholesky: factor only, new values": lambda: self.known.refactorized(A),
            "Cholesky: solve only": lambda: self.known.solve(b),
            "log det and its gradient": self.gradient,
            "selected inverse": lambda: selected_inverse(A),
        }

    def indefinite(self) -> dict[str, Callable[[], object]]:
        """The same for Helmholtz' equation."""
        A, b = self.helmholtz, self.helmholtz @ self.x
        matrix, right = sparse.csc_array(A.to_scipy()), b.numpy()
        return {
            "SuperLU, indefinite: factor and solve": lambda: splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.1,
                options={"SymmetricMode": True},
            ).solve(right),
            "L D L^T, new values: factor and solve": lambda: self.known_ldlt.refactorized(A).solve(
                b
            ),
        }

    def gradient(self) -> torch.Tensor:
        values = self.A.values.clone().requires_grad_()
        logdet(self.A.with_values(values)).backward()
        assert values.grad is not None
        return values.grad

    def verify(self) -> None:
        """Raise unless every contender is right."""
        for name, call in self.contenders().items():
            if "solve" in name:
                error = np.linalg.norm(np.asarray(call()) - self.x.numpy())
                tolerance = 1e-9 if name in self.indefinite() else 1e-11  # worse conditioned
                require(name, float(error) / float(self.x.norm()), tolerance)
        lu = superlu(self.matrix)
        exact = np.log(np.abs(lu.U.diagonal())).sum()
        require("log det", abs(float(logdet(self.A)) - exact) / abs(exact), 1e-12)
        columns = np.linspace(0, self.A.shape[0] - 1, 5).astype(np.int64)
        identity = np.zeros((self.A.shape[0], len(columns)))
        identity[columns, np.arange(len(columns))] = 1.0
        inverse = lu.solve(identity)
        row, col = self.A.pattern.row.numpy(), self.A.pattern.col.numpy()
        for entries in (selected_inverse(self.A).values, self.gradient()):
            for k, j in enumerate(columns):
                stored = col == j
                want = inverse[row[stored], k]
                error = np.linalg.norm(entries.numpy()[stored] - want) / np.linalg.norm(want)
                require(f"selected inverse, column {j}", float(error), 1e-11)


def rows(title: str, seconds: Seconds) -> list[str]:
    base = statistics.median(seconds["SuperLU: factor and solve"])
    return [
        f"| {title} | {name} | {quartiles(t, 1)} | {statistics.median(t) / base:.2f} |"
        for name, t in seconds.items()
    ]


def table(options: argparse.Namespace) -> Iterator[str]:
    yield f"Poisson, float64; {torch.get_num_threads()} threads (SuperLU: 1); {versions()}."
    yield (
        f"Command: `python benchmarks/bench_direct.py --sizes {' '.join(options.sizes)} "
        f"--threads {torch.get_num_threads()} --repeats {options.repeats}`. "
        "Median (quartiles) of the wall-clock time in ms."
    )
    yield ""
    yield from header("grid", "work", "ms", "to SuperLU")
    for title in options.sizes:
        problem = Problem(tuple(int(n) for n in title.split("x")))
        problem.verify()
        yield from rows(title, times(problem.contenders(), options.repeats, warmup=1))


def main() -> None:
    parser = arguments("Direct solves beside SciPy's SuperLU.", 11, "turns", cpu_time=False)
    parser.add_argument("--sizes", nargs="+", default=["300x300", "30x30x30"], help="grids")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report(table(options), options.out)


if __name__ == "__main__":
    main()
