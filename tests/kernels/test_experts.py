"""Every implementation of the experts' products: result and each gradient against the reference.

Run once per implementation: loops and grouped products here, Triton in a process that interprets
it (`test_experts_triton.py` starts this file again with TRITON_INTERPRET=1). Memory that PyTorch
hands out uninitialized is filled with NaN, so what a kernel forgets to write shows.
"""

import os

import pytest
import torch
from csr_cases import relative_error
from expert_cases import CASES, NAMES, Experts, experts
from torch import Tensor

from sparsetorch_kernels import few_tokens_mlp, grouped_mlp, routed_mlp
from sparsetorch_kernels.moe import backend, cpu, grouped, products, reference
from sparsetorch_kernels.moe.routes import Routes

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
IMPLEMENTATIONS = ("triton",) if INTERPRETED else ("loop", "grouped")
F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
RUNS = [(name, dtype) for name in CASES for dtype in (F64, F32, BF16, F16)]
if INTERPRETED:  # which takes a second for what the others do in a millisecond
    RUNS = [(name, F64) for name in ("idle experts", "no token", "wide", "long groups")]
    RUNS += [("usual", BF16)]
# What half precision may lose where PyTorch's own arithmetic happens to be exact. Triton's
# interpreter cuts bfloat16 off where a GPU rounds it.
ROUNDING = {BF16: 2**-6 if INTERPRETED else 2**-8, F16: 2**-11}


@pytest.fixture(autouse=True)
def _poisoned_memory():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
    """Have the ops run one implementation, whatever the device."""
    module = cpu if request.param == "loop" else grouped
    monkeypatch.setattr(backend, "_module", lambda *sizes: module)
    if request.param == "triton":
        from sparsetorch_kernels.moe import triton

        monkeypatch.setattr(products, "_triton", lambda t: triton)
    return request.param


def grouped_arguments(case: Experts) -> tuple[Tensor, ...]:
    """Rows by expert, as leaves, for `grouped_mlp`."""
    rows = case.x.detach().index_select(0, case.layout.col).requires_grad_()
    return rows, case.up, case.down


def results(function, case: Experts, seed: int = 1) -> list[Tensor]:
    """The result and each gradient; `function` is one of the products or of their references."""
    is_grouped = function in (grouped_mlp, reference.grouped_mlp)
    if is_grouped:
        rows, up, down = leaves = grouped_arguments(case)
        y = function(rows, case.layout.crow, up, down)
    else:
        leaves = case.leaves
        y = function(case.layout, *leaves)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    return [y.detach(), *torch.autograd.grad(y, leaves, direction.bfloat16().to(y.dtype))]


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_matrices_of_groups_without_rows_are_cleared_and_no_others(implementation, dtype):
    ptr = torch.tensor([0, 0, 3, 3, 4, 4])
    given = torch.full((5, 37, 61), torch.nan, dtype=dtype)
    given[[1, 3]] = torch.randn(2, 37, 61, generator=torch.Generator().manual_seed(0)).to(dtype)
    want = given.clone()
    want[[0, 2, 4]] = 0
    torch.testing.assert_close(products.clear_(given.clone(), ptr), want, rtol=0, atol=0)
    padded = torch.full((5, 37, 64), 7.0, dtype=dtype)  # as torch makes room for whole 16 bytes
    padded[..., :61] = given
    torch.testing.assert_close(products.clear_(padded[..., :61], ptr), want, rtol=0, atol=0)
    assert (padded[..., 61:] == 7).all()
    assert products.clear_(torch.empty(0, 3, 4), ptr[:1]).shape == (0, 3, 4)


PAIRS = [(grouped_mlp, reference.grouped_mlp), (routed_mlp, reference.routed_mlp)]


@pytest.mark.parametrize(("name", "dtype"), RUNS, ids=str)
@pytest.mark.parametrize(("product", "specification"), PAIRS, ids=["grouped", "routed"])
def test_result_and_every_gradient_are_the_reference_s(
    implementation, product, specification, name, dtype
):
    case = experts(CASES[name], torch.int64 if dtype == F64 else torch.int32)
    got = results(product, case.to(dtype))
    exact = results(specification, case.to(F64))
    same = results(specification, case.to(dtype))
    for what, a, want, plain in zip(("y", *NAMES[-len(got) + 1 :]), got, exact, same, strict=True):
        assert a.dtype == plain.dtype
        tolerance = {F64: 1e-12, F32: 1e-5}.get(dtype)
        if tolerance is None:
            tolerance = 2 * relative_error(plain, want) + ROUNDING[dtype]
        assert relative_error(a, want) <= tolerance, what


