"""Pattern: which entries of a sparse matrix exist, and what follows from that alone.

Forward, backward, every training step and every matrix of a batch share one pattern, so whatever
depends on structure only is computed once and kept here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sparsetorch import merging
from sparsetorch.checks import check_index, checked_pattern
from sparsetorch.incidence import incidence
from sparsetorch.ordering import minimum_degree
from sparsetorch.per_partner import PerPartner
from sparsetorch.selection import Places, select_entries
from sparsetorch.structure import (
    expand_rows,
    finding_structure,
    index_dtypes,
    plain,
    wider,
)
from sparsetorch_kernels import (
    Elimination,
    Layout,
    eliminate,
    find_entries,
    forward_layout,
    principal_blocks,
    spgemm_at_once,
    spgemm_structure,
    transpose_structure,
)

Index = Tensor | slice
Found = TypeVar("Found")
# A union as it is kept: None stands for the pattern that keeps it, which must not hold itself.
Union = tuple["Pattern | None", Tensor, Tensor]


class Diagonal(NamedTuple):
    """The stored diagonal entries: entry positions[k] of the values is at (rows[k], rows[k])."""

    rows: Tensor  # (n_stored,)
    positions: Tensor  # (n_stored,)


class PatternUnion(NamedTuple):
    """The union of two patterns, and where the entries of each went in it."""

    pattern: Pattern
    left: Tensor  # (nnz of the first,)
    right: Tensor  # (nnz of the second,)


class PatternIntersection(NamedTuple):
    """The entries that two patterns share, and where they are in each."""

    pattern: Pattern
    left: Tensor  # (nnz of the intersection,)
    right: Tensor  # (nnz of the intersection,)


class Selection(NamedTuple):
    """A submatrix: its pattern, and which entry of the whole matrix each of its entries is."""

    pattern: Pattern
    positions: Tensor  # (nnz of the submatrix,)


class Pattern:
    """The structure of an (n_rows, n_cols) sparse matrix in CSR form; immutable, equal by identity.

    crow: (n_rows + 1,) row pointers, from 0 to nnz. col: (nnz,) columns, increasing and unique in
    each row. They are stored as int32 where that can count what they count, so that a matrix of
    more than 2^31 entries has an int64 crow and, if its shape allows, an int32 col;
    `dtype=torch.int64` makes both int64, `crow_dtype=torch.int64` only crow. They are not copied
    when they have that dtype already and are contiguous: do not write to them afterwards.

    Raises:
        ValueError: an argument is not as described here; the message says which and what to do.

    Compiled code (`torch.compile`) reads structure but cannot compute it: run a function once
    before compiling it, or touch the attributes that it needs.
    """

    _crow: Tensor
    _col: Tensor
    _shape: tuple[int, int]

    def __init__(
        self,
        crow: Tensor,
        col: Tensor,
        shape: tuple[int, int],
        dtype: torch.dtype | None = None,
        crow_dtype: torch.dtype | None = None,
    ):
        with finding_structure("Pattern"):
            crow, col = plain(crow), plain(col)
            shape = checked_pattern(crow, col, shape)
            smallest = index_dtypes(shape, col.numel())
            dtype = _checked_dtype("dtype", dtype, smallest.col, shape, col.numel())
            least = wider(smallest.crow, dtype)
            crow_dtype = _checked_dtype("crow_dtype", crow_dtype, least, shape, col.numel())
            # What reads them by their address (MKL, SuperLU, SciPy) knows nothing of strides.
            self._assign(crow.to(crow_dtype).contiguous(), col.to(dtype).contiguous(), shape)

    @classmethod
    def trusted(cls, crow: Tensor, col: Tensor, shape: tuple[int, int]) -> Pattern:
        """A pattern from arrays known to be right; nothing is checked or converted.

        Wrong arrays make kernels read memory that is not theirs; use `Pattern(...)` when in doubt.
        """
        self = object.__new__(cls)
        self._assign(crow, col, shape)
        return self

    def _assign(self, crow: Tensor, col: Tensor, shape: tuple[int, int]) -> None:
        self._crow, self._col, self._shape = crow, col, shape
        self._row: Tensor | None = None
        self._layout: Layout | None = None
        self._incidence: Layout | None = None
        self._diagonal: Diagonal | None = None
        self._symmetric: bool | None = None
        self._elimination: Elimination | None = None
        # A pattern owns its transpose, which knows its origin only weakly: no reference cycle.
        self._transpose: Pattern | None = None
        self._origin: weakref.ref[Pattern] | None = None
        self._products: PerPartner[Pattern] = PerPartner()
        self._unions: PerPartner[Union] = PerPartner()
        self._intersections: PerPartner[PatternIntersection] = PerPartner()
        self._with_diagonal: Union | None = None
        self._kept: dict[str, Any] = {}
        self._copies: weakref.WeakValueDictionary[torch.device, Pattern] = (
            weakref.WeakValueDictionary()
        )

    @property
    def crow(self) -> Tensor:
        """Row pointers, (n_rows + 1,)."""
        return self._crow

    @property
    def col(self) -> Tensor:
        """Column of each entry, (nnz,)."""
        return self._col

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols)."""
        return self._shape

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self._col.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the index arrays are."""
        return self._col.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of rows and columns, int32 or int64; that of `crow` is the same or int64."""
        return self._col.dtype

    @property
    def row(self) -> Tensor:
        """Row of each entry, (nnz,)."""
        if self._row is None:
            with finding_structure("Pattern.row", kept=True):
                self._row = expand_rows(self._crow, self.nnz, self.dtype)
        return self._row

    @property
    def layout(self) -> Layout:
        """This pattern and its transpose, in the form that the kernels take."""
        if self._layout is None:
            with finding_structure("Pattern.layout", kept=True):
                n_rows, n_cols = self._shape
                transposed = transpose_structure(self._crow, self._col, n_cols)
                layout = Layout(self._crow, self._col, None, *transposed, n_rows, n_cols)
                self._keep_layout(layout)
        assert self._layout is not None
        return self._layout

    def _keep_layout(self, layout: Layout) -> None:
        self._layout = layout
        _OWNERS[_arrays(layout)] = self

    @classmethod
    def of_layout(cls, layout: Layout) -> Pattern:
        """The pattern that a layout came from, with all that is kept on it, as long as it lives.

        What compiled code runs gets arrays, not patterns. Otherwise a new pattern of the arrays.
        """
        owner = _OWNERS.get(_arrays(layout))
        if owner is None:
            owner = cls.trusted(layout.crow, layout.col, (layout.n_rows, layout.n_cols))
            owner._layout = layout
        return owner

    @property
    def forward_layout(self) -> Layout:
        """This pattern in the form that the kernels take, without its transpose unless known."""
        return self._layout or forward_layout(self._crow, self._col, *self._shape)

    @property
    def incidence(self) -> Layout:
        """The (n_rows, nnz) matrix with a one for each entry, in its row, in the kernels' form.

        Its product with one number per entry is the sum over each row, in a fixed order and with
        every derivative; its transpose gives each entry the number of its row.
        """
        if self._incidence is None:
            with finding_structure("Pattern.incidence", kept=True):
                self._incidence = incidence(self.forward_layout)
        return self._incidence

    @property
    def T(self) -> Pattern:
        """The transposed pattern; `pattern.T.T is pattern`."""
        origin = self._origin() if self._origin is not None else None
        if origin is not None:
            return origin
        if self._transpose is None:
            with finding_structure("Pattern.T", kept=True):
                self._transpose = self._transposed()
        return self._transpose

    def _transposed(self) -> Pattern:
        layout = self.layout
        t_perm = layout.t_perm
        assert t_perm is not None
        inverse = torch.empty_like(t_perm)
        inverse[t_perm.long()] = torch.arange(self.nnz, dtype=t_perm.dtype, device=t_perm.device)
        transpose = Pattern.trusted(*layout.transposed, (layout.n_cols, layout.n_rows))
        transpose._keep_layout(layout.T._replace(perm=None, t_perm=inverse))
        transpose._origin = weakref.ref(self)
        return transpose

    @property
    def diagonal(self) -> Diagonal:
        """The stored diagonal entries: their rows and their positions among the values."""
        if self._diagonal is None:
            with finding_structure("Pattern.diagonal", kept=True):
                positions = torch.nonzero(self.row == self._col)[:, 0].to(self._crow.dtype)
                self._diagonal = Diagonal(self.row[positions], positions)
        return self._diagonal

    @property
    def is_symmetric(self) -> bool:
        """Whether entry (j, i) is stored wherever entry (i, j) is."""
        if self._symmetric is None:
            with finding_structure("Pattern.is_symmetric", kept=True):
                t_crow, t_col = self.layout.transposed
                self._symmetric = (
                    self._shape[0] == self._shape[1]
                    and torch.equal(self._crow, t_crow)
                    and torch.equal(self._col, t_col)
                )
        return self._symmetric

    @property
    def elimination(self) -> Elimination:
        """The symbolic Cholesky factorization, ordered by minimum degree.

        Raises:
            ValueError: the pattern is not symmetric, or not on the CPU.
        """
        if self._elimination is None:
            with finding_structure("Pattern.elimination", kept=True):
                if not self.is_symmetric or self.device.type != "cpu":
                    raise ValueError(
                        f"elimination: expected a symmetric pattern on the CPU, got {self!r}"
                    )
                mirror = self.layout.t_perm
                assert mirror is not None
                order = minimum_degree(self)
                self._elimination = eliminate(self._crow, self._col, mirror, order)
        return self._elimination

    def find(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Where the entries at pairs (rows[k], cols[k]) are: (len,) int64, -1 where none is stored.

        rows, cols: (len,) int32 or int64.

        Raises:
            ValueError: not of one length, or an index out of range.
        """
        check_index("rows", rows, self._shape[0])
        check_index("cols", cols, self._shape[1])
        if rows.shape != cols.shape:
            raise ValueError(
                f"cols: expected {rows.numel()} indices like rows, got {cols.numel()}; for all "
                "combinations use A.submatrix(rows, cols)"
            )
        with finding_structure("find"):
            rows, cols = (plain(i).to(self.device, torch.int64) for i in (rows, cols))
            return find_entries(self._crow, self._col, rows, cols)

    def principal_blocks(self, first: Tensor, index: Tensor) -> tuple[Pattern, Tensor]:
        """The submatrices A[I_k, I_k] on sets of indices, which may overlap, as one block diagonal.

        What overlapping Schwarz methods factorize.

        first: (S + 1,), index: (N,) int64: I_k = index[first[k]:first[k + 1]], increasing.

        Returns the (N, N) pattern, int64, whose rows and columns count through all sets, and the
        place (nnz,) of each of its entries in this one.

        Raises:
            ValueError: the pattern is not square, an index is out of range, a set is not
                increasing, or `first` does not count from 0 to N.
        """
        if self._shape[0] != self._shape[1]:
            raise ValueError(f"principal_blocks: expected a square matrix, got {self._shape}")
        check_index("index", index, self._shape[0])
        with finding_structure("principal_blocks"):
            first, index = (plain(i).to(self.device, torch.int64) for i in (first, index))
            sizes, bounds = first.diff(), first[[0, -1]].tolist() if first.numel() else None
            if bounds != [0, index.numel()] or bool((sizes < 0).any()):
                raise ValueError(f"first: expected numbers from 0 to {index.numel()} in order")
            number = torch.repeat_interleave(sizes)  # of the set of each index
            if bool(((index.diff() <= 0) & (number.diff() == 0)).any()):
                raise ValueError("index: expected increasing numbers in each set")
            crow, col, source = principal_blocks(self._crow, self._col, first, index)
            return Pattern.trusted(crow, col, (index.numel(), index.numel())), source

    def matmul(self, other: Pattern) -> Pattern:
        """The pattern of a product, cancellation ignored; kept while `other` lives.

        As in `union` and `intersection`, int64 indices of one of the two make those of the result
        int64.

        Raises:
            ValueError: the inner dimensions or the devices differ.
        """
        product = self._products.get(other)
        if product is None:
            with finding_structure("Pattern.matmul", kept=True):
                left, right = self._factors(other)
                product = self._keep_product(other, *spgemm_structure(left, right))
        return product

    def matmul_at_once(
        self, other: Pattern, values: Tensor, other_values: Tensor
    ) -> tuple[Pattern, Tensor] | None:
        """`matmul` with the product's values, (nnz,), in one pass; they have no derivatives.

        None where the pattern is known already, or no kernel does it.

        Raises:
            ValueError: see `matmul`.
        """
        if self._products.get(other) is not None:
            return None
        with finding_structure("Pattern.matmul", kept=True):
            left, right = self._factors(other)
            found = spgemm_at_once(left, values, right, other_values)
            if found is None:
                return None
            crow, col, product_values = found
            return self._keep_product(other, crow, col), product_values

    def _factors(self, other: Pattern) -> tuple[Layout, Layout]:
        """This pattern and another one, checked and alike, for their product."""
        check_pattern("other", other)
        if self._shape[1] != other._shape[0]:
            raise ValueError(f"matmul: inner dimensions differ: {self._shape} @ {other._shape}")
        self._check_device("matmul", other)
        left, right = in_one_dtype(self, other)
        return left.forward_layout, right.forward_layout

    def _keep_product(self, other: Pattern, crow: Tensor, col: Tensor) -> Pattern:
        product = Pattern.trusted(crow, col, (self._shape[0], other._shape[1]))
        self._products.put(other, product)
        return product

    def union(self, other: Pattern) -> PatternUnion:
        """The pattern of a sum of two matrices; kept while `other` lives.

        The result's pattern is this one when it contains the other, and has indices as wide.

        Raises:
            ValueError: the shapes or the devices differ.
        """
        check_pattern("other", other)
        if self.dtype != other.dtype and self._shape == other._shape:
            return self.long.union(other.long)
        plan = self._unions.get(other)
        if plan is None:
            with finding_structure("Pattern.union", kept=True):
                if self._shape != other._shape:
                    raise ValueError(f"union: shapes differ: {self._shape} and {other._shape}")
                self._check_device("union", other)
                plan = self._merged((other._crow, other._col))
                self._unions.put(other, plan)
        pattern, left, right = plan
        return PatternUnion(self if pattern is None else pattern, left, right)

    def _merged(self, other: merging.Compressed) -> Union:
        crow, col, left, right = merging.union((self._crow, self._col), other, self._shape)
        pattern = self._derived(crow, col, self._shape) if len(col) > self.nnz else None
        return pattern, left.to(self._crow.dtype), right.to(self._crow.dtype)

    @property
    def with_diagonal(self) -> PatternUnion:
        """The union with the whole main diagonal: `right` are the places of the diagonal in it."""
        if self._with_diagonal is None:
            with finding_structure("Pattern.with_diagonal", kept=True):
                n, length = self._shape[0], min(self._shape)
                crow = torch.arange(n + 1, dtype=self._crow.dtype, device=self.device)
                along = crow[:length].to(self.dtype)
                self._with_diagonal = self._merged((crow.clamp(max=length), along))
        pattern, left, right = self._with_diagonal
        return PatternUnion(self if pattern is None else pattern, left, right)

    def kept(self, what: str, find: Callable[[Pattern], Found]) -> Found:
        """Another structure that follows from this pattern alone: `find(self)`, kept by its name.

        It must not refer to this pattern, which would then hold itself.
        """
        if what not in self._kept:
            with finding_structure(f"Pattern ({what})", kept=True):
                self._kept[what] = find(self)
        return self._kept[what]

    def intersection(self, other: Pattern) -> PatternIntersection:
        """The entries that this pattern and another share; kept while `other` lives.

        Raises:
            ValueError: the shapes or the devices differ.
        """
        check_pattern("other", other)
        if self.dtype != other.dtype and self._shape == other._shape:
            return self.long.intersection(other.long)
        plan = self._intersections.get(other)
        if plan is None:
            with finding_structure("Pattern.intersection", kept=True):
                if self._shape != other._shape:
                    raise ValueError(
                        f"intersection: shapes differ: {self._shape} and {other._shape}"
                    )
                self._check_device("intersection", other)
                crow, col, left, right = merging.intersection(
                    (self._crow, self._col), (other._crow, other._col), self._shape
                )
                pattern = self._derived(crow, col, self._shape)
                places = (left.to(self._crow.dtype), right.to(self._crow.dtype))
                plan = PatternIntersection(pattern, *places)
                self._intersections.put(other, plan)
        return plan

    def submatrix(self, rows: Index, cols: Index) -> Selection:
        """The structure of `A[rows][:, cols]`: keep it to extract new values without searching.

        rows, cols: slices, or 1-D integer tensors in any order, which may repeat.

        Raises:
            ValueError: an index tensor is not 1-D and integer, or an index is out of range.
        """
        return self.selected(self._places("rows", rows, 0), self._places("cols", cols, 1))

    def selected(self, rows: Places, cols: Places) -> Selection:
        """`submatrix` for ranges and int64 tensors on this device that are known to be in range."""
        with finding_structure("A[...], submatrix"):
            crow, col, positions = select_entries(self._crow, self._col, self._shape[1], rows, cols)
            return Selection(Pattern.trusted(crow, col, (len(rows), len(cols))), positions)

    def _places(self, name: str, index: Index, axis: int) -> Places:
        size = self._shape[axis]
        if isinstance(index, slice):
            return range(size)[index]
        if not isinstance(index, Tensor):
            raise ValueError(f"{name}: expected a slice or a 1-D integer tensor, got {index!r}")
        with finding_structure("A[...], submatrix"):
            index = plain(index)
            check_index(name, index, size)
            return index.to(self.device, torch.int64)

    def _derived(self, crow: Tensor, col: Tensor, shape: tuple[int, int]) -> Pattern:
        """A pattern with this one's index dtypes, or wider ones where the arrays need them."""
        crow = crow.to(wider(crow.dtype, self._crow.dtype))
        return Pattern.trusted(crow, col.to(wider(col.dtype, self.dtype)), shape)

    @property
    def long(self) -> Pattern:
        """The same entries with int64 indices, kept; this pattern if it has them."""
        return self if self.dtype == torch.int64 else self.kept("int64", _lengthened)

    def _check_device(self, operation: str, other: Pattern) -> None:
        if self.device != other.device:
            raise ValueError(
                f"{operation}: the patterns are on {self.device} and {other.device}; move one with "
                ".to(device)"
            )

    def to(self, device: torch.device | str) -> Pattern:
        """This pattern on a device; a copy there is found again as long as it lives."""
        device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        if device == self.device:
            return self
        copy = self._copies.get(device)
        if copy is None:
            copy = Pattern.trusted(self._crow.to(device), self._col.to(device), self._shape)
            if self._layout is not None:
                copy._keep_layout(_moved(self._layout, copy))
            self._copies[device] = copy
        return copy

    def __reduce__(self):
        # Checked again: a file may be damaged, and kernels would follow its indices.
        return Pattern, (self._crow, self._col, self._shape, self._col.dtype, self._crow.dtype)

    def __copy__(self) -> Pattern:
        return self

    def __deepcopy__(self, memo: dict) -> Pattern:
        return self

    def __repr__(self) -> str:
        return (
            f"Pattern(shape={self._shape}, nnz={self.nnz}, dtype={self.dtype}, "
            f"device='{self.device}')"
        )


# Patterns by where their arrays are, which no two of one shape share while both live.
_OWNERS: weakref.WeakValueDictionary[tuple, Pattern] = weakref.WeakValueDictionary()


def _arrays(layout: Layout) -> tuple:
    arrays = (layout.crow.device, layout.crow.data_ptr(), layout.col.data_ptr())
    return (*arrays, layout.n_rows, layout.n_cols)


def _checked_dtype(
    name: str, dtype: torch.dtype | None, least: torch.dtype, shape: tuple[int, int], nnz: int
) -> torch.dtype:
    """The index dtype asked for, by default the least that will do."""
    if dtype not in (None, torch.int64, least):
        raise ValueError(
            f"{name}: expected {' or '.join(sorted({str(least), 'torch.int64'}))} for shape "
            f"{shape} and {nnz} entries, got {dtype}"
        )
    return dtype or least


def in_one_dtype(*patterns: Pattern) -> tuple[Pattern, ...]:
    """The patterns as they are if their columns have one dtype, else all with int64 indices."""
    alike = len({pattern.dtype for pattern in patterns}) == 1
    return patterns if alike else tuple(pattern.long for pattern in patterns)


def _lengthened(pattern: Pattern) -> Pattern:
    return Pattern.trusted(pattern.crow.long(), pattern.col.long(), pattern.shape)


def _moved(layout: Layout, copy: Pattern) -> Layout:
    """The layout of a copy on another device: what is known is moved, not computed again."""
    device = copy.device
    t_crow, t_col = layout.transposed
    t_perm = layout.t_perm
    return layout._replace(
        crow=copy.crow,
        col=copy.col,
        t_crow=t_crow.to(device),
        t_col=t_col.to(device),
        t_perm=None if t_perm is None else t_perm.to(device),
    )


def check_pattern(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a Pattern."""
    if not isinstance(value, Pattern):
        raise TypeError(
            f"{name}: expected a Pattern, got {type(value).__name__}; that of a CSRTensor A is "
            "A.pattern"
        )
