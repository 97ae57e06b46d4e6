"""Complex products made of real ones, which is how the Triton kernels compute them."""

import pytest
import torch
from csr_cases import LARGE, SMALL, layout_of, relative_error
from scipy import sparse

from sparsetorch_kernels.csr import backend
from sparsetorch_kernels.csr import complex as by_parts


@pytest.fixture(params=[False, True], ids=["apart", "summed over the batch"])
def reduce(request):
    return request.param


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128)


@pytest.mark.parametrize("name", SMALL | LARGE)
def test_products_by_parts(name, reduce):
    a = layout_of((SMALL | LARGE)[name])
    b = layout_of(sparse.random_array((a.n_cols, 35), density=0.1, rng=1))
    c = layout_of(sparse.random_array((a.n_rows, 35), density=0.1, rng=2))
    values, x, u = draw(2, a.col.numel()), draw(1, a.n_cols, 3), draw(2, a.n_rows, 3)
    for product, layouts, p, q in (
        ("spmm", (a,), values, x),
        ("spmm", (a.T,), values.conj(), u),
        ("sddmm", (a,), u, x.conj()),
        ("spgemm", (a, b, c), values, draw(1, b.col.numel())),
    ):
        whole = getattr(backend, product)
        got = getattr(by_parts, product)(whole, layouts, p, q, reduce)
        assert relative_error(got, whole(layouts, p, q, reduce)) < 1e-14, product
