"""CSRTensor: a sparse matrix, or a batch of them, as a pattern and a tensor of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import scipy.sparse as sp
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsetorch import algebra, build, indexing, interop, overrides, reductions
from sparsetorch.algebra import Sparse
from sparsetorch.checks import Scalar, check_count, check_tensor, checked_scalar
from sparsetorch.pattern import Index, Pattern, Selection
from sparsetorch.tensor_like import TensorLike
from sparsetorch_kernels import HALF


class CSRTensor(TensorLike):
    """A sparse matrix whose values carry gradients and whose structure is shared.

    pattern: which entries exist. values: (*batch, nnz), float16, bfloat16, float32, float64,
    complex64 or complex128, in the pattern's order; leading dimensions are batches of matrices with
    one pattern. Products add half precision up in float32; solves compute in float32 and round
    once. Neither argument is copied, so `values` may be an `nn.Parameter` or the output of a
    network, and gradients end up in `values.grad`.

    A CSRTensor is a pytree with `values` as its leaf: it passes through `torch.compile`,
    `torch.vmap` and `torch.func`. Inside compiled code write `A.matmul(x)` or `torch.matmul(A, x)`:
    there PyTorch confuses `A @ x` with `x @ A`, and `@` raises instead.

    Raises:
        ValueError: the values do not fit the pattern or are on another device.
        TypeError: the values are not floating or complex numbers.
    """

    # NumPy then leaves `number * A` and `array @ A` to the methods of this class.
    __array_ufunc__ = None

    # Construction

    @classmethod
    def from_coo(
        cls, row: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> CSRTensor:
        """Assemble triplets in any order; duplicates are summed. Differentiable in `values`.

        row, col: (n,) int32 or int64. values: (*batch, n). To assemble new values again and again,
        keep `sparsetorch.assembly(row, col, shape)`.

        Raises:
            ValueError: lengths or devices differ, or an index is out of range.
        """
        return cls(*build.from_coo(row, col, values, shape))

    @classmethod
    def from_scipy(
        cls,
        matrix: Any,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        requires_grad: bool = False,
    ) -> CSRTensor:
        """Copy a SciPy sparse matrix or array of any format; its dtype stays unless one is given.

        Duplicates are summed, columns sorted, explicit zeros kept.

        Raises:
            TypeError: not a SciPy sparse matrix, or integer values and no `dtype`.
        """
        A = cls(*build.from_scipy(matrix, dtype, device))
        return A.requires_grad_() if requires_grad else A

    @classmethod
    def from_dense(cls, x: Tensor, pattern: Pattern | None = None) -> CSRTensor:
        """The entries of x (*batch, n, m) on `pattern`, or where x is not zero; differentiable.

        Raises:
            ValueError: x is not a matrix, or the pattern's shape or device differs.
        """
        return cls(*build.from_dense(x, pattern))

    @classmethod
    def from_torch(cls, tensor: Tensor) -> CSRTensor:
        """From a torch.sparse CSR, CSC or COO matrix; duplicates of a COO one are summed.

        Index arrays and values are shared with a CSR matrix, except that int64 indices which fit
        are stored as int32. Gradients reach `tensor`'s own values as far as PyTorch lets them.

        Raises:
            TypeError: another layout.
            ValueError: a batch, or entries that are not numbers.
        """
        return cls(*interop.from_torch(tensor))

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        n_nodes: int | tuple[int, int] | None = None,
    ) -> CSRTensor:
        """The matrix that passes messages along PyG's edges: `A @ X` sums over incoming edges.

        edge_index: (2, n_edges), sources above targets: entry (target, source). edge_weight:
        (*batch, n_edges), ones by default; weights of parallel edges are summed, differentiably.
        n_nodes: a number, or (sources, targets) of a bipartite graph; the largest index by default.

        Raises:
            ValueError: shapes that do not fit, or an index out of range.
        """
        return cls(*interop.from_edge_index(edge_index, edge_weight, n_nodes))

    @classmethod
    def from_sparse_tensor(cls, tensor: Any) -> CSRTensor:
        """From a `torch_sparse.SparseTensor`; ones where it has no values."""
        return cls(*interop.from_sparse_tensor(tensor))

    @classmethod
    def from_networkx(
        cls, graph: Any, weight: str = "weight", dtype: torch.dtype | None = None
    ) -> CSRTensor:
        """Adjacency matrix of a NetworkX graph in its node order: entry (i, j) is edge i -> j.

        weight: the edge attribute that holds the values, 1 where an edge lacks it. dtype: PyTorch's
        default one if None.
        """
        return cls(*interop.from_networkx(graph, weight, dtype))

    @classmethod
    def from_cupy(cls, matrix: Any) -> CSRTensor:
        """From a cupyx.scipy.sparse matrix, sharing its memory (DLPack) if it is canonical CSR."""
        return cls(*interop.from_cupy(matrix))

    @classmethod
    def eye(
        cls, n: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> CSRTensor:
        """The n x n identity.

        Raises:
            TypeError, ValueError: n is no whole number of at least 0.
        """
        n = check_count("n", n, "rows", least=0)
        return cls.diag(torch.ones(n, dtype=dtype, device=device))

    @classmethod
    def diag(cls, d: Tensor) -> CSRTensor:
        """The diagonal matrix of d (*batch, n); differentiable."""
        check_tensor("d", d)
        if d.ndim < 1:
            raise ValueError("d: expected (*batch, n), got a 0-d tensor")
        return cls(build.diagonal_pattern(d.shape[-1], d.device), d)

    @classmethod
    def _of(cls, sparse: Sparse) -> CSRTensor:
        """A result: it needs no checks, and its transposed structure is found when it is needed."""
        self = object.__new__(cls)
        self.pattern, self.values = sparse
        return self

    # Conversion

    def to_dense(self) -> Tensor:
        """(*batch, n_rows, n_cols), differentiable."""
        return algebra.to_dense(self._sparse)

    def to_scipy(self) -> sp.csr_array:
        """A copy as a `scipy.sparse.csr_array`.

        Raises:
            ValueError: this is a batch of matrices.
            TypeError: float16 or bfloat16, for which SciPy has no sparse matrices.
        """
        self._refuse_batch("to_scipy")
        if self.dtype in HALF:
            raise TypeError(
                f"to_scipy: SciPy has no sparse matrices of {self.dtype}; use A.to(torch.float32)"
            )
        values = self.values.detach().resolve_conj().resolve_neg()
        arrays = (values, self.pattern.col, self.pattern.crow)
        copies = tuple(array.cpu().numpy().copy() for array in arrays)
        return sp.csr_array(copies, shape=self.pattern.shape)

    def to_torch(self, layout: torch.layout = torch.sparse_csr) -> Tensor:
        """A torch.sparse CSR or COO tensor, (*batch, n_rows, n_cols), that shares the values.

        Differentiable as far as PyTorch's own operations are; many of them fill a dense gradient.
        """
        return interop.to_torch(self._sparse, layout)

    def to_edge_index(self) -> tuple[Tensor, Tensor]:
        """PyG's edge_index (2, nnz) int64, sources above targets, and edge_weight (*batch, nnz)."""
        return interop.to_edge_index(self._sparse)

    def to_networkx(self, create_using: Any = None) -> Any:
        """A NetworkX graph, directed by default, with the entries as edge attribute "weight"."""
        return interop.to_networkx(self, create_using)

    def to_cupy(self) -> Any:
        """A `cupyx.scipy.sparse.csr_matrix` that shares memory with this matrix, which is on CUDA.

        Raises:
            ImportError: CuPy is not installed.
            ValueError: the matrix is not on CUDA, or a batch.
        """
        self._refuse_batch("to_cupy")
        return interop.to_cupy(self)

    # Products

    def matvec(self, x: Tensor) -> Tensor:
        """`A x` for each vector of a batch: x (*batch, n_cols) -> (*batch, n_rows)."""
        return algebra.matvec(self._sparse, x)

    def rmatvec(self, x: Tensor) -> Tensor:
        """`A^T x` for each vector of a batch: x (*batch, n_rows) -> (*batch, n_cols)."""
        return algebra.matvec(self._sparse, x, transpose=True)

    @overload
    def matmul(self, other: Tensor) -> Tensor: ...
    @overload
    def matmul(self, other: CSRTensor) -> CSRTensor: ...
    def matmul(self, other: Tensor | CSRTensor) -> Tensor | CSRTensor:
        """`A @ other`: a vector (n_cols,), matrices (*batch, n_cols, k), or a CSRTensor.

        As in `torch.matmul`, a 1-D operand is a vector and anything longer is matrices, so that a
        batch of vectors goes through `matvec`. The structure of a sparse product is found once and
        kept on the pattern.

        Raises:
            ValueError: sizes or devices differ.
            TypeError: dtypes differ, or `other` is neither a tensor nor a CSRTensor.
        """
        if isinstance(other, CSRTensor):
            return self._of(algebra.product(self._sparse, other._sparse))
        if not isinstance(other, Tensor):
            raise TypeError(f"@: expected a tensor or a CSRTensor, got {type(other).__name__}")
        if other.ndim == 1:
            return algebra.matvec(self._sparse, other)
        return algebra.matmat(self._sparse, other)

    def rmatmul(self, other: Tensor) -> Tensor:
        """`other @ A`: a vector (n_rows,) or matrices (*batch, k, n_rows); raises like `matmul`."""
        if not isinstance(other, Tensor):
            raise TypeError(f"@: expected a tensor or a CSRTensor, got {type(other).__name__}")
        if other.ndim == 1:
            return algebra.matvec(self._sparse, other, transpose=True)
        return algebra.matmat(self._sparse, other.mT, transpose=True).mT

    @overload
    def mm(self, other: Tensor) -> Tensor: ...
    @overload
    def mm(self, other: CSRTensor) -> CSRTensor: ...
    def mm(self, other: Tensor | CSRTensor) -> Tensor | CSRTensor:
        """`A @ other` of two matrices without batches, as `torch.mm`; raises like `matmul`."""
        return torch.mm(self, other)  # pyright: ignore

    __matmul__ = matmul
    __rmatmul__ = rmatmul

    # Sums and scaling

    def add(self, other: CSRTensor) -> CSRTensor:
        """`A + other` on the union of the two patterns, with the wider of their index dtypes.

        Raises:
            TypeError: `other` is not a CSRTensor; a number would fill the places not stored.
        """
        if not isinstance(other, CSRTensor):
            raise TypeError(
                f"only a CSRTensor can be added to or subtracted from a CSRTensor, got "
                f"{type(other).__name__}: anything else would fill the places that are not stored. "
                "To change the stored entries only, use A.with_values(...); otherwise A.to_dense()"
            )
        return self._of(algebra.add(self._sparse, other._sparse))

    def neg(self) -> CSRTensor:
        """`-A`."""
        return self.with_values(-self.values)

    def sub(self, other: CSRTensor) -> CSRTensor:
        """`A - other` on the union of the two patterns; same errors as `add`."""
        return self.add(other.neg() if isinstance(other, CSRTensor) else other)

    def mul(self, other: Scalar | CSRTensor) -> CSRTensor:
        """`A * other`: by a number or a 0-d tensor, or entry by entry with another CSRTensor.

        The entrywise product is stored where both are. Differentiable in both.
        """
        if isinstance(other, CSRTensor):
            return self._of(algebra.hadamard(self._sparse, other._sparse))
        return self.with_values(self.values * checked_scalar(other, self.device))

    def div(self, scalar: Scalar) -> CSRTensor:
        """`A / scalar`, for a number or a 0-d tensor; differentiable in both."""
        return self.with_values(self.values / checked_scalar(scalar, self.device))

    __add__ = __radd__ = add
    __sub__ = sub
    __neg__ = neg
    __mul__ = __rmul__ = mul
    __truediv__ = div

    def __rsub__(self, other: Any) -> CSRTensor:
        return self.neg().add(other)

    def pow(self, exponent: float) -> CSRTensor:
        """Each entry to a positive power. As `scipy.sparse.csr_array ** p`.

        Raises:
            ValueError: a power that is not positive: it would fill the places not stored.
        """
        if isinstance(exponent, CSRTensor) or (isinstance(exponent, Tensor) and exponent.ndim):
            raise TypeError(f"exponent: expected a number, got a {type(exponent).__name__}")
        if not exponent > 0:
            raise ValueError(
                f"exponent: expected a positive number, got {exponent}: 0 ** {exponent} is not 0, "
                "so the result would be dense; for the stored entries only, use A.map"
            )
        return self.with_values(self.values**exponent)

    __pow__ = pow

    def map(self, function: Callable[[Tensor], Tensor]) -> CSRTensor:
        """A function of the stored values, (*batch, nnz) -> (*batch, nnz); the rest stays zero.

        `A.map(torch.exp)` is therefore the exponential of stored entries, not of the dense matrix.

        Raises:
            ValueError: the function changes the shape.
        """
        values = function(self.values)
        if not isinstance(values, Tensor) or values.shape != self.values.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"function: expected values of shape {tuple(self.values.shape)} back, got {got}"
            )
        return self.with_values(values)

    def abs(self) -> CSRTensor:
        """The absolute values; real for complex numbers."""
        return self.map(torch.abs)

    __abs__ = abs

    def conj(self) -> CSRTensor:
        """The complex conjugate."""
        return self.with_values(self.values.conj())

    def scale_rows(self, d: Tensor) -> CSRTensor:
        """`diag(d) A`, d (*batch, n_rows)."""
        return self._of(algebra.scale_rows(self._sparse, d))

    def scale_cols(self, d: Tensor) -> CSRTensor:
        """`A diag(d)`, d (*batch, n_cols)."""
        return self._of(algebra.scale_cols(self._sparse, d))

    # Reductions

    def sum(self, dim: reductions.Dim = None, keepdim: bool = False) -> Tensor:
        """Sum of the entries: of all, of each row (dim -1) or of each column (dim -2).

        dim counts the batch dimensions too, as in torch; (-2, -1) gives one number per matrix.
        keepdim: a size of 1 for each dimension that is summed. The same holds for `mean`, `amax`,
        `amin` and `norm`. In all of them places that are not stored count as zeros, so that results
        are those of `A.to_dense()`.

        Raises:
            ValueError: another dimension.
        """
        return self._kept(reductions.total(self._sparse, dim), dim, keepdim)

    def mean(self, dim: reductions.Dim = None, keepdim: bool = False) -> Tensor:
        """Mean of the entries, see `sum`."""
        return self._kept(reductions.mean(self._sparse, dim), dim, keepdim)

    def amax(self, dim: reductions.Dim = None, keepdim: bool = False) -> Tensor:
        """Largest entry, see `sum`; equal ones share the gradient."""
        return self._kept(reductions.extremum(self._sparse, dim, "amax"), dim, keepdim)

    def amin(self, dim: reductions.Dim = None, keepdim: bool = False) -> Tensor:
        """Smallest entry, see `sum`; equal ones share the gradient."""
        return self._kept(reductions.extremum(self._sparse, dim, "amin"), dim, keepdim)

    def norm(
        self, ord: reductions.Order = None, dim: reductions.Dim = None, keepdim: bool = False
    ) -> Tensor:
        """Norm of the entries, of rows (dim -1) or of columns (dim -2), see `sum`.

        ord: None for the 2-norm of all entries, rows or columns. Of a matrix also "fro" (the same),
        1 (largest sum of |a| in a column) or inf (in a row); of rows and columns 1, 2 or inf. As
        `torch.linalg.norm` and `scipy.sparse.linalg.norm`. Differentiable; norms of zero have the
        gradient zero, and equal sums or entries share that of a maximum.

        Raises:
            ValueError: another order or dimension, or a matrix without rows or columns to compare.
        """
        return self._kept(reductions.norm(self._sparse, ord, dim), dim, keepdim)

    def _kept(self, result: Tensor, dim: reductions.Dim, keepdim: bool) -> Tensor:
        return reductions.with_dimensions(self._sparse, result, dim) if keepdim else result

    def softmax(self, dim: int = -1) -> CSRTensor:
        """Softmax over the *stored* entries of each row (dim -1) or column (dim -2).

        As `torch.sparse.softmax`: places that are not stored count as -inf, not as zeros.
        """
        return self._of(reductions.softmax(self._sparse, dim))

    # Structure

    @property
    def T(self) -> CSRTensor:
        """The transpose; its values are in the order of the transposed pattern."""
        return self._of(algebra.transpose(self._sparse))

    @property
    def H(self) -> CSRTensor:
        """The conjugate transpose."""
        return self.T.conj()

    def __getitem__(self, key: indexing.Key) -> CSRTensor | Tensor:
        """Parts of one matrix, by integers, slices, integer lists and boolean masks.

        `A[i, j]` is a number (0-d tensor), `A[i]` and `A[:, j]` dense vectors, `A[rows]`,
        `A[:, cols]` and `A[slice, slice]` CSRTensors. Two lists, `A[rows, cols]`, are pairs as in
        NumPy and SciPy: a dense vector of entries; for all combinations use `submatrix`. All are
        differentiable.

        Raises:
            IndexError: an index out of range.
            TypeError, ValueError: something else than an index, or a batch of matrices.
        """
        self._refuse_batch("A[...]")
        found = indexing.get(self._sparse, key)
        return found if isinstance(found, Tensor) else self._of(found)

    def lookup(self, rows: Tensor, cols: Tensor) -> Tensor:
        """The entries at pairs (rows[i], cols[i]), (*batch, len); zero where nothing is stored."""
        return indexing.lookup(self._sparse, rows, cols)

    def tril(self, diagonal: int = 0) -> CSRTensor:
        """The entries on and below a diagonal: 0 the main one, 1 that above it."""
        return self.select(indexing.triangle(self.pattern, diagonal, lower=True))

    def triu(self, diagonal: int = 0) -> CSRTensor:
        """The entries on and above a diagonal: 0 the main one, 1 that above it."""
        return self.select(indexing.triangle(self.pattern, diagonal, lower=False))

    def prune(self, threshold: float = 0.0) -> CSRTensor:
        """Without the entries of which |a| <= threshold (in every matrix of a batch); NaN stays.

        Raises:
            ValueError: a threshold that is not a number of at least 0.
        """
        return self.select(indexing.larger_than(self._sparse, threshold))

    def topk_per_row(self, k: int) -> CSRTensor:
        """The k entries of largest |a| of each row; over a batch, by their largest |a|."""
        return self.select(indexing.largest_per_row(self._sparse, k))

    def with_diagonal(self, d: Tensor) -> CSRTensor:
        """With d, (*batch, min(n_rows, n_cols)), in place of the main diagonal, all of it stored.

        The structure is found once and kept on the pattern.
        """
        return self._of(algebra.set_diagonal(self._sparse, d))

    def add_diagonal(self, d: Tensor | float) -> CSRTensor:
        """`A + diag(d)`, see `with_diagonal`; d may be a number."""
        if isinstance(d, Tensor):
            algebra.check_diagonal(self._sparse, d)
        return self.with_diagonal(self.diagonal() + d)

    def trace(self) -> Tensor:
        """Sum of the diagonal, (*batch,)."""
        return self.diagonal().sum(-1)

    def diagonal(self, offset: int = 0) -> Tensor:
        """The main diagonal, (*batch, min(n_rows, n_cols)), or that `offset` places above it.

        Zero where nothing is stored.
        """
        if offset == 0:
            return algebra.diagonal(self._sparse)
        return self.lookup(*indexing.diagonal_places(self.pattern, offset))

    def submatrix(self, rows: Index, cols: Index) -> CSRTensor:
        """`A[rows][:, cols]`, for slices or 1-D index tensors in any order, which may repeat.

        To extract the same places of many matrices, keep `A.pattern.submatrix(rows, cols)` and use
        `select`.

        Raises:
            ValueError: an index tensor is not 1-D and integer, or an index is out of range.
        """
        return self.select(self.pattern.submatrix(rows, cols))

    def select(self, selection: Selection) -> CSRTensor:
        """The submatrix that a selection made on this matrix's pattern describes."""
        values = self.values.index_select(-1, selection.positions)
        return self._of(Sparse(selection.pattern, values))

    @property
    def _sparse(self) -> Sparse:
        return Sparse(self.pattern, self.values)

    def _refuse_batch(self, operation: str) -> None:
        if self.values.ndim > 1:
            raise ValueError(
                f"{operation}: expected one matrix, got a batch of shape "
                f"{tuple(self.values.shape[:-1])}; take one with A.with_values(A.values[i])"
            )

    def __reduce__(self):
        return CSRTensor, (self.pattern, self.values)

    def __repr__(self) -> str:
        gradient = ", requires_grad=True" if self.requires_grad else ""
        return (
            f"CSRTensor(shape={tuple(self.shape)}, nnz={self.nnz}, dtype={self.dtype}, "
            f"device='{self.device}'{gradient})"
        )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return overrides.call(func, args, kwargs or {})


