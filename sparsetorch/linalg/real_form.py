"""Complex Hermitian matrices as real symmetric ones of twice the size, for real elimination.

Entry (i, j), a + b i, becomes the block [[a, -b], [b, a]] in rows 2i and 2i + 1 (Golub
and Van Loan, Matrix Computations, section 4.2). Each eigenvalue of the matrix is one of its real
form twice, so that this is positive definite if the matrix is; the inverse's real form is the real
form's inverse. A factorization takes twice the operations of a complex one, as many as LU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.ordering import minimum_degree
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import Elimination, eliminate, transpose_structure


class RealForm(NamedTuple):
    """The real form of matrices on one pattern, eliminated symbolically.

    real, imaginary: (nnz,), where the first column of each entry's block, (a, b), is.
    """

    elimination: Elimination
    real: Tensor
    imaginary: Tensor

    def values(self, complex_values: Tensor) -> Tensor:
        """Values (nnz,) in the real form, (4 nnz,)."""
        a, b = complex_values.real, complex_values.imag
        out = a.new_empty(4 * len(a))
        out[self.real], out[self.imaginary] = a, b
        out[self.real + 1], out[self.imaginary + 1] = -b, a
        return out

    def entries(self, values: Tensor) -> Tensor:
        """The complex values (nnz,) of values (4 nnz,) in the real form."""
        return torch.complex(values[self.real], values[self.imaginary])


def real_form(pattern: Pattern) -> RealForm:
    """The real form of a symmetric pattern; kept on it."""
    return pattern.kept("real form", _find)


def real_columns(x: Tensor) -> Tensor:
    """Complex (n, k) as real (2n, k)."""
    return torch.view_as_real(x.resolve_conj()).mT.reshape(2 * x.shape[0], x.shape[1])


def complex_columns(x: Tensor) -> Tensor:
    """Real (2n, k) as complex (n, k)."""
    return torch.complex(x[0::2], x[1::2])


def _find(pattern: Pattern) -> RealForm:
    crow, col = pattern.crow.long(), pattern.col.long()
    row, counts = pattern.row.long(), crow.diff()
    # Rows 2i and 2i + 1 have both columns of each entry of row i.
    real = 2 * (crow[row] + torch.arange(len(col)))
    imaginary = real + 2 * counts[row]
    columns = torch.empty(4 * len(col), dtype=torch.int64)
    columns[real] = columns[imaginary] = 2 * col
    columns[real + 1] = columns[imaginary + 1] = 2 * col + 1
    starts = torch.stack([4 * crow[:-1], 4 * crow[:-1] + 2 * counts], 1).flatten()
    pointers = torch.cat([starts, 4 * crow[-1:]])
    mirror = transpose_structure(pointers, columns, 2 * len(counts))[2]
    order = minimum_degree(pattern)
    pairs = torch.stack([2 * order, 2 * order + 1], 1).flatten()
    return RealForm(eliminate(pointers, columns, mirror, pairs), real, imaginary)
