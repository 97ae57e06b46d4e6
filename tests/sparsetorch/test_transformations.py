"""CSRTensors inside torch functions, torch.func, vmap and torch.compile."""

from typing import Any

import pytest
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import dense, random_csr
from torch.utils import _pytree as pytree

from sparsetorch import CSRTensor, spmm


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
