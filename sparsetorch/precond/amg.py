"""Algebraic multigrid: set up by PyAMG on the CPU, applied by this package on any device.

Ruge and Stueben (1987); Vanek, Mandel and Brezina (1996). The cycle is that of Briggs, Henson and
McCormick, A Multigrid Tutorial, chapter 3; its smoother follows Baker, Falgout, Kolev and Yang,
Multigrid smoothers for ultraparallel computing (2011): a polynomial in D^-1 A, where D has the row
sums of |A|. The eigenvalues of D^-1 A need no estimate, as none is above 1.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsetorch.checks import check_count, check_tensor
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.columns import unit_scale
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, names
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.precond.chebyshev import Chebyshev
from sparsetorch.precond.jacobi import check_square
from sparsetorch.precond.pytrees import register
from sparsetorch.precond.vectors import check_vectors
from sparsetorch.structure import outside_transforms, plain, refuse_compiled

# A coarsest level up to this size is solved by its dense pseudo-inverse.
DENSE_SIZE = 1000

Kind = Literal["ruge_stuben", "smoothed_aggregation"]


class Level(NamedTuple):
    """A level and the way to the next coarser one."""

    A: CSRTensor  # (n, n)
    smoother: Chebyshev
    restriction: CSRTensor  # (n_coarse, n)
    interpolation: CSRTensor  # (n, n_coarse)


class Multigrid:
    """The preconditioner z = M r: one V-cycle from zero, smoothing before and after.

    levels: from fine to coarse. coarsest: what solves on the last level, a dense inverse (n_c, n_c)
    or a smoother. On each level I - M A = (I - S A) (I - P M_c R A) (I - S A) with the smoother S
    and the next level's M_c, so M is Hermitian positive definite if A is. Made by `amg`.
    """

    def __init__(self, levels: list[Level], coarsest: Tensor | Chebyshev):
        self.levels = levels
        self.coarsest = coarsest

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n); errors as in `Jacobi`."""
        check_tensor("r", r)
        with in_full_precision(r.device):
            return self._cycle(0, r)

    def _cycle(self, depth: int, r: Tensor) -> Tensor:
        if depth == len(self.levels):
            if isinstance(self.coarsest, Tensor):
                check_vectors("AMG", r, self.coarsest.shape[-1], self.coarsest)
                return r @ self.coarsest.mT
            return self.coarsest(r)
        A, smooth, restriction, interpolation = self.levels[depth]
        z = smooth(r)
        coarse = self._cycle(depth + 1, restriction.matvec(r - A.matvec(z)))
        z = z + interpolation.matvec(coarse)
        return z + smooth(r - A.matvec(z))

    @property
    def T(self) -> Multigrid:
        """The V-cycle for the transposed matrix; restriction and interpolation change places."""
        levels = [
            Level(level.A.T, level.smoother.T, level.interpolation.T, level.restriction.T)
            for level in self.levels
        ]
        coarsest = self.coarsest
        return Multigrid(levels, coarsest.mT if isinstance(coarsest, Tensor) else coarsest.T)


register(Multigrid, ("levels", "coarsest"))


