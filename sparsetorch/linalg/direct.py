"""Factorize a matrix by the method that suits it."""

from __future__ import annotations

from typing import Literal

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.cholesky import cholesky, may_be_positive_definite
from sparsetorch.linalg.cudss import cudss
from sparsetorch.linalg.dtypes import HALF, widened
from sparsetorch.linalg.factorization import Factorization, HalfFactorization, check_finite
from sparsetorch.linalg.krylov import check_system
from sparsetorch.linalg.lu import lu
from sparsetorch.linalg.solution import SolveError
from sparsetorch_kernels import cholesky_is_compiled

DirectMethod = Literal["auto", "lu", "cholesky"]


def factorized(A: CSRTensor, method: DirectMethod = "auto") -> Factorization:
    """Factorize a square matrix of any floating or complex dtype.

    method: "cholesky" for a real symmetric positive definite A, both triangles stored:
    multifrontal, ordered by minimum degree; the symbolic half is kept on the pattern, so that
    further values cost arithmetic only. "lu": SciPy's SuperLU, ordered by minimum degree on A + A^T
    with a preference for diagonal pivots where the pattern is symmetric, by COLAMD elsewhere.
    "auto": Cholesky where A is real and symmetric with a positive diagonal and turns out to be
    positive definite, else LU (and LU throughout where the C++ library could not be compiled).
    Equivalent to `scipy.sparse.linalg.splu`, and for Cholesky to CHOLMOD. float16 and bfloat16 are
    factorized in float32; solutions for right-hand sides of A's dtype are rounded once. On CUDA
    both "auto" and "lu" are cuDSS, which needs nvmath-python and has no determinants.

    Raises:
        SolveError: the matrix is singular, with rows and columns that are empty named; for
            "cholesky", it is not positive definite, with the column named.
        ImportError: nvmath-python is not installed, on CUDA.
        ValueError: a batch of matrices, not square, on another device, NaN or infinity among the
            values, too many entries for SuperLU's 32-bit indices, or another method; for
            "cholesky", not symmetric, with the entry named.
        TypeError: other dtypes, or "cholesky" for a complex matrix.
    """
    if method not in ("auto", "lu", "cholesky"):
        raise ValueError(f"method: expected 'auto', 'lu' or 'cholesky', got {method!r}")
    check_system(A, A.values.new_zeros(A.shape[-2]))
    if A.device.type not in ("cpu", "cuda") or (A.device.type == "cuda" and method == "cholesky"):
        raise ValueError(
            f"A: direct methods run on the CPU, and LU on CUDA, got {A.device} and {method!r}; use "
            "A.to('cpu') or an iterative method"
        )
    check_finite(A)
    if A.dtype in HALF:
        return HalfFactorization(A, factorized(widened(A), method))
    if A.device.type == "cuda":
        return cudss(A)
    if method == "cholesky":
        if A.dtype.is_complex:
            raise TypeError(
                f"A: Cholesky takes float32 or float64, got {A.dtype}; use method='lu' (in solve, "
                "method='direct')"
            )
        return cholesky(A)
    if method == "auto" and cholesky_is_compiled() and may_be_positive_definite(A):
        try:
            return cholesky(A)
        except SolveError:
            pass  # symmetric, but not positive definite
    return lu(A)
