"""The public products: arguments checked, batches flattened, derivatives registered.

Each product is bilinear in its two numerical arguments, and its derivatives are products of the
same kinds (G is the gradient of the result; complex operands enter conjugated):

    y = spmm(A, v, x)                dv = sddmm(A, G, x)             dx = spmm(A.T, v, G)
    s = sddmm(A, u, v)               du = spmm(A, G, v)              dv = spmm(A.T, G, u)
    c = spgemm(A, a, B, b, C)        da = spgemm(C, G, B.T, b, A)    db = spgemm(A.T, a, C, G, B)

(Nytko, Taghibakhshi, Zaman, MacLachlan, Olson, West, "Optimized sparse matrix operations for
reverse mode automatic differentiation", arXiv:2212.05159.)
"""

from torch import Tensor

from sparsetorch_kernels._register import Bilinear, register
from sparsetorch_kernels.batches import flatten, unflatten
from sparsetorch_kernels.csr import backend, checks
from sparsetorch_kernels.layout import Layout

_ops = register(
    "sparsetorch",
    [
        Bilinear(
            name="spmm",
            layouts=1,
            forward=backend.spmm,
            shape=lambda layouts, v, x: (layouts[0].n_rows, x.shape[2]),
            pull_p=lambda ops, layouts, g, x, reduce: ops["sddmm"](layouts, g, x, reduce),
            pull_q=lambda ops, layouts, g, v, reduce: ops["spmm"]((layouts[0].T,), v, g, reduce),
        ),
        Bilinear(
            name="sddmm",
            layouts=1,
            forward=backend.sddmm,
            shape=lambda layouts, u, v: (layouts[0].col.shape[0],),
            pull_p=lambda ops, layouts, g, v, reduce: ops["spmm"](layouts, g, v, reduce),
            pull_q=lambda ops, layouts, g, u, reduce: ops["spmm"]((layouts[0].T,), g, u, reduce),
        ),
        Bilinear(
            name="spgemm",
            layouts=3,
            forward=backend.spgemm,
            shape=lambda layouts, a, b: (layouts[2].col.shape[0],),
            pull_p=lambda ops, abc, g, b, reduce: ops["spgemm"](
                (abc[2], abc[1].T, abc[0]), g, b, reduce
            ),
            pull_q=lambda ops, abc, g, a, reduce: ops["spgemm"](
                (abc[0].T, abc[2], abc[1]), a, g, reduce
            ),
        ),
    ],
)


def spmm(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """Sparse matrix times dense matrix, y = A x.

    values (*b, nnz), x (*b, n_cols, k) -> (*b, n_rows, k); the leading dimensions broadcast.
    float16, bfloat16 (both added up in float32), float32, float64, complex64 or complex128.
    Differentiable in values and x, any number of times, in reverse and forward mode. Raises
    TypeError or ValueError naming the argument that does not fit. Equivalent to
    `scipy.sparse.csr_array @ x`.
    """
    values_tail, x_tail = (layout.col.numel(),), (layout.n_cols, None)
    checks.check_operands("layout", layout, ("values", values, values_tail), ("x", x, x_tail))
    values, x, batch = flatten(values, 1, x, 2)
    return unflatten(_ops["spmm"]((layout,), values, x), batch)


def spmv(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """Sparse matrix times vector, y = A x.

    values (*b, nnz), x (*b, n_cols) -> (*b, n_rows); otherwise as `spmm`.
    """
    nnz = layout.col.numel()
    checks.check_operands("layout", layout, ("values", values, (nnz,)), ("x", x, (layout.n_cols,)))
    if values.dim() == x.dim() == 1:  # in as few views as can be: they take a fifth of a small call
        y = _ops["spmm"]((layout,), values.unsqueeze(0), x.view(1, -1, 1))
        return y.view(-1)
    values, x, batch = flatten(values, 1, x, 1)
    return unflatten(_ops["spmm"]((layout,), values, x.unsqueeze(-1)).squeeze(-1), batch)


def sddmm(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """Products of rows of two dense matrices at the entries of a pattern (sampled u v^T).

    u (*b, n_rows, k), v (*b, n_cols, k) -> (*b, nnz), in the order of the layout's values; the
    leading dimensions broadcast. Dtypes and derivatives as in `spmm`. Raises TypeError or
    ValueError naming the argument that does not fit.
    """
    checks.check_operands(
        "layout", layout, ("u", u, (layout.n_rows, None)), ("v", v, (layout.n_cols, None))
    )
    if u.shape[-1] != v.shape[-1]:
        raise ValueError(f"v has {v.shape[-1]} columns and u {u.shape[-1]}; they must agree")
    u, v, batch = flatten(u, 2, v, 2)
    return unflatten(_ops["sddmm"]((layout,), u, v), batch)


def spgemm(a: Layout, a_values: Tensor, b: Layout, b_values: Tensor, c: Layout) -> Tensor:
    """Sparse matrix times sparse matrix, at the entries of the pattern c.

    a (n, m), a_values (*b, nnz_a), b (m, p), b_values (*b, nnz_b), c (n, p) -> (*b, nnz_c), in the
    order of c's values. Entries of A B outside c are dropped: with c from `spgemm_structure` the
    result is the whole product. The leading dimensions broadcast. Dtypes and derivatives as in
    `spmm`. Raises TypeError or ValueError naming the argument that does not fit.
    """
    checks.check_operands(
        "a", a, ("a_values", a_values, (a.col.numel(),)), ("b_values", b_values, (b.col.numel(),))
    )
    checks.check_product(a, b, c)
    _ = b.transposed  # some rows are made of dot products
    a_values, b_values, batch = flatten(a_values, 1, b_values, 1)
    return unflatten(_ops["spgemm"]((a, b, c), a_values, b_values), batch)
