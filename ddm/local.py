"""Solves with all local matrices at once: padded dense inverses, or one sparse factorization.

Both are made from a decomposition alone (`factor` then takes the values of its block-diagonal
pattern), so that the layout is worked out once for many sets of values. Neither loops over
subdomains. They map local right-hand sides (N, k), by subdomain and then by node, to solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ddm.factors import KeptFactors
from ddm.partition import Decomposition
from ddm.size_classes import size_classes
from sparsetorch import CSRTensor, Pattern
from sparsetorch.dense_inverse import inverses
from sparsetorch.linalg import SolveError

LARGEST_DENSE = 4096
"""Unknowns of a subdomain whose matrix is still inverted densely off the CPU: 134 MB in float64."""


class SingularError(ValueError):
    """A local or a coarse matrix is singular, in the precision that it has."""


class LocalSolver(Protocol):
    """A layout of local matrices: values in, factors out, factors applied."""

    def factor(self, values: Tensor) -> Any:
        """Factor the local matrices given by block values, (block nnz,)."""
        ...

    def solve(self, factors: Any, r: Tensor, transpose: bool = False) -> Tensor:
        """`A_i^-1 r_i`, or `A_i^-T r_i`, for all subdomains: (N, k) -> (N, k)."""
        ...


@dataclass(frozen=True)
class Batch:
    """The subdomains of one size class, padded to m unknowns.

    subdomain: (S,). local: (S m,) the local unknown in each slot, any where there is padding.
    entry: block entries that these subdomains hold. position: their place in the flat (S, m, m).
    padding: places of the ones on the diagonal of the padding.
    """

    shape: tuple[int, int, int]
    subdomain: np.ndarray
    local: Tensor
    entry: Tensor
    position: Tensor
    padding: Tensor


class DenseBlocks:
    """Local matrices in batches by size class, padded with the identity, and inverted.

    The sides of two subdomains of a class differ by a factor of 1.41 at most. Differentiable in the
    values and in r.

    Raises:
        ValueError: on another device than the CPU, a subdomain of more than `LARGEST_DENSE`.
    """

    def __init__(
        self, decomposition: Decomposition, device: torch.device | str | None = None
    ) -> None:
        self.decomposition = decomposition
        d = decomposition
        largest = int(d.sizes.max())
        if device is not None and torch.device(device).type != "cpu" and largest > LARGEST_DENSE:
            raise ValueError(
                f"local: the largest subdomain has {largest} unknowns; on {device} local matrices "
                f"are inverted densely, {8 * largest**2 / 1e6:.0f} MB for this one in float64. "
                f"Expected at most {LARGEST_DENSE}: take more subdomains, or stay on the CPU, "
                "where factors are sparse"
            )
        starts = d.first[:-1]
        within = np.arange(len(d.node)) - starts[d.subdomain]
        slot = np.empty(len(d.node), dtype=np.int64)
        self.batches: list[Batch] = []
        first = 0
        for subdomains, m in size_classes(d.sizes):
            batch = _batch(d, subdomains, m, starts, within, device)
            held = np.isin(d.subdomain, subdomains)
            rank = np.searchsorted(subdomains, d.subdomain[held])
            slot[held] = first + rank * m + within[held]
            first += len(subdomains) * m
            self.batches.append(batch)
        self.slot = torch.from_numpy(slot).to(device)

    def to(self, device: torch.device | str) -> DenseBlocks:
        """The same layout on a device."""
        return DenseBlocks(self.decomposition, device)

    def factor(self, values: Tensor) -> list[Tensor]:
        """Inverses (S, m, m) of the local matrices of each class with the given block values.

        Raises:
            SingularError: a local matrix is singular.
        """
        return [_inverted(batch, values) for batch in self.batches]

    def solve(self, factors: list[Tensor], r: Tensor, transpose: bool = False) -> Tensor:
        """Apply inverses to r (N, k) -> (N, k); transposed with `transpose`."""
        solutions = []
        for batch, inverse in zip(self.batches, factors):
            padded = r.index_select(0, batch.local).view(*batch.shape[:2], -1)
            solution = torch.bmm(inverse.mT if transpose else inverse, padded)
            solutions.append(solution.flatten(0, 1))
        return torch.cat(solutions).index_select(0, self.slot)


def _batch(
    d: Decomposition,
    subdomains: np.ndarray,
    m: int,
    starts: np.ndarray,
    within: np.ndarray,
    device: torch.device | str | None,
) -> Batch:
    slots = np.arange(m)
    real = slots < d.sizes[subdomains][:, None]
    # The inverse does not couple padding with the rest: what padding gathers has no effect.
    local = np.where(real, starts[subdomains][:, None] + slots, 0)
    entry = np.flatnonzero(np.isin(d.subdomain[d.block_row], subdomains))
    row, col = d.block_row[entry], d.block_col[entry]
    rank = np.searchsorted(subdomains, d.subdomain[row])
    position = (rank * m + within[row]) * m + within[col]
    batch, slot = np.nonzero(~real)
    padding = (batch * m + slot) * m + slot

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    return Batch(
        shape=(len(subdomains), m, m),
        subdomain=subdomains,
        local=tensor(local.ravel()),
        entry=tensor(entry),
        position=tensor(position),
        padding=tensor(padding),
    )


def _inverted(batch: Batch, values: Tensor) -> Tensor:
    count, m, _ = batch.shape
    flat = values.new_zeros(count * m * m)
    flat = flat.index_put((batch.padding,), values.new_ones(()))
    blocks = flat.index_put((batch.position,), values.index_select(0, batch.entry))
    blocks = blocks.view(batch.shape)
    inverse, _ = inverses(blocks)
    blown_up = blown_up_by(
        lambda b: torch.bmm(inverse.detach(), b.view(-1, m, 1)).view(-1),
        blocks.detach().diagonal(dim1=1, dim2=2).reshape(-1),
    )
    if len(blown_up):
        which = batch.subdomain[int(blown_up[0]) // m]
        raise SingularError(_singular(f"of subdomain {which}"))
    return inverse


class SparseBlocks:
    """All local matrices in one block-diagonal sparse factorization, on the host.

    Cholesky or L D L^T where all local matrices are symmetric, else LU, see
    `sparsetorch.linalg.factorized`. Differentiable in the values and in r, at the cost of a second
    solve for each.
    """

    def __init__(self, decomposition: Decomposition) -> None:
        self.decomposition = d = decomposition
        size = len(d.node)
        self.pattern = Pattern.trusted(
            torch.from_numpy(d.block_crow), torch.from_numpy(d.block_col), (size, size)
        )

    def to(self, device: torch.device | str) -> SparseBlocks | DenseBlocks:
        """This layout, or the dense one elsewhere: sparse factorizations run on the host alone."""
        if torch.device(device).type != "cpu":
            return DenseBlocks(self.decomposition, device)
        return self

    def factor(self, values: Tensor) -> KeptFactors:
        """Factors of the block-diagonal matrix with the given values, (block nnz,).

        Raises:
            SingularError: a local matrix is singular.
        """
        matrix = CSRTensor(self.pattern, values)
        try:
            kept = KeptFactors.of(matrix)
        except SolveError as error:
            raise SingularError(_singular("of some subdomain")) from error
        blown_up = blown_up_by(kept.factors.solve, matrix.detach().diagonal())
        if len(blown_up):
            subdomain = self.decomposition.subdomain[int(blown_up[0])]
            raise SingularError(_singular(f"of subdomain {subdomain}"))
        return kept

    def solve(self, factors: KeptFactors, r: Tensor, transpose: bool = False) -> Tensor:
        """Apply the factorization to r (N, k) -> (N, k); transposed with `transpose`."""
        return factors.solve(r, transpose)


@torch.no_grad()
def blown_up_by(solve: Callable[[Tensor], Tensor], diagonal: Tensor) -> Tensor:
    """Unknowns that a solve with a matrix of this diagonal, (n,), blows up: those of singular ones.

    Rounding makes a zero pivot one of about eps, which no factorization reports. A random
    right-hand side then grows by 1 / eps (5 / eps and more, measured on floating subdomains in both
    precisions), and by 1e-4 / eps at most where a Robin weight is 0.001. Taken in units of the
    diagonal's square root, so that neither units nor jumps of coefficients count.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    real = diagonal.abs().dtype
    b = torch.rand(len(diagonal), generator=generator, dtype=real, device="cpu")
    scale = diagonal.abs().sqrt()
    grown = scale * solve((scale * b.to(diagonal.device)).to(diagonal.dtype)).abs()
    return torch.nonzero(~(grown < 0.1 / torch.finfo(b.dtype).eps))[:, 0]  # NaN, too


