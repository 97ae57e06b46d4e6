"""What a solver returns: a solution with a status, or an error that says what to try."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor


class Status(Enum):
    """How a solve ended; each member's value is (what happened, what to try)."""

    CONVERGED = ("the residual met the tolerance", "")
    MAXITER = (
        "the iteration limit was reached before the tolerance",
        "raise maxiter, pass a better preconditioner, or loosen rtol",
    )
    INACCURATE = (
        "the iteration met the tolerance but b - A x did not",
        "rounding limits the residual: use float64 or loosen rtol; if the preconditioner changes "
        "from call to call, use method='fgmres'; 'minres' needs a symmetric matrix",
    )
    DIVERGED = (
        "the residual grew without bound or became NaN",
        "check the matrix and the preconditioner for NaN, and that the method suits the matrix: "
        "'cg' and 'chebyshev' need a symmetric positive definite one, 'chebyshev' also bounds that "
        "enclose its eigenvalues",
    )
    INDEFINITE = (
        "a direction of zero or negative curvature was met, so the matrix or the preconditioner is "
        "not symmetric positive definite",
        "use method='minres' for a symmetric matrix, method='gmres' or method='direct' (in "
        "factorized, method='lu') for any, or make the preconditioner symmetric positive definite",
    )
    UNSTABLE = (
        "elimination met a pivot that is too small, or lost too many digits, without exchanges of "
        "rows",
        "use method='direct' (in factorized, 'auto' or 'lu'), which exchanges rows",
    )
    BREAKDOWN = (
        "the Krylov space was exhausted before the residual met the tolerance, so the matrix or "
        "the preconditioner is singular",
        "check that b is in the range of A, or fix a value of x to remove the null space",
    )
    LANCZOS_BREAKDOWN = (
        "an inner product that the recurrence divides by vanished",
        "use method='gmres', start from another x0, or pass a better preconditioner",
    )
    SINGULAR = (
        "the matrix is singular",
        "check for rows or columns that are empty or equal, or fix a value of x to remove the null "
        "space",
    )

    def __repr__(self) -> str:
        return f"Status.{self.name}"

    @property
    def message(self) -> str:
        """What happened."""
        return self.value[0]

    @property
    def remedy(self) -> str:
        """What to try; empty if all is well."""
        return self.value[1]


@dataclass(frozen=True, eq=False)
class Solution:
    """The outcome of a solve; two of them are equal if they are the same object.

    x: (n,) or (n, k) like the right-hand side; the last iterate when the solve failed.
    status: how it ended. iterations: of the column that took most; 0 for a direct solve.
    residuals: norms of b - A x, one per iteration from the initial guess on, as the method updates
    them, and the last one computed afresh; for (n, k) the largest over the columns. detail: what
    the status does not say, such as which row is empty.
    """

    x: Tensor = field(repr=False)
    status: Status
    iterations: int
    residuals: list[float] = field(repr=False)
    detail: str = ""

    @property
    def converged(self) -> bool:
        """Whether the solve succeeded."""
        return self.status is Status.CONVERGED

    @property
    def message(self) -> str:
        """What happened and what to try, in one sentence each."""
        detail = f" ({self.detail})" if self.detail else ""
        last = f"; the last residual norm is {self.residuals[-1]:.3g}" if self.residuals else ""
        remedy = f" To try: {self.status.remedy}." if self.status.remedy else ""
        return (
            f"{self.status.name.lower()} after {self.iterations} iterations: "
            f"{self.status.message}{detail}{last}.{remedy}"
        )

    def checked(self) -> Solution:
        """This solution if it converged.

        Raises:
            SolveError: it did not.
        """
        if not self.converged:
            raise SolveError(self)
        return self


class SolveError(RuntimeError):
    """A solve that failed; `.solution` is what it got to, and the message says what to try."""

    def __init__(self, solution: Solution):
        super().__init__(solution.message)
        self.solution = solution

    def __reduce__(self):
        return SolveError, (self.solution,)