def _unflatten(leaves: Any, pattern: Any) -> CSRTensor:
    # Transformations put placeholders in the place of values: nothing can be checked here.
    (values,) = leaves
    return CSRTensor._of(Sparse(pattern, values))


pytree.register_pytree_node(
    CSRTensor,
    lambda A: ([A.values], A.pattern),
    _unflatten,
    serialized_type_name="sparsetorch.CSRTensor",
)


def _read_pattern(*claims: Any) -> Pattern:
    """What `torch.load` makes of a pattern in a file, with arrays of its own."""
    claimed = Pattern(*claims)
    # The rest of a file may give its own tensors other contents (`Tensor.set_`) after the checks.
    return Pattern.trusted(claimed.crow.clone(), claimed.col.clone(), claimed.shape)


def _read_matrix(pattern: Pattern, values: Tensor) -> CSRTensor:
    """What `torch.load` makes of a matrix in a file."""
    return CSRTensor(pattern, values)


# What `torch.load` reads by default. In a file the names of the classes stand for functions that
# check all that it may claim: of a class that is safe to it, PyTorch would also make objects
# without calling `__init__`, and write to their attributes.
torch.serialization.add_safe_globals(
    [(_read_pattern, "sparsetorch.pattern.Pattern"), (_read_matrix, "sparsetorch.csr.CSRTensor")]
)
