"""Factorize a matrix by the method that suits it."""

from __future__ import annotations

from typing import Literal, get_args

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.cholesky import cholesky, ldlt
from sparsetorch.linalg.cudss import cudss
from sparsetorch.linalg.dtypes import HALF, widened
from sparsetorch.linalg.factorization import Factorization, HalfFactorization, check_finite, kept
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.lu import lu
from sparsetorch.linalg.solution import SolveError
from sparsetorch.linalg.symmetry import has_positive_diagonal, is_hermitian
from sparsetorch.structure import refuse_compiled
from sparsetorch_kernels import cholesky_is_compiled

DirectMethod = Literal["auto", "lu", "cholesky", "ldlt"]


def factorized(A: CSRTensor, method: DirectMethod = "auto") -> Factorization:
    """Factorize a square matrix of any floating or complex dtype.

    method: "cholesky" for a positive definite A, symmetric or, if complex, Hermitian, both
    triangles stored: multifrontal, ordered by minimum degree; the symbolic half is kept on the
    pattern, so that further values cost arithmetic only. "ldlt": the same as L D L^T with pivots of
    either sign, for an indefinite A; rows are not exchanged, so it fails where a pivot vanishes
    (as it may in a saddle point matrix, whose diagonal has zeros) or rounding grows: the factors,
    in float64 for every dtype, are tried on a right-hand side, and solutions are refined by one
    step if that shows a need.
    "lu": SciPy's SuperLU, ordered by minimum degree on A + A^T with a preference for diagonal
    pivots where the pattern is symmetric, by COLAMD elsewhere.
    "auto": where A is symmetric or Hermitian, Cholesky if the diagonal is positive, then L D L^T;
    where they fail, and for other matrices, LU (and LU throughout where the C++ library could not
    be compiled). Complex matrices take Cholesky and L D L^T in their real form of twice the size.
    Equivalent to `scipy.sparse.linalg.splu`, and for Cholesky and L D L^T to CHOLMOD. float16 and
    bfloat16 are factorized in float32; solutions for right-hand sides of A's dtype are rounded
    once. On CUDA both "auto" and "lu" are cuDSS, which needs nvmath-python and has no determinants.

    Raises:
        SolveError: the matrix is singular, with rows and columns that are empty named; for
            "cholesky", it is not positive definite, and for "ldlt", it needs exchanges of rows,
            with the column named.
        ImportError: nvmath-python is not installed, on CUDA.
        ValueError: a batch of matrices, not square, on another device, NaN or infinity among the
            values, too many entries for SuperLU's 32-bit indices, or another method; for
            "cholesky" and "ldlt", not symmetric or Hermitian, with the entry named.
        TypeError: other dtypes.
    """
    refuse_compiled("factorized")
    if method not in get_args(DirectMethod):
        known = ", ".join(map(repr, get_args(DirectMethod)))
        raise ValueError(f"method: expected one of {known}, got {method!r}")
    check_system(A, A.values.new_zeros(A.shape[-2]))
    on_cuda = A.device.type == "cuda"
    if A.device.type != "cpu" and not (on_cuda and method in ("auto", "lu")):
        raise ValueError(
            f"A: direct methods run on the CPU, and LU on CUDA, got {A.device} and {method!r}; use "
            "A.to('cpu') or an iterative method"
        )
    check_finite(A)
    A = kept(A)
    if A.dtype in HALF:
        return HalfFactorization(A, factorized(widened(A), method))
    if on_cuda:
        return cudss(A)
    if method == "cholesky":
        return cholesky(A)
    if method == "ldlt":
        return ldlt(A)
    return (_symmetric(A) if method == "auto" else None) or lu(A)


def _symmetric(A: CSRTensor) -> Factorization | None:
    """The factors that a symmetric or Hermitian matrix has without exchanges of rows, if any."""
    if not (cholesky_is_compiled() and is_hermitian(A)):
        return None
    for factorize in (cholesky, ldlt) if has_positive_diagonal(A) else (ldlt,):
        try:
            return factorize(A, checked=True)
        except SolveError:
            pass  # indefinite, or in need of exchanges
    return None
