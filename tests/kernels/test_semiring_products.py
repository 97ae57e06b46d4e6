"""Extrema and log-sum-exps of messages: values and derivatives against dense arithmetic."""

import pytest
import torch
from csr_cases import LARGE, MIXED, SMALL, densify, layout_of, relative_error
from scipy import sparse
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sparsetorch_kernels import Layout, _native, spmm_extremum, spmm_logsumexp
from sparsetorch_kernels.semiring import backend

F32, F64, I32, I64 = torch.float32, torch.float64, torch.int32, torch.int64
MATRICES = SMALL | {name: LARGE[name] for name in ("63", "huge row")}
A = layout_of(sparse.random_array((7, 5), density=0.4, rng=1), I64)
NNZ = A.col.numel()
KINDS = [(kind, add) for kind in ("min", "max", "logsumexp") for add in (False, True)]
each_kind = pytest.mark.parametrize(("kind", "add"), KINDS)


def product(kind: str, add: bool, layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    if kind == "logsumexp":
        return spmm_logsumexp(layout, values, x, add=add)
    return spmm_extremum(layout, values, x, largest=kind == "max", add=add)


def dense(kind: str, add: bool, layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """The same from all n x m x k messages; `amax` shares its gradient among equals too."""
    a, x = densify(layout, values).unsqueeze(-1), x.unsqueeze(-3)
    messages = a + x if add else a * x
    stored = densify(layout, torch.ones_like(values)).unsqueeze(-1) != 0
    none = ~stored.any(-2)
    pad = torch.nn.functional.pad  # by a column that is not stored, so that there is always one
    messages, stored = pad(messages, (0, 0, 0, 1)), pad(stored, (0, 0, 0, 1))
    if kind == "logsumexp":
        out = torch.logsumexp(torch.where(stored, messages, -1e30), -2)
        return torch.where(none, float("-inf"), out)
    worst = float("-inf") if kind == "max" else float("inf")
    out = getattr(torch.where(stored, messages, worst), f"a{kind}")(-2)
    return torch.where(none, 0.0, out)


def draw(shape, dtype=F64, whole=False) -> Tensor:
    """Random numbers; whole ones, of which many messages are equal, are exact in every dtype."""
    numbers = torch.randint(-2, 3, shape).to(dtype) if whole else torch.randn(shape, dtype=dtype)
    return numbers.requires_grad_()


@pytest.fixture(autouse=True)
def _poison():
    """Fill uninitialized memory with NaN."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # thousands of tiny products: threads would only wait for each other
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(backend, "_cpu_ops", lambda: None)
    elif _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")


def check(kind, add, a: Layout, values: Tensor, x: Tensor, tolerance: float) -> None:
    got = product(kind, add, a, values, x)
    exact = [t.detach().double().requires_grad_() for t in (values, x)]
    want = dense(kind, add, a, *exact)
    assert got.dtype == x.dtype
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    cotangent = torch.randn_like(got)
    got_grads = torch.autograd.grad(got, (values, x), cotangent)
    want_grads = torch.autograd.grad(want, exact, cotangent.double(), materialize_grads=True)
    for name, got_grad, want_grad in zip(("values", "x"), got_grads, want_grads):
        assert relative_error(got_grad, want_grad) < tolerance, f"gradient of {name}"


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize(("dtype", "index"), [(F32, I32), (F64, I64), (F64, MIXED)], ids=str)
@each_kind
def test_values_and_gradients(implementation, kind, add, dtype, index, name):
    layout = layout_of(MATRICES[name], index)
    for a in (layout, layout.T):
        for k, whole in ((1, False), (3, True), (17, False)):
            values = draw((a.col.numel(),), dtype, whole)
            x = draw((a.n_cols, k), dtype, whole)
            check(kind, add, a, values, x, 1e-5 if dtype == F32 else 1e-12)


@each_kind
def test_every_number_of_columns(implementation, kind, add):
    for k in [*range(40), 63, 64, 65]:
        check(kind, add, A, draw((NNZ,)), draw((A.n_cols, k)), 1e-12)


@pytest.mark.parametrize(
    ("v_batch", "x_batch"), [((2, 1), (3,)), ((), (3,)), ((3,), ()), ((2,), (2,)), ((0,), ())]
)
@each_kind
def test_batches_broadcast(implementation, kind, add, v_batch, x_batch):
    for a in (A, A.T):
        check(kind, add, a, draw((*v_batch, NNZ)), draw((*x_batch, a.n_cols, 3)), 1e-12)


@pytest.fixture(scope="module")
def long_rows() -> Layout:
    """Rows longer than any piece of work given to a thread, among short and empty ones."""
    matrix = sparse.random_array((50, 40_000), density=1e-5, rng=0).tolil()
    matrix[0] = matrix[30] = 1.0
    return layout_of(matrix)


@each_kind
def test_long_rows_do_not_depend_on_the_number_of_threads(long_rows, kind, add):
    a = long_rows
    results, before = [], torch.get_num_threads()
    # Whole numbers: the extremum of a long row is reached in many of its parts.
    values, x = draw((2, a.col.numel()), whole=True), draw((a.n_cols, 3), whole=True)
    G = torch.randn(2, a.n_rows, 3, dtype=F64)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = product(kind, add, a, values, x)
            results.append((y, *torch.autograd.grad(y, (values, x), G)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(first, second) for first, second in zip(results[0], other))
    check(kind, add, a, values, x, 1e-12)


def test_an_extremum_of_zero_has_its_whole_gradient(implementation):
    """torch's scatter_reduce counts its own start among those that share."""
    a = layout_of(sparse.csr_array([[1.0, 1.0, 1.0]]))
    values, x = torch.ones(3), torch.tensor([[-1.0], [0.0], [-2.0]], requires_grad=True)
    spmm_extremum(a, values, x, largest=True, add=False).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 1, 0]


@each_kind
def test_nan_wins_in_its_row_and_nowhere_else(implementation, kind, add):
    a = layout_of(sparse.csr_array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    for position in range(5):
        values, x = draw((5,)).detach(), draw((3, 9)).detach()
        values[position] = float("nan")
        values.requires_grad_()
        y = product(kind, add, a, values, x)
        row = [0, 0, 1, 1, 2][position]
        assert y[row].isnan().all()
        y = y.isnan().all(-1)
        assert y.tolist() == [i == row for i in range(3)]
        (grad,) = torch.autograd.grad(product(kind, add, a, values, x).sum(), values)
        assert grad.isnan().tolist() == [r == row for r in (0, 0, 1, 1, 2)]


@pytest.mark.parametrize("add", [False, True])
def test_infinite_messages(implementation, add):
    inf = float("inf")
    a = layout_of(sparse.csr_array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    values = torch.ones(4, dtype=F64)
    x = torch.tensor([[-inf, inf, 800.0], [1.0, 1.0, -800.0]], dtype=F64)
    shift = 1.0 if add else 0.0
    x -= shift
    expected = torch.tensor([[1.0, inf, 800.0], [-inf, inf, 800.0], [1.0, 1.0, -800.0]], dtype=F64)
    torch.testing.assert_close(spmm_logsumexp(a, values, x, add=add), expected)
    torch.testing.assert_close(spmm_extremum(a, values, x, largest=True, add=add), expected)
    # A place that is never reached, as in shortest paths, takes no part in the gradient.
    x.requires_grad_()
    y = spmm_extremum(a, values, x, largest=True, add=add)[0, 0]
    assert torch.autograd.grad(y, x)[0].tolist() == [[0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [F32, F64])
def test_exponentials_are_exact_to_the_last_bits(dtype):
    """A row of two messages, 0 and -t, is log(1 + exp(-t)), whose gradient holds exp alone."""
    a = layout_of(sparse.csr_array([[1.0, 1.0]]))
    t = torch.cat([torch.linspace(0, 40, 4001, dtype=F64), torch.logspace(-12, 0, 1000)])
    x = torch.stack([torch.zeros_like(t), -t]).to(dtype).requires_grad_()
    y = spmm_logsumexp(a, torch.ones(2, dtype=dtype), x, add=False)
    eps = torch.finfo(dtype).eps
    exact = x.detach()[1].double()
    assert (y[0] - exact.exp().log1p()).abs().max() < 2 * eps
    (grad,) = torch.autograd.grad(y.sum(), x)
    error = grad[1] - exact.sigmoid()
    # The weight exp(m - y) takes over the rounding of m and y.
    assert (error / exact.sigmoid()).abs().div(1 + exact.abs()).max() < 4 * eps


@each_kind
def test_derivatives_of_first_and_second_order(implementation, kind, add):
    for a, v_batch, x_batch in ((A, (), ()), (A.T, (2,), ()), (A, (2, 1), (2,))):
        arguments = draw((*v_batch, NNZ)), draw((*x_batch, a.n_cols, 2))

        def function(values, x, a=a):
            y = product(kind, add, a, values, x)
            return torch.where(y.isinf(), 0.0, y)  # rows without entries

        gradcheck(function, arguments, check_forward_ad=True, check_batched_grad=True)
        gradgradcheck(function, arguments, check_fwd_over_rev=True)


def finite(y: Tensor) -> Tensor:
    return torch.where(y.isinf(), 0.0, y)


@each_kind
def test_forward_mode_hessians_and_maps_by_value(implementation, kind, add):
    """Against the dense form, with ties: PyTorch's failures here are silent zeros."""

    def got(values, x):
        return finite(product(kind, add, A, values, x))

    def want(values, x):
        return finite(dense(kind, add, A, values, x))

    for whole in (False, True):
        values, x = draw((NNZ,), whole=whole).detach(), draw((5, 3), whole=whole).detach()
        tangents = torch.randn_like(values), torch.randn_like(x)
        torch.testing.assert_close(
            torch.func.jvp(got, (values, x), tangents), torch.func.jvp(want, (values, x), tangents)
        )
        hessians = [
            torch.func.hessian(lambda v, x, f=f: f(v, x).pow(3).sum(), argnums=(0, 1))(values, x)
            for f in (got, want)
        ]
        torch.testing.assert_close(*hessians)
        assert all(block.abs().max() > 0 for row in hessians[0] for block in row)
        torch.testing.assert_close(
            torch.func.jacfwd(got, (0, 1))(values, x), torch.func.jacrev(want, (0, 1))(values, x)
        )
        many = torch.stack([values, 2 * values, values - 1], 1)
        for dims, arguments in (((1, None), (many, x)), ((None, 2), (values, x.unsqueeze(-1)))):
            maps = [torch.vmap(f, dims)(*arguments) for f in (got, want)]
            torch.testing.assert_close(*maps)
        grads = [
            torch.vmap(torch.func.grad(lambda v, x, f=f: f(v, x).sin().sum(), (0, 1)), (1, None))
            for f in (got, want)
        ]
        torch.testing.assert_close(*(g(many, x) for g in grads))


def test_a_pattern_cannot_be_mapped_over():
    with pytest.raises(ValueError, match="pattern cannot be mapped over"):
        torch.vmap(
            lambda c: spmm_logsumexp(
                A._replace(crow=c), torch.ones(NNZ), torch.ones(5, 2), add=True
            )
        )(torch.stack([A.crow, A.crow]))


@each_kind
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_products_equal_eager_ones(kind, add, dynamic):
    def loss(layout, values, x):
        return finite(product(kind, add, layout, values, x)).sin().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    arguments = draw((2, NNZ)), draw((5, 3))
    got, want = compiled(A, *arguments), loss(A, *arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )


def test_forward_mode_is_refused_in_compiled_code():
    def tangent(x):
        return torch.func.jvp(lambda x: spmm_logsumexp(A, torch.ones(NNZ), x, add=True), (x,), (x,))

    torch.compiler.reset()
    with pytest.raises(Exception, match="forward-mode derivatives do not compile"):
        torch.compile(tangent, backend="eager", fullgraph=True)(torch.ones(5, 2))


@pytest.mark.parametrize(("dtype", "index"), [(F32, I32), (F64, I64)])
def test_registrations(dtype, index):
    ops = torch.ops.sparsetorch
    for matrix in (sparse.random_array((7, 5), density=0.4, rng=1), sparse.csr_array((7, 5))):
        a = layout_of(matrix, index)
        values, x = draw((1, a.col.numel()), dtype), draw((2, 5, 3), dtype)
        y = spmm_logsumexp(a, values[0], x, add=False).detach().nan_to_num(0, 0, 0)
        torch.library.opcheck(ops.semiring_extremum.default, (*a, True, False, values, x))
        torch.library.opcheck(ops.semiring_logsumexp.default, (*a, True, values, x))
        p, q, r = draw((2, a.col.numel()), dtype), draw((1, 5, 3), dtype), draw((2, 7, 3), dtype)
        for slot, given in enumerate(((q, r), (p, r), (p, q))):
            for soft in (False, True):
                arguments = (*a, slot, soft, False, values, x, y, *given)
                torch.library.opcheck(ops.semiring_contract.default, arguments)


class _Sizes(TorchDispatchMode):
    """The largest result of any operator."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.numel())
        return out


@each_kind
def test_no_message_is_stored(kind, add):
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")
    n, k = 60, 8
    a = layout_of(sparse.random_array((n, n), density=0.5, rng=0))
    values, x = draw((a.col.numel(),)), draw((n, k))
    with _Sizes() as sizes:
        y = product(kind, add, a, values, x)
        torch.autograd.grad(y.sum(), (values, x))
    assert sizes.largest == max(a.col.numel(), n * k)


def test_bad_operands():
    values, x = torch.ones(NNZ), torch.ones(5, 2)
    with pytest.raises(TypeError, match=r"values is torch\.complex64; expected"):
        spmm_logsumexp(A, values.to(torch.complex64), x.to(torch.complex64), add=False)
    with pytest.raises(ValueError, match="x has shape"):
        spmm_extremum(A, values, torch.ones(4, 2), largest=True, add=False)
    with pytest.raises(TypeError, match="they must agree"):
        spmm_extremum(A, values, x.double(), largest=True, add=False)
    if _native.ops() is not None:
        native, short = torch.ops.sparsetorch_native, torch.ones(1, 4, 2)
        with pytest.raises(RuntimeError, match="does not fit"):
            native.extremum(A.crow, A.col, None, values[None], short, 5, True, False)
        with pytest.raises(RuntimeError, match="does not fit"):
            native.contract_entries(
                A.crow, A.col, None, values[None], x[None], short, x[None], short, 5, True, False
            )
        with pytest.raises(RuntimeError, match="broadcast"):
            native.log_sum_exp(
                A.crow, A.col, None, values.expand(2, -1), x.expand(3, -1, -1), 5, True
            )