@pytest.mark.parametrize(("product", "specification"), PAIRS, ids=["grouped", "routed"])
def test_gradients_nobody_asks_for_change_no_others(implementation, product, specification):
    case = experts(CASES["one of each" if INTERPRETED else "usual"]).to(F64)
    wanted = results(product, case)[1:]
    leaves = case.leaves if product is routed_mlp else grouped_arguments(case)
    for i, want in enumerate(wanted):
        alone = [leaf.detach().requires_grad_(k == i) for k, leaf in enumerate(leaves)]
        if product is routed_mlp:
            y = product(case.layout, *alone)
        else:
            y = product(alone[0], case.layout.crow, *alone[1:])
        direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        y.backward(direction.bfloat16().to(y.dtype))
        assert [leaf.grad is not None for leaf in alone] == [k == i for k in range(len(alone))]
        assert relative_error(alone[i].grad, want) <= 1e-14  # pyright: ignore


@pytest.mark.parametrize(("product", "specification"), PAIRS, ids=["grouped", "routed"])
def test_results_are_the_same_where_nobody_differentiates(implementation, product, specification):
    case = experts(CASES["idle experts"]).to(F64)
    with torch.no_grad():
        if product is routed_mlp:
            got, want = (f(case.layout, *case.leaves) for f in (product, specification))
        else:
            rows, up, down = grouped_arguments(case)
            got, want = (f(rows, case.layout.crow, up, down) for f in (product, specification))
    assert relative_error(got, want) <= 1e-14


def test_a_broadcast_gradient_is_taken(implementation):
    case = experts(CASES["usual"]).to(F32)
    routed_mlp(case.layout, *case.leaves).sum().backward()  # its gradient has strides of 0
    grads = [leaf.grad for leaf in case.leaves]
    y = reference.routed_mlp(case.layout, *case.leaves)
    for name, got, want in zip(NAMES, grads, torch.autograd.grad(y.sum(), case.leaves)):
        assert got is not None
        assert relative_error(got, want) <= 1e-5, name


def test_only_the_squared_relu_is_kept(implementation):
    case = experts(CASES["usual"]).to(F32)
    given = [t for t in (*case.leaves, *case.layout) if isinstance(t, Tensor)]
    inputs = {t.untyped_storage().data_ptr() for t in given}
    kept = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.shape
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        routed_mlp(case.layout, *case.leaves)
    own = [shape for place, shape in kept.items() if place not in inputs]
    sizes = CASES["usual"]
    assert own == [(sizes.tokens * sizes.k, sizes.inner)]


@pytest.mark.parametrize("name", CASES)
def test_few_tokens_give_what_many_do(name):
    case = experts(CASES[name]).to(F64)
    sizes = CASES[name]
    assert case.layout.t_col is not None
    expert = case.layout.t_col.view(-1, sizes.k)
    assert case.layout.t_perm is not None
    gate = case.gate[case.layout.t_perm.long()].view(-1, sizes.k)
    got = few_tokens_mlp(expert, gate, case.x, case.up, case.down)
    assert relative_error(got, reference.routed_mlp(case.layout, *case.leaves)) <= 1e-14
    assert not got.requires_grad


if INTERPRETED:

    def test_sums_over_a_token_s_experts_take_rows_of_another_dtype_than_gates():
        from sparsetorch_kernels.csr import triton as csr

        case = experts(CASES["usual"]).to(BF16)
        layout = case.layout
        assert layout.t_crow is not None
        assert layout.t_perm is not None
        routes = Routes(layout.col, case.gate.detach(), layout.t_crow, layout.t_perm)
        rows = torch.randn(len(case.gate), 16).bfloat16()
        got = csr.spmm(routes.by_token, routes.gate[None], rows[None])[0]
        zeros = torch.zeros(CASES["usual"].tokens, 16)
        want = zeros.index_add(0, layout.col, routes.gate[:, None] * rows)
        assert got.dtype == F32
        assert relative_error(got, want) <= 1e-6