def _singular(which: str) -> str:
    return (
        f"interface: the local matrix {which} is singular; raise the Robin weight theta above 0 "
        "there, give the matrix a Dirichlet boundary, or, if the subdomain holds every unknown "
        "of a component of the graph, take more subdomains"
    )


def local_solver(
    decomposition: Decomposition, kind: str = "auto", device: torch.device | str = "cpu"
) -> DenseBlocks | SparseBlocks:
    """Lay out the local matrices: "dense", "sparse", or "auto", which is sparse on the CPU.

    The device alone decides. On the CPU the sparse factorization is made 4 to 40 times faster, and
    applied in 0.4 to 1.2 of the time (benchmarks/bench_local.py): dense inverses are for CUDA,
    where sparse factors cannot be made.

    Raises:
        ValueError: another `kind`, "sparse" on another device than the CPU, or subdomains there
            that are too large to be inverted, see `LARGEST_DENSE`.
    """
    if kind == "auto":
        kind = "sparse" if torch.device(device).type == "cpu" else "dense"
    if kind == "dense":
        return DenseBlocks(decomposition, device)
    if kind == "sparse":
        if torch.device(device).type != "cpu":
            raise ValueError(
                f"local: sparse local solves run on the CPU, got {device}; use 'dense'"
            )
        return SparseBlocks(decomposition)
    raise ValueError(f"local: expected 'auto', 'dense' or 'sparse', got {kind!r}")
