"""What PyTorch calls cuSPARSE for, on the CPU, where it calls MKL."""

from types import SimpleNamespace

import pytest
import torch
from csr_cases import LARGE, SMALL, layout_of, relative_error
from scipy import sparse
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsetorch_kernels import cusparse
from sparsetorch_kernels.csr import backend
from sparsetorch_kernels.csr import reference as products
from sparsetorch_kernels.layout import Layout, forward_layout
from sparsetorch_kernels.triangular import reference as triangles

pytestmark = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="no MKL: calls of cuSPARSE are NOT tested"
)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.complex128: 1e-12}
BATCHES = [(1, 1), (1, 3), (3, 1), (3, 3)]


def draw(*shape, dtype):
    return torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["1x1", "empty rows", "63", "huge row"])
def test_products(name, dtype, index):
    layout = layout_of((SMALL | LARGE)[name], index)
    for a in (layout, layout.T):
        for many, columns in BATCHES:
            values = draw(many, a.col.numel(), dtype=dtype)
            x = draw(columns, 2, a.n_cols, dtype=dtype).mT  # not contiguous
            want = products.spmm(a, values, x)
            assert relative_error(cusparse.spmm(a, values, x), want) <= TOLERANCE[dtype]


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_substitution(dtype, unit):
    matrix = sparse.csr_array(sparse.tril(sparse.random_array((40, 40), density=0.1, rng=3), -1))
    if not unit:
        matrix = sparse.csr_array(matrix + sparse.diags_array([2.0] * 40))
    lower = layout_of(matrix)
    levels = layout_of(sparse.eye_array(40))  # as if each unknown had to wait for all before it
    for triangle, is_lower in ((lower, True), (lower.T, False)):
        for many, columns in BATCHES:
            values = draw(many, triangle.col.numel(), dtype=dtype)
            values = torch.where(values.abs() < 0.1, 0.1, values)
            values = values / 4 if unit else values
            b = draw(columns, 40, 2, dtype=dtype)
            want = triangles.solve_triangular(triangle, levels, values, b, is_lower, unit)
            got = cusparse.solve_triangular(triangle, values, b, is_lower, unit)
            assert relative_error(got, want) <= 100 * TOLERANCE[dtype]


def test_which_matrices_have_long_rows():
    assert not cusparse.has_long_rows(layout_of(SMALL["no rows"]))
    assert not cusparse.has_long_rows(layout_of(LARGE["stencil"]))
    star = layout_of(sparse.csr_array(torch.eye(2000).index_fill(0, torch.tensor([7]), 1).numpy()))
    assert cusparse.has_long_rows(star)
    assert cusparse.has_long_rows(star)  # as it is remembered
    values, x = (
        draw(1, star.col.numel(), dtype=torch.float32),
        draw(1, 2000, 1, dtype=torch.float32),
    )
    assert cusparse.serves(star, values, x)
    assert not cusparse.serves(star, values, x[..., :0])
    torch.use_deterministic_algorithms(True)
    try:
        assert not cusparse.serves(star, values, x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not cusparse.has_long_rows(layout_of(torch.ones(400, 400).numpy()))


def test_nobody_is_warned_of_what_they_did_not_ask_for(recwarn):
    a = layout_of(LARGE["63"])
    cusparse.spmm(
        a, draw(1, a.col.numel(), dtype=torch.float64), draw(1, 63, 1, dtype=torch.float64)
    )
    assert not [w for w in recwarn if "beta" in str(w.message)]


def test_rows_that_are_known_to_be_short_are_not_looked_at(monkeypatch):
    """A GPU would have to be waited for, which graphs of decoding steps cannot."""
    kernels = SimpleNamespace(spmm=lambda a, values, x: x.new_empty(1, a.n_rows, x.shape[2]))
    looked: list[Layout] = []
    monkeypatch.setattr(backend, "_triton", lambda: kernels)
    monkeypatch.setattr(cusparse, "has_long_rows", lambda layout: bool(looked.append(layout)))
    with FakeTensorMode(), torch.device("cuda"):
        crow, col = (torch.zeros(n, dtype=torch.int64) for n in (4, 6))
        layout = forward_layout(crow, col, 3, 5)
        for short in (True, False):
            found = backend.spmm((layout,), torch.ones(1, 6), torch.ones(1, 5, 2), short_rows=short)
            assert found.shape == (1, 3, 2)
            assert len(looked) == (not short)
