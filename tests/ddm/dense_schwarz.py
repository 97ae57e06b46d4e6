"""Schwarz methods as in a textbook: dense matrices and one loop over subdomains."""

import torch
from torch import Tensor

from ddm.partition import Decomposition


def restrictions(d: Decomposition, i: int) -> tuple[Tensor, Tensor]:
    """R_i and Rt_i, (size, n): rows of the identity, and the same with those not owned zeroed."""
    nodes = torch.from_numpy(d.node[d.subdomain == i])
    R = torch.eye(d.n, dtype=torch.float64)[nodes]
    owned = torch.from_numpy(d.owner)[nodes] == i
    return R, R * owned[:, None]


def interface_matrix(d: Decomposition, i: int, interface: Tensor | None) -> Tensor:
    """L_i, (size, size), differentiable in `interface`."""
    size = int(d.sizes[i])
    complex_values = interface is not None and interface.is_complex()
    dtype = torch.complex128 if complex_values else torch.float64
    L = torch.zeros(size, size, dtype=dtype)
    if interface is None:
        return L
    start = int(d.sizes[:i].sum())
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    mine = torch.from_numpy((row >= start) & (row < start + size))
    where = (torch.from_numpy(row)[mine] - start, torch.from_numpy(col)[mine] - start)
    return L.index_put(where, interface[mine].to(dtype))


def one_level(
    A: Tensor, d: Decomposition, interface: Tensor | None = None, form: str = "restricted"
) -> Tensor:
    """`sum_i Rt_i^T (R_i A R_i^T + L_i)^-1 R_i`, (n, n), or with the weights of another form."""
    M = torch.zeros_like(A)
    times = sum(restrictions(d, i)[0].sum(0) for i in range(d.n_subdomains))
    for i in range(d.n_subdomains):
        R, Rt = restrictions(d, i)
        R, Rt = R.to(A.dtype), Rt.to(A.dtype)
        inverse = torch.linalg.inv(R @ A @ R.T + interface_matrix(d, i, interface))
        left, right = {
            "restricted": (Rt, R),
            "additive": (R, R),
            "symmetric": (R / times, R / times),
        }[form]
        M = M + left.T @ inverse @ right
    return M


def two_levels(A: Tensor, F: Tensor, P: Tensor, levels: str, damping: float = 1.0) -> Tensor:
    """M of the one-level method F and the prolongation P; Tang et al. (2009), table 1."""
    eye = torch.eye(len(A), dtype=A.dtype)
    P = P.to(A.dtype)
    Q = P @ torch.linalg.inv(P.mH @ A @ P) @ P.mH
    if levels == "symmetric":
        T = (eye - damping * F @ A) @ (eye - Q @ A) @ (eye - damping * F @ A)
        return (eye - T) @ torch.linalg.inv(A)
    return {
        "multiplicative": (eye - Q @ A) @ F + Q,
        "adef1": F @ (eye - A @ Q) + Q,
        "additive": F + Q,
        "balanced": (eye - Q @ A) @ F @ (eye - A @ Q) + Q,
    }[levels]


def propagator(
    A: Tensor, d: Decomposition, interface: Tensor | None = None, P: Tensor | None = None
) -> Tensor:
    """T = `(I - P A0^-1 P^T A) (I - M A)`, without the first factor for one level; (n, n)."""
    eye = torch.eye(d.n, dtype=A.dtype)
    T = eye - one_level(A, d, interface) @ A
    if P is not None:
        T = (eye - P @ torch.linalg.inv(P.T @ A @ P) @ P.T @ A) @ T
    return T


def preconditioner(
    A: Tensor, d: Decomposition, interface: Tensor | None = None, P: Tensor | None = None
) -> Tensor:
    """M with `I - M A = T`, (n, n)."""
    T = propagator(A, d, interface, P)
    return (torch.eye(d.n, dtype=A.dtype) - T) @ torch.linalg.inv(A)
