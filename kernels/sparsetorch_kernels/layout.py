"""The structure of one sparse matrix and of its transpose, as the kernels read it."""

from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """A sparsity pattern in CSR form together with its transpose.

    `values` always live in the order of the base pattern, the one whose `perm` is None. A view in
    another order, such as the transpose, reads them through its permutation, so transposing a
    matrix never moves a value.

    crow: (n_rows + 1,) int32 or int64, row pointers, from 0 to nnz.
    col: (nnz,) column indices, increasing and unique within each row; the dtype of crow, or int32
    where crow is int64: rows and columns often fit in int32 when entries do not.
    perm: (nnz,) dtype of crow, or None for the identity: entry k of this view is `values[perm[k]]`.
    t_crow, t_col, t_perm: the transposed pattern in the same form; all None in a `forward_layout`.
    n_rows, n_cols: the shape.

    The contents are trusted: whoever builds a Layout has checked them (`sparsetorch.Pattern` does).
    """

    crow: Tensor
    col: Tensor
    perm: Tensor | None
    t_crow: Tensor | None
    t_col: Tensor | None
    t_perm: Tensor | None
    n_rows: int
    n_cols: int

    @property
    def T(self) -> "Layout":
        """The transposed layout; it shares every array with this one."""
        t_crow, t_col = self.transposed
        return Layout(
            t_crow,
            t_col,
            self.t_perm,
            self.crow,
            self.col,
            self.perm,
            self.n_cols,
            self.n_rows,
        )

    @property
    def transposed(self) -> tuple[Tensor, Tensor]:
        """t_crow and t_col.

        Raises:
            ValueError: the layout has none.
        """
        if self.t_crow is None or self.t_col is None:
            raise ValueError(
                "the layout has no transpose, which derivatives and transposed products need; make "
                "it with transpose_structure"
            )
        return self.t_crow, self.t_col

    def long(self) -> "Layout":
        """The same with int64 row pointers and permutations."""
        return self._replace(
            crow=self.crow.long(),
            perm=None if self.perm is None else self.perm.long(),
            t_crow=None if self.t_crow is None else self.t_crow.long(),
            t_perm=None if self.t_perm is None else self.t_perm.long(),
        )


def uniform(layout: Layout) -> Layout:
    """The layout with all its indices in the dtype of its row pointers."""
    if layout.crow.dtype == layout.col.dtype:
        return layout
    t_col = None if layout.t_col is None else layout.t_col.long()
    return layout._replace(col=layout.col.long(), t_col=t_col)


def forward_layout(crow: Tensor, col: Tensor, n_rows: int, n_cols: int) -> Layout:
    """A layout without its transpose: enough for a product that nobody differentiates."""
    return Layout(crow, col, None, None, None, None, n_rows, n_cols)


def alike(layouts: tuple[Layout, ...]) -> tuple[Layout, ...]:
    """Layouts whose row pointers have one dtype, int64 if any of them needs it."""
    if len({layout.crow.dtype for layout in layouts}) == 1:
        return layouts
    return tuple(layout.long() for layout in layouts)
