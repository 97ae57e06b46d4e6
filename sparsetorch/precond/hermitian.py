"""The lower triangle that stands for a whole Hermitian matrix, and that matrix from it."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.structure import outside_transforms, plain
from sparsetorch.triangles import triangle


def lower_triangle(A: CSRTensor) -> CSRTensor:
    """The lower triangle of a symmetric or Hermitian A, (n, n), with a real diagonal.

    The whole diagonal is stored. Nothing above it is read.

    Raises:
        ValueError: the diagonal is not real to half the digits of the dtype.
    """
    part = triangle(A.pattern, lower=True)
    values = part.of(A.values)
    if values.is_complex():
        positions = part.pattern.diagonal.positions.long()
        diagonal = values.index_select(-1, positions)
        _refuse_imaginary(diagonal)
        values = values.index_copy(-1, positions, diagonal.real.to(values.dtype))
    return CSRTensor(part.pattern, values)


def whole(lower: CSRTensor) -> CSRTensor:
    """The Hermitian matrix with this lower triangle, whose diagonal is real."""
    strict = triangle(lower.pattern, lower=True, strict=True)
    return lower + CSRTensor(strict.pattern, strict.of(lower.values)).H


def _refuse_imaginary(diagonal: Tensor) -> None:
    with outside_transforms():
        diagonal = plain(diagonal)
        rounding = torch.finfo(diagonal.dtype).eps ** 0.5
        wrong = torch.nonzero(diagonal.imag.abs() > rounding * diagonal.real.abs())
    if len(wrong):
        raise ValueError(
            "A: expected a Hermitian matrix, whose diagonal is real, but it is not in "
            f"{len(wrong)} rows, the first of them row {int(wrong[:, -1].min())}; ilu0 and spai "
            "take any matrix"
        )
