"""The public triangular solve: arguments checked, batches flattened, derivatives registered.

x = T^-1 b is linear in b, and T in its values (G is the gradient of x):

    db = T^-T G,    dv = -sddmm(T, db, x),    and the tangent is T^-1 (db - spmm(T, dv, x)).

For complex numbers db = T^-H G, and x enters dv conjugated.

The transpose of a lower triangle is an upper one, so the four solves (lower or upper, unit diagonal
or not) are closed under differentiation together with the products.
"""

import torch
from torch import Tensor

from sparsetorch_kernels._register import Inverse, register
from sparsetorch_kernels.batches import flatten, unflatten
from sparsetorch_kernels.csr import checks
from sparsetorch_kernels.csr import ops as products  # noqa: F401  (registers what is used here)
from sparsetorch_kernels.layout import Layout
from sparsetorch_kernels.triangular import backend

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def _name(lower: bool, unit: bool) -> str:
    return f"solve_{'unit_' if unit else ''}{'lower' if lower else 'upper'}"


def _definition(lower: bool, unit: bool) -> Inverse:
    return Inverse(
        name=_name(lower, unit),
        layouts=2,
        forward=lambda layouts, v, b, reduce: backend.solve(
            layouts, v, b, reduce, lower=lower, unit=unit
        ),
        shape=lambda layouts, v, b: tuple(b.shape[1:]),
        adjoint=lambda ops, layouts, v, g: ops[_name(not lower, unit)](
            (layouts[0].T, layouts[1]), v, g, False
        ),
        outer=lambda ops, layouts, u, x, reduce: ops["sddmm"](layouts[:1], u, x, reduce),
        product=lambda ops, layouts, v, x: ops["spmm"](layouts[:1], v, x, False),
    )


_ops = register(
    "sparsetorch", [_definition(lower, unit) for lower in (True, False) for unit in (True, False)]
)


def solve_triangular(
    triangle: Layout, levels: Layout, values: Tensor, b: Tensor, *, lower: bool, unit: bool
) -> Tensor:
    """x with T x = b, by substitution.

    triangle: (n, n), with no entries above the diagonal if `lower`, and none below it otherwise;
    with `unit` none on it either, where T then has ones. levels: what `level_sets` returns for the
    triangle if it is lower, and for its transpose otherwise, (n_levels, n). values (*b, nnz),
    b (*b, n, k) -> (*b, n, k); the leading dimensions broadcast. float32, float64,
    complex64 or complex128. Differentiable in values and b, any number of times, in reverse and
    forward mode. On the CPU in C++, on CUDA by cuSPARSE, elsewhere in PyTorch.

    Raises:
        SingularTriangleError: a diagonal entry is zero or missing.
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    n = triangle.n_rows
    if values.dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise TypeError(f"values is {values.dtype}; expected one of {names}")
    checks.check_operands(
        "triangle", triangle, ("values", values, (triangle.col.shape[0],)), ("b", b, (n, None))
    )
    checks.check_layout("levels", levels)
    if triangle.n_cols != n or (levels.n_cols, levels.col.shape[0]) != (n, n):
        raise ValueError(
            f"triangle has shape ({n}, {triangle.n_cols}) and levels {levels.col.shape[0]} entries "
            f"in {levels.n_cols} columns; expected (n, n), and n in n"
        )
    if (levels.col.dtype, levels.col.device) != (triangle.col.dtype, triangle.col.device):
        raise TypeError(
            f"levels has {levels.col.dtype} indices on {levels.col.device}; triangle has "
            f"{triangle.col.dtype} on {triangle.col.device}"
        )
    values, b, batch = flatten(values, 1, b, 2)
    return unflatten(_ops[_name(lower, unit)]((triangle, levels), values, b), batch)
