"""CSRTensors inside torch functions, torch.func, vmap and torch.compile."""

from typing import Any

import pytest
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import dense, random_csr, random_square
from torch.utils import _pytree as pytree

from sparsetorch import CSRTensor, linalg, precond, random, spmm

MASS = random_square(8, 3, symmetric=True).detach()


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def test_torch_functions():
    A: Any = random_csr(4, 3)
    B: Any = random_csr(4, 3, seed=5)
    x, X = torch.randn(3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    D = dense(A)
    for got, expected in [
        (torch.matmul(A, X), D @ X),
        (torch.mm(A, X), D @ X),
        (torch.mv(A, x), D @ x),
        (torch.matmul(x, A.T), x @ D.T),
        (torch.add(A, B).to_dense(), D + dense(B)),
        (torch.sub(A, B).to_dense(), D - dense(B)),
        (torch.mul(A, 2.0).to_dense(), 2 * D),
        (torch.div(A, 2.0).to_dense(), D / 2),
        (torch.neg(A).to_dense(), -D),
        (torch.t(A).to_dense(), D.T),
        (torch.transpose(A, 0, 1).to_dense(), D.T),
    ]:
        torch.testing.assert_close(got, expected)


def test_is_a_pytree_of_its_values():
    A = random_csr(4, 3)
    leaves, structure = pytree.tree_flatten(A)
    assert leaves[0] is A.values
    restored = pytree.tree_unflatten(leaves, structure)
    assert isinstance(restored, CSRTensor)
    assert restored.pattern is A.pattern
    doubled = pytree.tree_map(lambda v: 2 * v, {"A": A})["A"]
    assert torch.equal(doubled.values, 2 * A.values)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_vmap_over_values(operation):
    inputs = random_inputs(4, 3, 4, 0.5, seed=2)
    matrices = (inputs.A, inputs.B, inputs.C)
    stacked = [M.with_values(torch.stack([M.values, M.values**2])) for M in matrices]

    def function(A, B, C):
        return values_of(operation.sparse(inputs._replace(A=A, B=B, C=C)))

    mapped = torch.vmap(function)(*stacked)
    for i in range(2):
        single = [M.with_values(M.values[i]) for M in stacked]
        torch.testing.assert_close(mapped[i], function(*single))


def test_functional_gradients_are_sparse_matrices():
    A, x = random_csr(4, 3).detach(), torch.randn(3, dtype=torch.float64)

    def energy(A):
        return ((A @ x) ** 3).sum()

    gradient = torch.func.grad(energy)(A)
    D = A.to_dense().requires_grad_()
    (expected,) = torch.autograd.grad(((D @ x) ** 3).sum(), D)
    assert isinstance(gradient, CSRTensor)
    torch.testing.assert_close(gradient.values, A.from_dense(expected, A.pattern).values)

    tangent = A.with_values(torch.randn_like(A.values))
    _, derivative, *_ = torch.func.jvp(energy, (A,), (tangent,))
    torch.testing.assert_close(derivative, (gradient.values * tangent.values).sum())

    batch = A.with_values(torch.stack([A.values, 2 * A.values]))
    per_sample = torch.vmap(torch.func.grad(energy))(batch)
    torch.testing.assert_close(per_sample.values[0], gradient.values)


def test_hessian_is_not_silently_zero():
    A, x = random_csr(4, 3).detach(), torch.randn(3, dtype=torch.float64)

    def energy(values):
        return ((A.with_values(values) @ x) ** 3).sum()

    forward_over_reverse = torch.func.hessian(energy)(A.values)
    reverse_over_reverse = torch.autograd.functional.hessian(energy, A.values)
    assert forward_over_reverse.abs().max() > 0
    torch.testing.assert_close(forward_over_reverse, reverse_over_reverse)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_forward_mode_within_forward_mode(operation):
    """PyTorch switches forward mode off while a custom rule runs: without a remedy, 0 or wrong."""
    inputs = random_inputs(4, 3, 4, 0.5, seed=2)
    tensors = tuple(t.detach() for t in inputs.tensors())
    directions = tuple(torch.linspace(-1, 1, t.numel()).to(t).reshape(t.shape) for t in tensors)

    def function(t):
        moved = (tensor + t * d for tensor, d in zip(tensors, directions))
        result = values_of(operation.sparse(inputs.with_tensors(*moved)))
        return result.nan_to_num(0, 0, 0).sin().sum()  # logsumexp of an empty row is -inf

    def slope(t):
        return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t) if first.requires_grad else (0 * first,)
    torch.testing.assert_close(torch.func.jacfwd(slope)(t.detach()), second)
    torch.testing.assert_close(torch.func.grad(slope)(t.detach()), second)


