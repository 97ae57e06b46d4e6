"""The partition of unity times the vectors that A nearly annihilates, one subdomain at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddm.coarse.segments import gram, segment_sums, turned
from ddm.partition import Decomposition
from sparsetorch import CSRTensor
from sparsetorch.structure import outside_transforms

RANK_TOLERANCE = 1e-6
"""Directions below this singular value, with unit columns, are dropped as dependent."""


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


def nicolaides(
    decomposition: Decomposition,
    near_nullspace: np.ndarray,
    *,
    weights: str = "shared",
    rtol: float = RANK_TOLERANCE,
) -> CSRTensor:
    """Prolongation with columns `R_i^T D_i R_i B`, orthonormal within a subdomain; (n, columns).

    D_i are the weights of a partition of unity, so that the span of P holds B. Directions in which
    a subdomain's columns are dependent are dropped (rotations on a part of one node).

    Args:
        decomposition: of the matrix.
        near_nullspace: B, (n, k) float64 or complex128: constants for diffusion, rigid-body modes
            for elasticity.
        weights: "shared", those of `partition_of_unity`, or "owned", one on the owned unknowns and
            zero on the ring: columns of different subdomains are then orthogonal, however far
            subdomains overlap.
        rtol: smallest singular value that is kept, of columns scaled to one.

    Raises:
        TypeError: `near_nullspace` is not an array of float64 or complex128.
        ValueError: not (n, k) with k >= 1, not finite, or zero on some subdomain; other weights.

    Nicolaides (1987), SIAM J. Numer. Anal. 24; Toselli and Widlund (2005), chapter 3.
    """
    local, keep, rows = local_modes(decomposition, near_nullspace, weights=weights, rtol=rtol)
    lost = torch.nonzero(~keep.any(1))[:, 0]
    if len(lost):
        raise ValueError(
            f"near_nullspace: every vector is zero on subdomain {int(lost[0])} "
            f"({len(lost)} subdomains in all)"
        )
    return prolongation_of(decomposition, local, keep, rows)


def local_modes(
    decomposition: Decomposition,
    near_nullspace: np.ndarray,
    *,
    weights: str = "shared",
    rtol: float = RANK_TOLERANCE,
) -> tuple[Tensor, Tensor, Tensor]:
    """The columns of `nicolaides`, subdomain by subdomain; arguments and errors are its.

    Where every vector is zero on a subdomain none of its are kept.

    Returns:
        local vectors (m, k), which of them are kept (S, k), and the m local unknowns that have
        entries: what `prolongation_of` takes. With weights="owned" m is n, else N.
    """
    d = decomposition
    B = check_vectors("near_nullspace", near_nullspace, d.n)
    if weights not in ("shared", "owned"):
        raise ValueError(f"weights: expected 'shared' or 'owned', got {weights!r}")
    rows = np.flatnonzero(d.own) if weights == "owned" else np.arange(len(d.node))
    node, subdomain = d.node[rows], torch.from_numpy(d.subdomain[rows])
    largest = abs(B).max(axis=0)  # whose square may leave the range
    columns = B[node] / np.where(largest > 0, largest, 1)  # (m, k)
    if weights == "shared":
        columns *= (1.0 / d.multiplicity[node])[:, None]
    scaled = torch.from_numpy(columns)
    norms = segment_sums(scaled.abs() ** 2, subdomain, d.n_subdomains).sqrt()  # (S, k)
    scaled /= norms.where(norms > 0, 1)[subdomain]
    squares, directions = torch.linalg.eigh(gram(scaled, scaled, subdomain, d.n_subdomains))
    keep = squares > rtol**2 * squares[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    directions = directions / squares.where(keep, 1).sqrt()[:, None, :]
    return turned(scaled, directions, subdomain), keep, torch.from_numpy(rows)


def prolongation_of(
    d: Decomposition, local: Tensor, keep: Tensor, rows: Tensor | None = None
) -> CSRTensor:
    """Prolongation whose columns are the kept local vectors, (n, number of kept ones).

    Args:
        d: the decomposition.
        local: (m, k), vector j of every subdomain in column j.
        keep: (S, k) bool.
        rows: (m,) integers, the local unknowns that have entries; None is all, in order.
    """
    number = (keep.flatten().cumsum(0) - 1).view(keep.shape)  # column of P of each (subdomain, j)
    subdomain, node = torch.from_numpy(d.subdomain), torch.from_numpy(d.node)
    if rows is not None:
        subdomain, node = subdomain[rows], node[rows]
    where, vector = torch.nonzero(keep[subdomain], as_tuple=True)
    return CSRTensor.from_coo(
        node[where],
        number[subdomain[where], vector],
        local[where, vector],
        (d.n, int(keep.sum())),
    )


def check_vectors(name: str, vectors: np.ndarray, n: int) -> np.ndarray:
    """Vectors as (n, k).

    Raises:
        TypeError: not an array of float64 or complex128.
        ValueError: not (n, k) with k >= 1, or not finite.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype not in (np.float64, np.complex128):
        what = vectors.dtype if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise TypeError(f"{name}: expected a NumPy array of float64 or complex128, got {what}")
    if vectors.ndim != 2 or vectors.shape[0] != n or vectors.shape[1] < 1:
        raise ValueError(f"{name}: expected shape ({n}, k) with k >= 1, got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name}: some entries are NaN or infinite")
    return vectors


def check_coarse(P: CSRTensor, n: int) -> None:
    """Refuse a prolongation with the wrong number of rows, without columns, or with empty ones.

    Raises:
        ValueError: naming the shape or the column.
    """
    if P.shape[0] != n or not 1 <= P.shape[1] <= n:
        raise ValueError(f"P: expected ({n}, S) with 1 <= S <= {n}, got {tuple(P.shape)}")
    with outside_transforms():
        columns = P.pattern.col.cpu().numpy()
    empty = np.flatnonzero(np.bincount(columns, minlength=P.shape[1]) == 0)
    if len(empty):
        raise ValueError(
            f"P: column {empty[0]} is empty ({len(empty)} in all), so the coarse matrix is "
            "singular; drop empty columns"
        )
