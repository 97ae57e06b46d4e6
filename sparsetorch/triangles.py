"""The triangles of a pattern and their level sets, found once and kept on the pattern."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sparsetorch.algebra import Sparse
from sparsetorch.indexing import triangle as select_triangle
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import Layout, level_sets


class Triangle(NamedTuple):
    """One triangle of a square pattern.

    positions: (nnz of the triangle,), where its entries are in the whole; None if they are all.
    """

    pattern: Pattern
    positions: Tensor | None

    def of(self, values: Tensor) -> Tensor:
        """The triangle's part of values (..., nnz)."""
        return values if self.positions is None else values.index_select(-1, self.positions)

    def taken_from(self, A: Sparse) -> Sparse:
        """The triangle of a matrix of the whole pattern."""
        return Sparse(self.pattern, self.of(A.values))


class _Part(NamedTuple):
    """A triangle as it is kept: None for the pattern that keeps it, which must not hold itself."""

    pattern: Pattern | None
    positions: Tensor | None


def triangle(pattern: Pattern, *, lower: bool, strict: bool = False) -> Triangle:
    """The lower or upper triangle, with the diagonal unless it is `strict`."""

    def find(whole: Pattern) -> _Part:
        shift = -strict if lower else strict
        part, positions = select_triangle(whole, int(shift), lower=lower)
        return _Part(None, None) if part.nnz == whole.nnz else _Part(part, positions)

    side = "lower" if lower else "upper"
    name = f"strict {side} triangle" if strict else f"{side} triangle"
    part, positions = pattern.kept(name, find)
    return Triangle(pattern if part is None else part, positions)


def triangle_levels(pattern: Pattern, *, lower: bool) -> Layout:
    """The level sets of a triangular pattern, in the form that the kernels take.

    Shape (n_levels, n); from the first level to the last for a lower triangle and for the transpose
    of an upper one, from the last to the first for an upper triangle and for the transpose of a
    lower one.
    """

    def find(whole: Pattern) -> Pattern:
        layout = whole.layout
        crow, col = (layout.crow, layout.col) if lower else layout.transposed
        starts, rows = level_sets(crow, col)
        return Pattern.trusted(starts, rows, (starts.shape[0] - 1, whole.shape[0]))

    return pattern.kept(f"{'lower' if lower else 'upper'} level sets", find).layout
