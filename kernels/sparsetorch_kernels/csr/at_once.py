"""The product of sparse matrices whose pattern is not known yet, and that has no derivatives."""

from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels.csr.checks import HALF, check_operands, check_product
from sparsetorch_kernels.csr.structure import narrowed
from sparsetorch_kernels.layout import Layout, alike


def spgemm_at_once(
    a: Layout, a_values: Tensor, b: Layout, b_values: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The product A B, pattern and values, in one pass: faster than two, without B's transpose.

    a (n, m), a_values (nnz_a,), b (m, p), b_values (nnz_b,), neither layout permuted -> crow
    (n + 1,) and col (nnz,) as `spgemm_structure` has them, and values (nnz,), without derivatives.
    None where no kernel does it: on other devices, for batches, in half precision, without the
    native library. Raises like `spgemm`.
    """
    check_operands(
        "a", a, ("a_values", a_values, (a.col.numel(),)), ("b_values", b_values, (b.col.numel(),))
    )
    check_product(a, b)
    a_values, b_values = a_values.detach(), b_values.detach()
    real = type(a_values) is type(b_values) is Tensor  # not fake ones, say
    fits = a_values.ndim == b_values.ndim == 1 and a_values.dtype not in HALF
    native = _native.ops()
    if native is None or not (real and fits and a_values.is_cpu):
        return None
    a, b = alike((a, b))
    crow, col, values = native.product(a.crow, a.col, b.crow, b.col, a_values, b_values, b.n_cols)
    return narrowed(crow, a), col, values