def amg(A: CSRTensor, kind: Kind = "ruge_stuben", *, degree: int = 1, **options: Any) -> Multigrid:
    """An algebraic multigrid V-cycle for A, set up by PyAMG.

    A: one square CSRTensor, float32, float64, complex64 or complex128, on any device; Hermitian
    positive definite for a preconditioner that is. kind: "ruge_stuben" (classical; scalar problems,
    close to M-matrices; real ones only) or "smoothed_aggregation" (also complex matrices, and
    systems such as elasticity, with their rigid motions as B). degree: of the Chebyshev polynomial
    that smooths before and after; 0 is damped Jacobi. options: those of `pyamg.ruge_stuben_solver`
    or `pyamg.smoothed_aggregation_solver`, apart from those that say how PyAMG itself smooths and
    solves, which are not used. For complex A the latter takes restriction = interpolation^H, or
    with symmetry="symmetric" interpolation^T; B, the vectors that A nearly maps to zero, is all
    ones by default, which a complex matrix may well not.

    The set-up runs on the CPU in double precision and gives the same result each time.
    Differentiable in r but not in `A.values`, which are copied: inside `torch.func.grad` it takes
    part as a constant. Under `torch.vmap` over matrices it is refused.

    Raises:
        ImportError: PyAMG is not installed.
        ValueError: A is a batch or not square, or has a row of zeros, NaN or infinity; another
            kind; a negative degree.
        TypeError: A is not a CSRTensor of one of these dtypes, or is complex and the kind, or an
            option, is for real matrices in PyAMG; degree is no number.
    """
    refuse_compiled("amg")
    check_square(A)
    if A.dtype not in DEFAULT_RTOL:
        raise TypeError(f"A: expected {names(DEFAULT_RTOL)}, got {A.dtype}")
    if kind not in ("ruge_stuben", "smoothed_aggregation"):
        raise ValueError(f"kind: expected 'ruge_stuben' or 'smoothed_aggregation', got {kind!r}")
    if kind == "ruge_stuben" and A.dtype.is_complex:
        raise TypeError(
            f"A: PyAMG interpolates by 'ruge_stuben' for float32 or float64 only, got {A.dtype}; "
            "take kind='smoothed_aggregation'"
        )
    degree = check_count("degree", degree, "products with A", least=0)
    with outside_transforms():
        values = plain(A.values).detach().clone()
        if values.ndim > 1:
            raise ValueError(
                "A: amg sets up one hierarchy, and torch.vmap maps over several matrices; make it "
                "outside of vmap, of one matrix or of each"
            )
        return _set_up(A.with_values(values), kind, degree, options)


def _set_up(A: CSRTensor, kind: Kind, degree: int, options: dict[str, Any]) -> Multigrid:
    if not bool(A.values.isfinite().all()):
        raise ValueError("A: expected finite values, got NaN or infinity")
    zeros = torch.nonzero(A.map(torch.abs).sum(-1) == 0)[:, 0]
    if len(zeros):
        raise ValueError(f"A: {len(zeros)} rows are zero, the first of them row {int(zeros[0])}")
    size = unit_scale(A.values)  # PyAMG compares squares of entries, which have to be in range
    *fine, coarsest = _hierarchy(A / size, kind, options)
    levels: list[Level] = []
    for level in fine:
        here = _like(A, level.A) * size if levels else A
        smoother = _smoother(here, degree)
        levels.append(Level(here, smoother, _like(A, level.R), _like(A, level.P)))
    if coarsest.A.shape[0] > DENSE_SIZE:  # nothing is coupled strongly enough to be coarsened
        return Multigrid(levels, _smoother(_like(A, coarsest.A) * size, degree))
    # What is singular is so only up to rounding.
    rounding = torch.finfo(A.dtype).eps * max(100, coarsest.A.shape[0])
    inverse = np.linalg.pinv(coarsest.A.toarray(), rcond=rounding)
    return Multigrid(levels, torch.from_numpy(inverse).to(A.values) / size)


def _hierarchy(A: CSRTensor, kind: Kind, options: dict[str, Any]) -> list[Any]:
    """PyAMG's levels, each with A, and P and R except for the last."""
    try:
        import pyamg
    except ImportError as error:
        raise ImportError("PyAMG is not installed: pip install 'pyamg>=5.2'") from error
    build = {
        "ruge_stuben": pyamg.ruge_stuben_solver,
        "smoothed_aggregation": pyamg.smoothed_aggregation_solver,
    }[kind]
    # PyAMG estimates spectral radii from vectors of NumPy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    matrix = A.to(torch.complex128 if A.dtype.is_complex else torch.float64).to_scipy()
    try:
        return build(matrix, **options).levels
    except TypeError as error:
        if not A.dtype.is_complex:
            raise
        what = ", ".join(f"{name}={option!r}" for name, option in options.items())
        raise TypeError(
            f"A, options: PyAMG refuses {A.dtype} with {what or 'these options'}; its strengths "
            "'affinity' and 'algebraic_distance' and its aggregation 'pairwise' are for float32 or "
            "float64"
        ) from error
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _like(A: CSRTensor, matrix: Any) -> CSRTensor:
    return CSRTensor.from_scipy(matrix, dtype=A.dtype, device=A.device)


def _smoother(A: CSRTensor, degree: int) -> Chebyshev:
    sums = A.map(torch.abs).sum(-1)
    scale = torch.where(sums > 0, 1 / sums, 0)
    # The eigenvalues below are left to the coarser levels. From 1/2 to 1 the polynomial of degree 0
    # is 4/3, the damping of smoothed aggregation.
    return Chebyshev(A, scale, degree, (0.5 / (degree + 1), 1.0))
