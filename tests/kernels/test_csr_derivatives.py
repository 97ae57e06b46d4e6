"""Derivatives of the public products: every order, every mode, by value."""

import pytest
import torch
from csr_cases import densify, layout_of, sample
from scipy import sparse
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch_kernels import (
    Layout,
    sddmm,
    spgemm,
    spgemm_structure,
    spmm,
    spmv,
    transpose_structure,
)
from sparsetorch_kernels.csr import backend

torch.manual_seed(0)
A = layout_of(sparse.random_array((7, 5), density=0.4, rng=1), torch.int64)
B = layout_of(sparse.random_array((5, 6), density=0.5, rng=2), torch.int64)
_crow, _col = spgemm_structure(A, B)
C = Layout(_crow, _col, None, *transpose_structure(_crow, _col, 6), 7, 6)
MASK = layout_of(sparse.random_array((7, 6), density=0.3, rng=3), torch.int64)
NA, NB = A.col.numel(), B.col.numel()

# name: (product, the same on dense matrices, shapes of the two arguments)
PRODUCTS = {
    "spmm": (
        lambda v, x: spmm(A, v, x),
        lambda v, x: densify(A, v) @ x,
        ((NA,), (5, 3)),
    ),
    "spmm transposed, x batched": (
        lambda v, x: spmm(A.T, v, x),
        lambda v, x: densify(A, v).mT @ x,
        ((NA,), (2, 7, 2)),
    ),
    "spmv": (
        lambda v, x: spmv(A, v, x),
        lambda v, x: densify(A, v) @ x,
        ((NA,), (5,)),
    ),
    "spmv transposed, both batched": (
        lambda v, x: spmv(A.T, v, x),
        lambda v, x: (densify(A, v).mT @ x.unsqueeze(-1)).squeeze(-1),
        ((2, 1, NA), (2, 7)),
    ),
    "sddmm": (
        lambda u, v: sddmm(A, u, v),
        lambda u, v: sample(A, u @ v.mT),
        ((7, 3), (5, 3)),
    ),
    "sddmm transposed, u batched": (
        lambda u, v: sddmm(A.T, u, v),
        lambda u, v: sample(A.T, u @ v.mT),
        ((2, 5, 2), (7, 2)),
    ),
    "spgemm": (
        lambda a, b: spgemm(A, a, B, b, C),
        lambda a, b: sample(C, densify(A, a) @ densify(B, b)),
        ((NA,), (NB,)),
    ),
    "spgemm transposed, masked, b batched": (
        lambda a, b: spgemm(B.T, b, A.T, a, MASK.T),
        lambda a, b: sample(MASK, densify(A, a) @ densify(B, b)),
        ((NA,), (2, NB)),
    ),
}
each_product = pytest.mark.parametrize(
    ("product", "dense", "shapes"), PRODUCTS.values(), ids=PRODUCTS.keys()
)


def draw(shapes, requires_grad: bool = False, dtype: torch.dtype = torch.float64):
    return [torch.randn(*s, dtype=dtype, requires_grad=requires_grad) for s in shapes]


@each_product
def test_gradients_of_first_and_second_order(product, dense, shapes):
    arguments = draw(shapes, requires_grad=True)
    gradcheck(
        product,
        arguments,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    gradgradcheck(product, arguments)


@each_product
def test_complex_gradients(product, dense, shapes):
    """PyTorch's convention: the gradient is the conjugate of the derivative."""
    arguments = draw(shapes, requires_grad=True, dtype=torch.complex128)
    gradcheck(product, arguments, check_forward_ad=True, check_batched_grad=True)
    gradgradcheck(product, arguments)
    got = torch.autograd.grad(product(*arguments).abs().sum(), arguments)
    want = torch.autograd.grad(dense(*arguments).abs().sum(), arguments)
    torch.testing.assert_close(got, want)


@each_product
def test_forward_mode_by_value(product, dense, shapes):
    """A custom op alone would return a zero tangent here, silently."""
    primals, tangents = tuple(draw(shapes)), tuple(draw(shapes))
    got = torch.func.jvp(product, primals, tangents)
    torch.testing.assert_close(got, torch.func.jvp(dense, primals, tangents))


@each_product
def test_hessian_by_value(product, dense, shapes):
    """Forward over reverse; zero, silently, if a backward used anything but Functions."""

    def loss(function):
        return lambda p, q: function(p, q).pow(3).sum()

    arguments = draw(shapes)
    got = torch.func.hessian(loss(product), argnums=(0, 1))(*arguments)
    want = torch.func.hessian(loss(dense), argnums=(0, 1))(*arguments)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(got[i][j], want[i][j])
            assert got[i][j].abs().max() > 0


@each_product
def test_jacobians_by_value(product, dense, shapes):
    arguments = draw(shapes)
    want = torch.func.jacrev(dense, argnums=(0, 1))(*arguments)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(jacobian(product, argnums=(0, 1))(*arguments), want)


@each_product
@pytest.mark.parametrize("in_dims", [(0, None), (None, 1), (1, 0)])
def test_vmap_over_each_argument(product, dense, shapes, in_dims):
    arguments = [
        t if dim is None else torch.stack([t, 2 * t, t - 1], dim)
        for t, dim in zip(draw(shapes), in_dims)
    ]
    got = torch.vmap(product, in_dims)(*arguments)
    torch.testing.assert_close(got, torch.vmap(dense, in_dims)(*arguments))


@each_product
def test_vmap_of_grad(product, dense, shapes):
    p, q = draw(shapes)
    many = torch.stack([p, 2 * p, p - 1])
    got, want = (
        torch.vmap(torch.func.grad(lambda p, q, f=f: f(p, q).sin().sum(), (0, 1)), (0, None))
        for f in (product, dense)
    )
    torch.testing.assert_close(got(many, q), want(many, q))


def test_vmap_over_a_pattern_is_refused():
    crows = torch.stack([A.crow, A.crow])
    x = torch.ones(5, 2)
    with pytest.raises(ValueError, match="pattern cannot be mapped over"):
        torch.vmap(lambda crow: spmm(A._replace(crow=crow), torch.ones(NA), x))(crows)


def test_only_the_wanted_gradients_are_computed(monkeypatch):
    calls = []

    def watched(name):
        original = getattr(backend.reference, name)
        return lambda *arguments: calls.append(name) or original(*arguments)

    monkeypatch.setattr(backend, "_cpu_ops", lambda: None)  # the reference is easier to watch
    for name in ("spmm", "sddmm"):
        monkeypatch.setattr(backend.reference, name, watched(name))
    values, x = torch.randn(NA), torch.randn(5, 2, requires_grad=True)
    spmm(A, values, x).sum().backward()
    assert calls == ["spmm", "spmm"]  # no sddmm for values that need no gradient
    calls.clear()
    spmm(A, values.requires_grad_(), x.detach()).sum().backward()
    assert calls == ["spmm", "sddmm"]


def test_only_what_the_backward_reads_is_kept():
    kept = []
    values, x = torch.randn(NA), torch.randn(5, 2, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        spmm(A, values, x)
    assert kept == [(1, NA)]  # not x, which is often an activation that nothing else needs


def test_gradients_of_products_without_entries():
    empty = layout_of(sparse.csr_array((3, 4)))
    values, x = torch.zeros(0, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    y = spmm(empty, values, x)
    torch.testing.assert_close(y, torch.zeros(3, 2))
    dvalues, dx = torch.autograd.grad(y.sum(), (values, x))
    assert dvalues.shape == (0,)
    torch.testing.assert_close(dx, torch.zeros(4, 2))
