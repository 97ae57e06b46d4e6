"""The custom ops: torch.compile with a full graph, and PyTorch's own checks of a registration."""

import pytest
import torch
from csr_cases import layout_of
from scipy import sparse
from torch.autograd import forward_ad

from sparsetorch_kernels import sddmm, spgemm, spmm, spmv

MATRIX = sparse.random_array((9, 9), density=0.3, rng=1)
A = layout_of(MATRIX)
NNZ = A.col.numel()


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


PRODUCTS = {
    "spmm": (lambda a, v, x: spmm(a, v, x), (NNZ,), (2, 9, 3)),
    "spmv": (lambda a, v, x: spmv(a.T, v, x), (2, NNZ), (9,)),
    "sddmm": (lambda a, u, v: sddmm(a, u, v), (2, 9, 3), (9, 3)),
    "spgemm": (lambda a, u, v: spgemm(a, u, a.T, v, a), (NNZ,), (2, NNZ)),
}


@pytest.mark.parametrize(("product", "p", "q"), PRODUCTS.values(), ids=PRODUCTS.keys())
@pytest.mark.parametrize(
    ("dynamic", "dtype"),
    [
        (False, torch.float64),
        (True, torch.float64),
        (False, torch.bfloat16),
        (False, torch.complex128),
    ],
    ids=str,
)
def test_compiled_products_equal_eager_ones(product, p, q, dynamic, dtype):
    def loss(layout, p, q):
        return product(layout, p, q).sin().abs().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    arguments = draw(*p, dtype=dtype), draw(*q, dtype=dtype)
    got, want = compiled(A, *arguments), loss(A, *arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )


def test_a_training_step_compiles_with_the_default_backend():
    def step(layout, values, x, w):
        return spmm(layout, values, torch.tanh(spmm(layout, values, x) @ w)).square().mean()

    torch.compiler.reset()
    arguments = draw(NNZ), draw(9, 3), draw(3, 3)
    got, want = torch.compile(step, fullgraph=True)(A, *arguments), step(A, *arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )


@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_registrations(reduce, dtype, index):
    ops = torch.ops.sparsetorch
    for matrix in (MATRIX, sparse.csr_array((9, 9))):
        a = layout_of(matrix, index)
        nnz = a.col.numel()
        u, v = draw(1, 9, 3, dtype=dtype), draw(2, 9, 3, dtype=dtype)
        one, two = draw(1, nnz, dtype=dtype), draw(2, nnz, dtype=dtype)
        for op, arguments in (
            (ops.spmm, (*a.T, one, v)),
            (ops.sddmm, (*a.T, u, v)),
            (ops.spgemm, (*a, *a.T, *a, two, one)),
        ):
            torch.library.opcheck(op.default, (*arguments, reduce))


def test_custom_ops_map_without_a_loop():
    values, x = torch.randn(3, 1, NNZ), torch.randn(2, 9, 4)
    got = torch.vmap(lambda v: torch.ops.sparsetorch.spmm(*A, v, x, False))(values)
    torch.testing.assert_close(got, spmm(A, values, x))


@pytest.mark.parametrize("compiled_before", [False, True])
def test_forward_mode_is_right_or_refused_but_never_silently_zero(compiled_before):
    """A custom op's tangent is zero: compiled code has to notice that somebody wants one."""
    a, values, x = A, torch.rand(NNZ), torch.rand(9)
    compiled = torch.compile(lambda x: spmv(a, values, x), backend="eager")
    if compiled_before:
        compiled(x)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x)))
        torch.testing.assert_close(out.tangent, out.primal)
    inside = torch.compile(lambda x: torch.func.jvp(compiled, (x,), (x,)), backend="eager")
    torch.testing.assert_close(*inside(x))
    torch._dynamo.reset()
    whole = torch.compile(
        lambda x: torch.func.jvp(lambda x: spmv(a, values, x), (x,), (x,)),
        backend="eager",
        fullgraph=True,
    )
    with pytest.raises(Exception, match="forward-mode derivatives do not compile"):
        whole(x)
