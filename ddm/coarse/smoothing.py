"""Smoothed prolongations: a few damped Jacobi steps make the columns overlap and lose energy."""

from __future__ import annotations

import torch

from ddm.matrix_properties import check_matrix
from sparsetorch import CSRTensor, Pattern
from sparsetorch.checks import check_count
from sparsetorch.precond import block_jacobi

OMEGA = 2 / 3  # damping of the Jacobi steps: the value that damps high modes of P1 Poisson best


def smooth(
    P: CSRTensor,
    A: CSRTensor,
    steps: int = 1,
    omega: float | None = OMEGA,
    *,
    block_size: int = 1,
) -> CSRTensor:
    """Damped Jacobi steps on the columns of P, `P - omega D^-1 A P`: each widens P by a layer.

    Args:
        P: (n, columns) prolongation.
        A: (n, n) matrix.
        steps: number of steps; 0 leaves P as it is.
        omega: damping; None is 4 / (3 rho(D^-1 A)), smoothed aggregation's choice.
        block_size: D holds diagonal blocks of this size, the unknowns of a node.

    Raises:
        TypeError: P or A is no CSRTensor; `steps` is no number.
        ValueError: `steps` is no whole number of at least 0; a diagonal block of A is singular, or
            does not divide A.

    The prolongation smoother of smoothed aggregation (Vanek, Mandel, Brezina 1996, equation 7).
    """
    check_matrix("P", P)
    check_matrix("A", A)
    steps = check_count("steps", steps, "Jacobi steps", least=0)
    if not steps:
        return P
    step = jacobi_step(A, block_size, omega)
    for _ in range(steps):
        P = step @ P
    return P


def jacobi_step(A: CSRTensor, block_size: int = 1, omega: float | None = OMEGA) -> CSRTensor:
    """`I - omega D^-1 A`, whose product with P is a step of `smooth`; raises like that.

    One product for a step: a difference would have to find the union of two patterns as well.
    """
    scaled = _scaled(A, block_size)
    if omega is None:
        omega = 4 / (3 * _spectral_radius(scaled))
    _, at = scaled.pattern.diagonal  # all of it: where an entry lacks, A cannot be scaled
    ones = scaled.values.new_ones(len(at))
    return scaled.with_values((-omega * scaled.values).index_add(-1, at, ones))


def _scaled(A: CSRTensor, block_size: int) -> CSRTensor:
    """`D^-1 A` with the diagonal D of A, or its diagonal blocks; raises like `smooth`."""
    if block_size > 1:
        return _inverse_blocks(A, block_size) @ A
    diagonal = A.diagonal()
    zero = torch.nonzero(diagonal == 0)[:, 0]
    if len(zero):
        raise ValueError(
            f"A: diagonal entry {int(zero[0])} is zero, so P cannot be smoothed; take smoothing=0, "
            "and see what ddm.compare says of other methods"
        )
    return A.scale_rows(1 / diagonal)


def _inverse_blocks(A: CSRTensor, size: int) -> CSRTensor:
    """The block-diagonal matrix of the inverses of diagonal blocks, (n, n)."""
    n = A.shape[0]
    if n % size:
        raise ValueError(f"block_size: expected a divisor of {n}, the rows of A, got {size}")
    inverses = block_jacobi(A, size).inverses  # (n / size, size, size)
    crow = torch.arange(0, n * size + 1, size, device=A.device)
    first = torch.arange(n, device=A.device) // size * size
    col = (first[:, None] + torch.arange(size, device=A.device)).flatten()
    index = A.pattern.col.dtype
    return CSRTensor(Pattern.trusted(crow.to(index), col.to(index), (n, n)), inverses.flatten())


@torch.no_grad()
def _spectral_radius(A: CSRTensor, iterations: int = 20) -> float:
    """The spectral radius by the power method from a fixed random vector, a little too small.

    Twenty steps give it to some 3 %, and smoothing hardly changes with it.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(A.shape[0], generator=generator, dtype=torch.float64, device="cpu")
    x = x.to(A.device, A.dtype)
    size = 1.0
    for _ in range(iterations):
        x = A @ (x / x.norm())
        size = float(x.norm())
    return size
