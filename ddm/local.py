"""Solves with all local matrices at once: padded dense inverses, or one sparse factorization.

Both are made from a decomposition alone (`factor` then takes the values of its block-diagonal
pattern), so that the layout is worked out once for many sets of values. Neither loops over
subdomains. Applied, they give `sum_i Rt_i^T A_i^-1 R_i r`: restrict to the overlapping subdomain,
solve, keep the owned part. Each unknown has one owner, so both ends are gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ddm.partition import Decomposition
from sparsetorch import CSRTensor, Pattern
from sparsetorch.dense_inverse import inverses
from sparsetorch.linalg import Factorization, SolveError, factorized


class LocalSolver(Protocol):
    """A layout of local matrices: values in, factors out, factors applied."""

    def factor(self, values: Tensor) -> object:
        """Factor the local matrices given by block values, (block nnz,)."""
        ...

    def apply(self, factors: object, r: Tensor, transpose: bool = False) -> Tensor:
        """`sum_i Rt_i^T A_i^-1 R_i r`, or its transpose: r (n, k) -> (n, k)."""
        ...


class DenseBlocks:
    """Local matrices padded with the identity to one size m and inverted as a batch, (S, m, m).

    Differentiable in the values and in r.
    """

    def __init__(
        self, decomposition: Decomposition, device: torch.device | str | None = None
    ) -> None:
        self.decomposition = decomposition
        d = decomposition
        sizes = d.sizes
        self.shape = (d.n_subdomains, int(sizes.max()), int(sizes.max()))
        m = self.shape[1]
        within = np.arange(len(d.node)) - (np.cumsum(sizes) - sizes)[d.subdomain]
        slot = d.subdomain * m + within
        # The inverse does not couple padding with the rest: what padding gathers has no effect.
        node = np.zeros(self.shape[0] * m, dtype=np.int64)
        node[slot] = d.node
        owner_slot = np.empty(d.n, dtype=np.int64)
        owner_slot[d.node[d.own]] = slot[d.own]
        position = slot[d.block_row] * m + within[d.block_col]
        padding = np.setdiff1d(np.arange(self.shape[0] * m), slot, assume_unique=True)

        def tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).to(device)

        self.node, self.slot = tensor(node), tensor(slot)
        self.local_node = tensor(d.node)
        self.owner_slot, self.position = tensor(owner_slot), tensor(position)
        self.padding = tensor(padding * m + padding % m)

    def to(self, device: torch.device | str) -> DenseBlocks:
        """The same layout on a device."""
        return DenseBlocks(self.decomposition, device)

    def factor(self, values: Tensor) -> Tensor:
        """Inverses (S, m, m) of the local matrices with the given block values.

        Raises:
            ValueError: a local matrix is singular.
        """
        flat = values.new_zeros(self.shape[0] * self.shape[1] * self.shape[2])
        flat = flat.index_put((self.padding,), values.new_ones(()))
        blocks = flat.index_put((self.position,), values).view(self.shape)
        inverse, _ = inverses(blocks)
        m = self.shape[1]
        blown_up = blown_up_by(
            lambda b: torch.bmm(inverse.detach(), b.view(-1, m, 1)).view(-1),
            blocks.detach().diagonal(dim1=1, dim2=2).reshape(-1),
        )
        if len(blown_up):
            raise ValueError(_singular(f"of subdomain {int(blown_up[0]) // m}"))
        return inverse

    def apply(self, factors: Tensor, r: Tensor, transpose: bool = False) -> Tensor:
        """Apply inverses to r (n, k) -> (n, k); transposed with `transpose`."""
        n_subdomains, m, _ = self.shape
        if not transpose:
            z = torch.bmm(factors, r.index_select(0, self.node).view(n_subdomains, m, -1))
            return z.view(n_subdomains * m, -1).index_select(0, self.owner_slot)
        owned = r.new_zeros(n_subdomains * m, r.shape[1]).index_put((self.owner_slot,), r)
        z = torch.bmm(factors.mT, owned.view(n_subdomains, m, -1)).view(n_subdomains * m, -1)
        return torch.zeros_like(r).index_add(0, self.local_node, z[self.slot])


class SparseBlocks:
    """All local matrices in one block-diagonal sparse LU, on the host. Not differentiable."""

    def __init__(self, decomposition: Decomposition) -> None:
        d = decomposition
        size = len(d.node)
        self.pattern = Pattern.trusted(
            torch.from_numpy(d.block_crow), torch.from_numpy(d.block_col), (size, size)
        )
        self.node, self.subdomain = torch.from_numpy(d.node), d.subdomain
        local = np.empty(d.n, dtype=np.int64)
        local[d.node[d.own]] = np.flatnonzero(d.own)
        self.owner_local = torch.from_numpy(local)

    def to(self, device: torch.device | str) -> SparseBlocks:
        """This layout; SuperLU runs on the host alone.

        Raises:
            ValueError: another device than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(
                f"device: sparse local solves run on the CPU, got {device}; use 'dense'"
            )
        return self

    def factor(self, values: Tensor) -> Factorization:
        """Sparse LU of the block-diagonal matrix with the given values, (block nnz,).

        Raises:
            ValueError: a local matrix is singular.
        """
        matrix = CSRTensor(self.pattern, values.detach())
        try:
            factors = factorized(matrix)
        except SolveError as error:
            raise ValueError(_singular("of some subdomain")) from error
        blown_up = blown_up_by(factors.solve, matrix.diagonal())
        if len(blown_up):
            raise ValueError(_singular(f"of subdomain {self.subdomain[int(blown_up[0])]}"))
        return factors

    def apply(self, factors: Factorization, r: Tensor, transpose: bool = False) -> Tensor:
        """Apply the factorization to r (n, k) -> (n, k); transposed with `transpose`.

        Raises:
            ValueError: r requires a gradient.
        """
        refuse_gradient("local", r)
        if not transpose:
            return factors.solve(r[self.node])[self.owner_local]
        owned = r.new_zeros(len(self.node), r.shape[1])
        owned[self.owner_local] = r
        z = factors.solve(owned, transpose=True)
        return torch.zeros_like(r).index_add(0, self.node, z)


