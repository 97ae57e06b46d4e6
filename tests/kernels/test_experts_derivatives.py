"""Derivatives of any order, compiled code and refusals of the experts' products."""

import pytest
import torch
from csr_cases import relative_error
from expert_cases import CASES, NAMES, experts
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from sparsetorch_kernels import few_tokens_mlp, grouped_mlp, routed_mlp, squared_relu
from sparsetorch_kernels.moe import reference

SMALL = CASES["usual"]._replace(tokens=4, experts=3, k=2, width=3, inner=4, idle=1)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def test_first_and_second_derivatives_are_those_of_differences():
    case = experts(SMALL).to(torch.float64)

    def routed(*leaves):
        return routed_mlp(case.layout, *leaves)

    assert gradcheck(routed, case.leaves)
    assert gradgradcheck(routed, case.leaves)

    def grouped(x, up, down):
        return grouped_mlp(x, case.layout.crow, up, down)

    rows = case.x.detach().index_select(0, case.layout.col).requires_grad_()
    assert gradgradcheck(grouped, (rows, case.up, case.down))


def test_torch_func_gives_the_same_gradient():
    case = experts(SMALL).to(torch.float64)

    def loss(x):
        return routed_mlp(case.layout, case.gate, x, case.up, case.down).sum()

    want = torch.autograd.grad(loss(case.x), case.x)[0]
    assert relative_error(torch.func.grad(loss)(case.x), want) <= 1e-14


def test_compiled_code_gives_the_same_result_and_gradients():
    case = experts(SMALL).to(torch.float64)

    def loss(gate, x, up, down):
        return routed_mlp(case.layout, gate, torch.sin(x), up, down).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got, want = compiled(*case.leaves), loss(*case.leaves)
    assert torch.equal(got, want)
    for name, a, b in zip(
        NAMES, torch.autograd.grad(got, case.leaves), torch.autograd.grad(want, case.leaves)
    ):
        assert torch.equal(a, b), name


def test_the_custom_op_is_registered_as_pytorch_wants_it():
    case = experts(SMALL).to(torch.float64)
    layout = case.layout
    for gate, routes in (
        (case.gate, (layout.col, layout.t_crow, layout.t_perm)),
        (None, [None] * 3),
    ):
        x = case.x if gate is not None else case.x.detach().index_select(0, layout.col)
        arguments = (x, gate, layout.crow, case.up, case.down, *routes)
        opcheck(torch.ops.sparsetorch.experts.default, arguments)


def test_products_under_autocast_keep_the_dtype_of_their_operands():
    case = experts(CASES["usual"]).to(torch.float32)

    def run():
        y = routed_mlp(case.layout, *case.leaves)
        return y, *torch.autograd.grad(y.square().sum(), case.leaves)

    want = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
    for a, b in zip(got, want):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0,), (1,), (7, 5)])
def test_squared_relu_is_the_reference_s(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    g = torch.randn(shape, generator=generator).to(dtype)
    got, want = squared_relu(x), reference.squared_relu(x)
    assert torch.equal(got, want)
    slope, same = (torch.autograd.grad(y, x, g)[0] for y in (got, want))
    assert relative_error(slope, same) <= {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(
        dtype, 1e-15 if dtype == torch.float64 else 1e-6
    )


def test_squared_relu_has_every_derivative():
    x = torch.tensor([-1.5, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    away = x.detach()[[0, 2, 3]].requires_grad_()
    assert gradcheck(squared_relu, away, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(squared_relu, away, check_fwd_over_rev=True)
    curvature = torch.func.hessian(lambda t: squared_relu(t).sum())(x).diagonal()
    assert curvature.tolist() == [0, 0, 2, 2]
    compiled = torch.compile(squared_relu, backend="aot_eager", fullgraph=True)
    assert torch.autograd.grad(compiled(x).sum(), x)[0].tolist() == [0, 0, 1, 6]


def test_squared_relu_keeps_its_result_only():
    x, kept = torch.randn(5, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        y = squared_relu(x)
    assert [t.data_ptr() for t in kept] == [y.data_ptr()]


def test_nan_stays_nan():
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    squared_relu(x).sum().backward()
    assert squared_relu(x).isnan().tolist() == [True, False]
    assert x.grad is not None
    assert x.grad.isnan().tolist() == [True, False]


def wrong(**changes):
    case = experts(SMALL).to(torch.float32)
    return case._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, r"x is torch.int64"),
        ({"x": torch.zeros(4, 3, 1)}, ValueError, r"x has shape \(4, 3, 1\)"),
        ({"up": torch.zeros(3, 4, 3).double()}, TypeError, "up is torch.float64 and x"),
        ({"up": torch.zeros(3, 4, 5)}, ValueError, r"up has shape .* width, 3\)"),
        ({"down": torch.zeros(3, 4, 3)}, ValueError, r"down has shape .* expected \(3, 3, 4\)"),
        ({"up": torch.zeros(3, 4, 3, device="meta")}, ValueError, "up is on meta"),
        ({"gate": torch.zeros(7)}, ValueError, r"gate has shape \(7,\); expected \(8,\)"),
        (
            {"gate": torch.zeros(8).half()},
            TypeError,
            "gate is torch.float16; expected torch.float32",
        ),
        ({"x": torch.zeros(5, 3)}, ValueError, r"layout has shape \(3, 4\); expected \(3, 5\)"),
        ({"layout": experts(SMALL).layout.T}, ValueError, "layout: expected that of a matrix"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, error, message):
    with pytest.raises(error, match=message):
        routed_mlp(*wrong(**changes))


@pytest.mark.parametrize(
    ("ptr", "error"),
    [
        (torch.tensor([0, 2, 4]), ValueError),
        (torch.tensor([0, 3, 2, 4]), ValueError),
        (torch.tensor([0, 1, 2, 5]), ValueError),
        (torch.tensor([1, 1, 2, 4]), ValueError),
        (torch.tensor([0.0, 1, 2, 4]), TypeError),
    ],
)
def test_bounds_that_do_not_rise_to_the_rows_are_refused(ptr, error):
    case = experts(SMALL).to(torch.float32)
    with pytest.raises(error, match="ptr"):
        grouped_mlp(case.x, ptr, case.up, case.down)


@pytest.mark.parametrize(
    ("expert", "error", "message"),
    [
        (torch.tensor([[0, 3]] * 4), ValueError, "expert: expected 0 to 2, got 0 to 3"),
        (torch.tensor([[-1, 1]] * 4), ValueError, "expert: expected 0 to 2"),
        (torch.tensor([[0, 1]] * 3), ValueError, r"expert has shape \(3, 2\)"),
        (torch.tensor([[0.0, 1]] * 4), TypeError, "expert is torch.float32"),
    ],
)
def test_experts_that_do_not_exist_are_refused(expert, error, message):
    case = experts(SMALL).to(torch.float32)
    with pytest.raises(error, match=message):
        few_tokens_mlp(expert, torch.ones(4, 2), case.x, case.up, case.down)


def test_squared_relu_refuses_integers():
    with pytest.raises(TypeError, match=r"x: expected .* got torch.int64"):
        squared_relu(torch.arange(3))