# Operators between two CSRTensors or with a tensor that dynamo cannot trace have a method instead.
COMPILED = {
    "matvec": lambda i: torch.mv(i.A, i.x),
    "matmat": lambda i: torch.matmul(i.A, i.X),
    "rmatmul": lambda i: torch.matmul(i.Y, i.A),
    "transpose": lambda i: i.A.T.matmul(i.d),
    "product": lambda i: i.A.matmul(i.C).values,
    "galerkin": lambda i: i.A.T.matmul(i.B.matmul(i.C)).values,
    "sum": lambda i: (i.A - 2 * i.B + i.A).values,
    "scaling": lambda i: (i.s * i.A).scale_rows(i.d).scale_cols(i.x).values,
    "maxima": lambda i: spmm(i.A, i.X, "max"),
    "log-sum-exps": lambda i: spmm(i.A, i.X, "logsumexp", "add").exp(),
    "diagonal": lambda i: i.A.diagonal(),
    "to dense": lambda i: (-i.A).to_dense(),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_as_one_graph(name):
    function = COMPILED[name]
    inputs = random_inputs(4, 3, 4, 0.5, seed=2)
    expected = function(inputs)  # also finds the structures that compiled code reads
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(inputs)
    torch.testing.assert_close(compiled, expected)
    weights = torch.randn_like(expected)
    for got, want in zip(
        torch.autograd.grad(compiled, inputs.A.values, weights),
        torch.autograd.grad(expected, inputs.A.values, weights),
    ):
        torch.testing.assert_close(got, want)


def test_one_graph_serves_many_patterns():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda A, x: A.matmul(x), fullgraph=True, backend=backend)
    for n in range(3, 9):
        A, x = random_csr(n, n + 2, seed=n), torch.randn(n + 2, dtype=torch.float64)
        torch.testing.assert_close(compiled(A, x), dense(A) @ x)
    assert len(graphs) <= 2  # the first sizes, then symbolic ones


def test_compiled_code_refuses_what_it_would_get_wrong():
    # PyTorch hands `A @ x` over as `x @ A`: without the error, a square A would give A^T x.
    A, x = random_csr(4, 4), torch.ones(4, dtype=torch.float64)
    with pytest.raises(Exception, match="ambiguous in compiled code"):
        torch.compile(lambda A, x: A @ x, fullgraph=True, backend="eager")(A, x)
    with_breaks = torch.compile(lambda A, x: A @ (2 * x), backend="eager")
    torch.testing.assert_close(with_breaks(A, x), dense(A) @ (2 * x))


