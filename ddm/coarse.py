"""Coarse spaces: the partition of unity, and the same smoothed by Jacobi steps."""

from __future__ import annotations

import numpy as np
import torch

from ddm.partition import Decomposition
from sparsetorch import CSRTensor

OMEGA = 2 / 3  # damping of the Jacobi steps: the value that damps high modes of P1 Poisson best


def partition_of_unity(
    decomposition: Decomposition, dtype: torch.dtype = torch.float64
) -> CSRTensor:
    """Prolongation with one column a subdomain, (n, S): 1 / (number of subdomains that hold i).

    Each row sums to one. Taghibakhshi et al. (2023), section 3; Nicolaides' coarse space.
    """
    weights = 1.0 / decomposition.multiplicity[decomposition.node]
    return CSRTensor.from_coo(
        torch.from_numpy(decomposition.node),
        torch.from_numpy(decomposition.subdomain),
        torch.from_numpy(weights).to(dtype),
        (decomposition.n, decomposition.n_subdomains),
    )


def smooth(P: CSRTensor, A: CSRTensor, steps: int = 1, omega: float = OMEGA) -> CSRTensor:
    """Damped Jacobi steps on the columns of P, `P - omega D^-1 A P`: each widens P by a layer.

    The prolongation smoother of smoothed aggregation (Vanek, Mandel, Brezina 1996, equation 7).
    """
    scale = omega / A.diagonal()
    for _ in range(steps):
        P = P - (A @ P).scale_rows(scale)
    return P


def check_coarse(P: CSRTensor, n: int) -> None:
    """Refuse a prolongation with the wrong number of rows, without columns, or with empty ones.

    Raises:
        ValueError: naming the shape or the column.
    """
    if P.shape[0] != n or not 1 <= P.shape[1] <= n:
        raise ValueError(f"P: expected ({n}, S) with 1 <= S <= {n}, got {tuple(P.shape)}")
    empty = np.flatnonzero(np.bincount(P.pattern.col.cpu().numpy(), minlength=P.shape[1]) == 0)
    if len(empty):
        raise ValueError(
            f"P: column {empty[0]} is empty ({len(empty)} in all), so the coarse matrix is "
            "singular; drop empty columns"
        )
