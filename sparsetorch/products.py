"""Products of several sparse matrices that are more than one `@`."""

from __future__ import annotations

from torch import Tensor

from sparsetorch import algebra
from sparsetorch.checks import check_tensor
from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern


def masked_matmul(A: CSRTensor | Tensor, B: CSRTensor | Tensor, pattern: Pattern) -> CSRTensor:
    """The entries of `A B` on `pattern`; the rest of the product is never computed.

    A, B: both CSRTensors, or both dense, (*batch, n, k) and (*batch, k, m). The sparse case is one
    masked product (SpGEMM), the dense one a sampled product (SDDMM). Differentiable in both.

    Raises:
        ValueError: sizes do not match each other or the pattern.
        TypeError: one operand is sparse and the other dense, or dtypes differ.
    """
    if isinstance(A, CSRTensor) and isinstance(B, CSRTensor):
        return CSRTensor._of(algebra.masked_product(A._sparse, B._sparse, pattern))
    if isinstance(A, Tensor) and isinstance(B, Tensor):
        return CSRTensor._of(algebra.sampled_product(A, B, pattern))
    raise TypeError(
        f"masked_matmul: expected two CSRTensors or two tensors, got {type(A).__name__} and "
        f"{type(B).__name__}"
    )


def sddmm(pattern: Pattern, X: Tensor, Y: Tensor) -> CSRTensor:
    """Sampled product `X Y^T` at the entries of a pattern: the values <x_i, y_j>.

    X: (*batch, n, k). Y: (*batch, m, k). Equivalent to `masked_matmul(X, Y.mT, pattern)`, whose
    errors it raises; differentiable in both.
    """
    check_tensor("Y", Y)
    if Y.ndim < 2:
        raise ValueError(f"Y: expected (*batch, m, k), got shape {tuple(Y.shape)}")
    return masked_matmul(X, Y.mT, pattern)


def galerkin(R: CSRTensor, A: CSRTensor, P: CSRTensor) -> CSRTensor:
    """The triple product `R A P`, such as a coarse operator with R = P^T.

    Both structures are found once and kept on the patterns, so that repeated calls with new values
    cost two numeric products. Differentiable in all three.

    Raises:
        ValueError: sizes that do not match.
        TypeError: a dense operand, or dtypes that differ.
    """
    for name, M in (("R", R), ("A", A), ("P", P)):
        if not isinstance(M, CSRTensor):
            raise TypeError(
                f"{name}: expected a CSRTensor, got {type(M).__name__}; write R @ (A @ x) for the "
                "product with a dense one"
            )
    return R @ (A @ P)