def refuse_gradient(solver: str, r: Tensor) -> None:
    """Raise ValueError where a sparse solve would lose the gradient of its right-hand side."""
    if torch.is_grad_enabled() and r.requires_grad:
        raise ValueError(
            f"{solver}: the sparse solve records no gradient, but r requires one; make the method "
            f"with {solver}='dense', or detach r"
        )


@torch.no_grad()
def blown_up_by(solve: Callable[[Tensor], Tensor], diagonal: Tensor) -> Tensor:
    """Unknowns that a solve with a matrix of this diagonal, (n,), blows up: those of singular ones.

    Rounding makes a zero pivot one of about eps, which no factorization reports. A random
    right-hand side then grows by 1 / eps (5 / eps and more, measured on floating subdomains in both
    precisions), and by 1e-4 / eps at most where a Robin weight is 0.001. Taken in units of the
    diagonal's square root, so that neither units nor jumps of coefficients count.
    """
    generator = torch.Generator().manual_seed(0)
    b = torch.rand(len(diagonal), generator=generator, dtype=diagonal.dtype).to(diagonal.device)
    scale = diagonal.abs().sqrt()
    grown = (scale * solve(scale * b)).abs()
    return torch.nonzero(~(grown < 0.1 / torch.finfo(b.dtype).eps))[:, 0]  # NaN, too


def _singular(which: str) -> str:
    return (
        f"interface: the local matrix {which} is singular; raise the Robin weight theta above 0 "
        "there, or give the matrix a Dirichlet boundary"
    )


def local_solver(
    decomposition: Decomposition, kind: str = "auto", device: torch.device | str = "cpu"
) -> DenseBlocks | SparseBlocks:
    """Lay out the local matrices: "dense", "sparse", or "auto", which is sparse on the CPU.

    On two cores the sparse factorization is applied 1 to 10 times faster and set up 2 to 13 times
    faster, but for METIS subdomains of less than some 30 unknowns, which inverses take three
    quarters of its time to set up (benchmarks/bench_local.py); the dense inverses are for gradients
    and for CUDA.

    Raises:
        ValueError: another `kind`, or "sparse" on another device than the CPU.
    """
    if kind == "auto":
        kind = "sparse" if torch.device(device).type == "cpu" else "dense"
    if kind == "dense":
        return DenseBlocks(decomposition, device)
    if kind == "sparse":
        return SparseBlocks(decomposition).to(device)
    raise ValueError(f"local: expected 'auto', 'dense' or 'sparse', got {kind!r}")
