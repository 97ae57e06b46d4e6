"""Every unfit argument is refused by name, before any memory is read."""

import pytest
import torch
from csr_cases import layout_of
from scipy import sparse

from sparsetorch_kernels import (
    forward_layout,
    sddmm,
    spgemm,
    spgemm_at_once,
    spgemm_structure,
    spmm,
    spmv,
)

A = layout_of(sparse.random_array((5, 4), density=0.5, rng=0))
V, X = torch.ones(A.col.numel()), torch.ones(4, 3)
FORWARD = forward_layout(A.crow, A.col, A.n_rows, A.n_cols)
SQUARE = layout_of(sparse.eye_array(4))
LONG = layout_of(sparse.random_array((4, 5), density=0.5, rng=0), torch.int64)
N = A.col.numel()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spmm(A, V[1:], X), ValueError, rf"values has shape \({N - 1},\); .*{N}\)"),
        (lambda: spmm(A, V, X[1:]), ValueError, r"x has shape \(3, 3\); expected \(..., 4, k\)"),
        (lambda: spmm(A, V, X[:, 0]), ValueError, r"x has shape \(4,\); expected \(..., 4, k\)"),
        (lambda: spmv(A, V, X), ValueError, r"x has shape \(4, 3\); expected \(..., 4\)"),
        (
            lambda: spmm(A, V.short(), X),
            TypeError,
            "values is torch.int16; expected one of torch.float16, ",
        ),
        (lambda: spmm(A, V.long(), X), TypeError, "values is torch.int64"),
        (lambda: spmm(A, V, X.double()), TypeError, "x is torch.float64 and values torch.float32"),
        (lambda: spmm(A, V, X.to("meta")), ValueError, "x is on meta; layout is on cpu"),
        (lambda: spmm(A, V.repeat(2, 1), X.repeat(3, 1, 1)), ValueError, r"\(2,\) and \(3,\)"),
        (lambda: sddmm(A, torch.ones(5, 2), X), ValueError, "v has 3 columns and u 2"),
        (lambda: sddmm(A, X, X), ValueError, r"u has shape \(4, 3\); expected \(..., 5, k\)"),
        (
            lambda: spmm(A._replace(crow=A.crow[1:]), V, X),
            ValueError,
            r"layout.crow has shape \(5,\); expected \(6,\)",
        ),
        (
            lambda: spmm(A._replace(t_perm=A.t_col[1:]), V, X),
            ValueError,
            rf"layout.t_perm has shape \({N - 1},\); expected \({N},\)",
        ),
        (lambda: spmm(A._replace(t_col=None), V, X), TypeError, "layout.t_col is None"),
        (
            lambda: spmm(A._replace(t_col=A.transposed[1].long()), V, X),
            TypeError,
            "layout.t_col is torch.int64; expected torch.int32",
        ),
        (
            lambda: spmm(A._replace(crow=A.crow.long()), V, X),
            TypeError,
            "layout.t_crow is torch.int32; expected torch.int64",
        ),
        (
            lambda: spmm(LONG._replace(crow=LONG.crow.int()), V, X),
            TypeError,
            "layout.crow is torch.int32; layout.col is torch.int64",
        ),
        (lambda: spmm(A._replace(col=A.col.short()), V, X), TypeError, "layout.col is torch.int16"),
        (lambda: spmm(A._replace(col=A.col[None]), V, X), ValueError, "expected one dimension"),
        (lambda: FORWARD.T, ValueError, "the layout has no transpose"),
        (lambda: spgemm(A.T, V, FORWARD, V, SQUARE), ValueError, "the layout has no transpose"),
        (lambda: spgemm(A, V, A, V, A), ValueError, "a has 4 columns and b 5 rows"),
        (
            lambda: spgemm(A, V, A.T, V, A),
            ValueError,
            r"c has shape \(5, 4\); the product has \(5, 5\)",
        ),
        (lambda: spgemm_structure(A, A), ValueError, "a has 4 columns and b 5 rows"),
        (lambda: spgemm_at_once(A, V, A, V), ValueError, "a has 4 columns and b 5 rows"),
        (
            lambda: spgemm_at_once(A, V.int(), A.T, V),
            TypeError,
            "a_values is torch.int32; expected",
        ),
        (lambda: spgemm_at_once(A, V, A.T, V[:1]), ValueError, r"b_values has shape \(1,\); expec"),
        (
            lambda: spgemm_structure(A, LONG),
            TypeError,
            "b has torch.int64 indices; a has torch.int32",
        ),
    ],
)
def test_unfit_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