def test_compiled_code_says_what_structure_it_lacks():
    A, B = random_csr(4, 4), random_csr(4, 4, seed=7)
    with pytest.raises(Exception, match="call the function once before compiling it"):
        torch.compile(lambda A, B: A.matmul(B).values, fullgraph=True, backend="eager")(A, B)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_structure_may_be_found_inside_a_transform(operation):
    """Patterns outlive the transform in which they are first needed."""

    def gradients_of_a_sum(gradient):
        inputs = random_inputs(5, 4, 3, 0.5, seed=6)  # new patterns, which know nothing yet
        tensors = tuple(t.detach() for t in inputs.tensors())

        def function(*tensors):
            result = values_of(operation.sparse(inputs.with_tensors(*tensors)))
            return result.nan_to_num(0, 0, 0).sum()  # logsumexp of an empty row is -inf

        return *gradient(function, tensors), *gradient(function, tensors)

    def transformed(function, tensors):
        return torch.func.grad(function, argnums=tuple(range(len(tensors))))(*tensors)

    def recorded(function, tensors):
        tensors = [t.requires_grad_() for t in tensors]
        return torch.autograd.grad(
            function(*tensors), tensors, allow_unused=True, materialize_grads=True
        )

    for got, wanted in zip(gradients_of_a_sum(transformed), gradients_of_a_sum(recorded)):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_structure_may_be_found_in_inference_mode(operation):
    """As a validation step before the first training step does."""
    inputs = random_inputs(5, 4, 3, 0.5, seed=6)  # new patterns, which know nothing yet
    with torch.inference_mode():
        operation.sparse(inputs)
    result = values_of(operation.sparse(inputs)).nan_to_num(0, 0, 0)
    gradients = torch.autograd.grad(
        result.sum(), inputs.tensors(), allow_unused=True, materialize_grads=True
    )
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_results_may_be_changed_in_place(operation):
    inputs = random_inputs(4, 3, 4, 0.5, seed=2)
    result = values_of(operation.sparse(inputs))
    expected = result.detach() + 1
    result.add_(1)  # raises where a custom function returned a view
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    "select",
    [
        lambda A: A.prune(0.5),
        lambda A: A.topk_per_row(1),
        lambda A: CSRTensor.from_dense(A.to_dense()),
        lambda A: A * random(4, 3, 0.5, generator=torch.Generator().manual_seed(0)).to(A.dtype),
    ],
)
def test_patterns_that_follow_from_values_may_be_found_inside_a_transform(select):
    A, x = random_csr(4, 3).detach(), torch.randn(4, dtype=torch.float64)

    def energy(values):
        return ((select(A.with_values(values)).T @ x) ** 2).sum()

    values = A.values.clone().requires_grad_()
    (expected,) = torch.autograd.grad(energy(values), values)
    torch.testing.assert_close(torch.func.grad(energy)(A.values), expected)
    tangent = torch.func.jvp(energy, (A.values,), (torch.ones_like(A.values),))[1]
    torch.testing.assert_close(tangent, expected.sum())


@pytest.mark.parametrize("select", [lambda A: A.prune(0.5), lambda A: A.topk_per_row(1)])
@pytest.mark.parametrize("dim", [0, 1])
def test_under_vmap_such_a_pattern_serves_the_whole_batch(select, dim):
    A, x = random_csr(4, 3).detach(), torch.randn(3, dtype=torch.float64)
    batch = A.with_values(torch.stack([A.values, A.values.flip(0), 0.1 * A.values]))
    mapped = torch.vmap(lambda v: select(A.with_values(v)) @ x, dim)
    torch.testing.assert_close(mapped(batch.values.movedim(0, dim)), select(batch).matvec(x[None]))


@pytest.mark.parametrize(
    "function",
    [
        linalg.logdet,
        linalg.det,
        lambda A: linalg.selected_inverse(A).values,
        lambda A: linalg.eigsh(A, 2)[0],
        lambda A: linalg.eigsh(A, 1)[1] ** 2,
        lambda A: linalg.eigsh(A, 2, M=MASS)[0],
        lambda A: linalg.svds(A, 2)[1],
        lambda A: precond.ilu0(A)(torch.ones(8, dtype=A.dtype)),
        lambda A: precond.ic0(A)(torch.ones(8, dtype=A.dtype)),
    ],
)
def test_forward_mode_within_forward_mode_of_linear_algebra(function):
    A = random_square(8, 1, symmetric=True).detach()

    def energy(t):
        return function(A.with_values(A.values + t * A.values.cos())).sin().sum()

    def slope(t):
        return torch.func.jvp(energy, (t,), (torch.ones_like(t),))[1]

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(energy(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    nested = torch.func.jvp(slope, (t.detach(),), (torch.ones_like(t),))[1]
    torch.testing.assert_close(nested, second, rtol=1e-6, atol=1e-8)
