"""Graphs with several kinds of edges, against one dense matrix of blocks and the paper's sums."""

import copy
import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from random_matrices import dense, random_csr
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils import _pytree as pytree

from sparsetorch import CSRTensor, TypedCSR
from sparsetorch.nn import RGCNConv, rgcn_normalize
from sparsetorch.typed import EdgeType

SIZES = {"user": 5, "item": 4, "shop": 1, "lone": 2}
BUYS, LIKES, SELLS, KNOWS, BOUGHT = EDGE_TYPES = [
    ("user", "buys", "item"),
    ("user", "likes", "item"),
    ("shop", "sells", "item"),
    ("user", "knows", "user"),
    ("item", "bought by", "user"),
]


def graph(density: float = 0.4, batch: tuple[int, ...] = ()) -> TypedCSR:
    matrices = {
        edge_type: random_csr(
            SIZES[edge_type[2]], SIZES[edge_type[0]], density, seed=seed, batch=batch
        )
        for seed, edge_type in enumerate(EDGE_TYPES)
    }
    return TypedCSR(matrices, SIZES)


def features(width: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        t: torch.randn(n, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for t, n in SIZES.items()
    }


def one_matrix(A: TypedCSR) -> Tensor:
    """The dense matrix of all nodes, type after type: parallel relations add up."""
    rows = [
        [
            sum(
                (dense(A[t]) for t in A.edge_types if (t[2], t[0]) == (target, source)),
                torch.zeros(n, m, dtype=torch.float64),
            )
            for source, m in SIZES.items()
        ]
        for target, n in SIZES.items()
    ]
    return torch.cat([torch.cat(row, 1) for row in rows])


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_products_are_those_of_one_matrix(density):
    A, x = graph(density), features()
    for typed, whole in ((A, one_matrix(A)), (A.T, one_matrix(A).T)):
        y = typed @ x
        expected = dict(zip(SIZES, (whole @ torch.cat(list(x.values()))).split([5, 4, 1, 2])))
        assert set(y) == {t[2] for t in typed.edge_types}
        for node_type in SIZES:
            if node_type in y:
                torch.testing.assert_close(y[node_type], expected[node_type])
            else:  # nothing enters it
                assert not expected[node_type].any()
    vectors = {t: features[:, 0] for t, features in x.items()}
    torch.testing.assert_close((A @ vectors)["item"], (A @ x)["item"][:, 0])


def test_transposes_are_adjoint():
    A, x, y = graph(), features(), features(seed=1)
    forth, back = A @ x, A.T @ y
    assert set(A.T.edge_types) == {(t, relation, s) for s, relation, t in EDGE_TYPES}
    torch.testing.assert_close(
        sum((forth[t] * y[t]).sum() for t in forth), sum((back[t] * x[t]).sum() for t in back)
    )
    assert A.T.T[BUYS].pattern is A[BUYS].pattern


def product(A: TypedCSR, *tensors: Tensor) -> Tensor:
    values, x = tensors[: len(A)], tensors[len(A) :]
    y = A.with_values(dict(zip(A.edge_types, values))) @ dict(zip(SIZES, x))
    return torch.cat([y["user"], y["item"]])


def test_derivatives_of_products():
    A = graph()
    tensors = (*(A[t].values for t in EDGE_TYPES), *features(2).values())
    assert gradcheck(lambda *t: product(A, *t), tensors, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(lambda *t: product(A, *t), tensors, fast_mode=True)


def test_batches_and_vmap():
    A, x = graph(batch=(2,)), features()
    for i in range(2):
        single = A.map_matrices(lambda M, i=i: M.with_values(M.values[i]))
        torch.testing.assert_close((A @ x)["item"][i], (single @ x)["item"])
    mapped = torch.vmap(lambda A: (A @ x)["user"])(A)
    torch.testing.assert_close(mapped, (A @ x)["user"])


def test_is_a_pytree_of_its_values():
    A = graph()
    leaves, form = pytree.tree_flatten(A)
    assert [leaf.data_ptr() for leaf in leaves] == [A[t].values.data_ptr() for t in EDGE_TYPES]
    assert pytree.tree_unflatten(leaves, form)[LIKES].pattern is A[LIKES].pattern
    x = features()
    slope = torch.func.grad(lambda A: (A @ x)["item"].square().sum())(A.detach())
    (expected,) = torch.autograd.grad((A @ x)["item"].square().sum(), A[SELLS].values)
    torch.testing.assert_close(slope[SELLS].values, expected)
    assert not slope[KNOWS].values.any()


def test_edges_of_a_heterogeneous_graph():
    edges = {
        BUYS: torch.tensor([[0, 4, 4, 2], [1, 0, 0, 3]]),
        KNOWS: torch.empty(2, 0, dtype=torch.int64),
    }
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    A = TypedCSR.from_edge_index_dict(edges, SIZES, {BUYS: weight})
    assert A[BUYS].shape == (4, 5)
    assert A[BUYS].to_dense()[0, 4] == 5  # parallel edges
    assert (A[KNOWS].shape, A[KNOWS].dtype) == ((5, 5), torch.float64)
    (slope,) = torch.autograd.grad((A[BUYS].values ** 2).sum(), weight)
    assert slope.tolist() == [2.0, 10.0, 10.0, 8.0]
    ones = TypedCSR.from_edge_index_dict({BUYS: edges[BUYS][:, 1:]}, SIZES)
    back, weights = ones.to_edge_index_dict()
    assert back[BUYS].tolist() == [[4, 2], [0, 3]]
    assert weights[BUYS].tolist() == [2.0, 1.0]
    assert ones.n_nodes == SIZES


def test_copies_dtypes_and_gradients():
    A = graph()
    for other in (copy.deepcopy(A.detach()), pickle.loads(pickle.dumps(A.detach()))):
        torch.testing.assert_close(one_matrix(other), one_matrix(A.detach()))
        assert other.n_nodes == SIZES
    assert A.to(torch.float32)[KNOWS].dtype == torch.float32
    assert not A.detach()[BUYS].requires_grad
    assert A.detach().requires_grad_()[BUYS].requires_grad
    assert (len(A), list(A), BUYS in A, ("a", "b", "c") in A) == (5, EDGE_TYPES, True, False)
    assert "('user', 'buys', 'item'): nnz=" in repr(A)


def test_bad_arguments_are_named():
    M = random_csr(4, 5)
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        ({"buys": M}, None, ValueError, r"expected keys \(source, relation, target\).*'buys'"),
        ({("a", 1, "b"): M}, None, ValueError, r"expected keys"),
        ({BUYS: torch.ones(4, 5)}, None, TypeError, r"expected a CSRTensor, got Tensor"),
        ({BUYS: M}, {"user": 6}, ValueError, r"expected 6 nodes of type 'user'"),
        ({BUYS: M, KNOWS: random_csr(4, 4)}, None, ValueError, r"expected 5 nodes of type 'user'"),
        ({BUYS: M, LIKES: M.to(torch.float32)}, None, TypeError, r"like the first relation"),
        (
            {BUYS: M, LIKES: CSRTensor(*on_meta(M))},
            None,
            ValueError,
            r"expected on cpu like the first relation, got meta",
        ),
    ]
    for matrices, n_nodes, error, message in cases:
        with pytest.raises(error, match=message):
            TypedCSR(matrices, n_nodes)
    A = graph()
    with pytest.raises(ValueError, match="x: expected features of type 'shop', the source of"):
        A.matmul({t: x for t, x in features().items() if t != "shop"})
    with pytest.raises(ValueError, match="X: expected size 5 in dimension -2"):
        A.matmul(features() | {"user": torch.ones(3, 2).double()})
    with pytest.raises(ValueError, match="values: expected those of"):
        A.with_values({BUYS: A[BUYS].values})
    edges: dict[EdgeType, Tensor] = {BUYS: torch.tensor([[0], [1]])}
    with pytest.raises(ValueError, match="n_nodes: expected the number of nodes of type 'item'"):
        TypedCSR.from_edge_index_dict(edges, {"user": 5})
    with pytest.raises(ValueError, match=r"edge_weight_dict: .*'likes'.* is not in edge_index"):
        TypedCSR.from_edge_index_dict(edges, SIZES, {LIKES: torch.ones(1)})


def on_meta(M: CSRTensor) -> tuple[Any, Tensor]:
    return M.pattern.to("meta"), M.values.detach().to("meta")


# Relational graph convolutions


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def neighbours(A: TypedCSR, edge_type: EdgeType, node: int) -> list[int]:
    return A[edge_type].to_dense()[node].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("n_bases", [None, 1, 3])
@pytest.mark.parametrize("width_out", [2, 4])
def test_the_layer_is_equation_2_of_its_paper(n_bases, width_out):
    """Node by node: W_0 h_i + sum over r, and over j in N_i^r, of W_r h_j / c_(i,r)."""
    A = graph().detach()
    A = A.map_matrices(lambda M: M.with_values(torch.ones_like(M.values)))
    x = features()
    torch.manual_seed(0)
    layer = RGCNConv(3, width_out, EDGE_TYPES, n_bases, dtype=torch.float64)
    assert layer.root is not None
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    W = layer.bases
    if n_bases:  # equation 3
        a = layer.coefficients
        assert a is not None
        W = torch.stack([sum_of(a[r, b] * W[b] for b in range(n_bases)) for r in range(5)])
    y = layer(rgcn_normalize(A), x)
    assert set(y) == set(SIZES)
    for node_type, size in SIZES.items():
        for i in range(size):
            h = layer.bias + layer.root @ x[node_type][i]
            for r, edge_type in enumerate(EDGE_TYPES):
                if edge_type[2] == node_type:
                    near = neighbours(A, edge_type, i)
                    for j in near:
                        h = h + W[r] @ x[edge_type[0]][j] / len(near)
            torch.testing.assert_close(y[node_type][i], h)


def test_derivatives_of_the_layer():
    A, x = graph(), features(2)
    A = A.map_matrices(lambda M: M.with_values(M.values.detach().abs().requires_grad_()))
    layer = RGCNConv(2, 2, EDGE_TYPES, n_bases=2, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    tensors = (*(A[t].values for t in EDGE_TYPES), *x.values(), *layer.parameters())

    def outputs(*tensors: Tensor) -> Tensor:
        values, features, parameters = tensors[:5], tensors[5:9], tensors[9:]
        M = rgcn_normalize(A.with_values(dict(zip(EDGE_TYPES, values))))
        arguments = (M, dict(zip(SIZES, features)))
        y = torch.func.functional_call(layer, dict(zip(names, parameters)), arguments)
        return torch.cat(list(y.values()))

    assert gradcheck(outputs, tensors, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(outputs, tensors, fast_mode=True)


def test_normalized_rows_are_means():
    A = rgcn_normalize(graph())
    for _, M in A.items():
        sums = M.sum(-1)
        empty = M.pattern.crow.diff() == 0
        torch.testing.assert_close(sums, (~empty).double())
    zero = CSRTensor.from_dense(torch.tensor([[1.0, -1.0], [2.0, 2.0]], requires_grad=True))
    means = rgcn_normalize(TypedCSR({("a", "b", "a"): zero}))[("a", "b", "a")]
    assert means.to_dense().tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_some_relations_and_no_root():
    A, x = graph(), features()
    some = TypedCSR({BUYS: A[BUYS], SELLS: A[SELLS]})
    layer = RGCNConv(3, 2, EDGE_TYPES, root=False, bias=False, dtype=torch.float64)
    y = layer(some, x)
    assert set(y) == {"item"}
    expected = dense(A[BUYS]) @ x["user"] @ layer.weights[0].T
    expected = expected + dense(A[SELLS]) @ x["shop"] @ layer.weights[2].T
    torch.testing.assert_close(y["item"], expected)
    with pytest.raises(ValueError, match="is not one of the layer's relations"):
        RGCNConv(3, 2, [BUYS], dtype=torch.float64)(A, x)
    with pytest.raises(ValueError, match="x: expected features of type 'user'"):
        layer(A, {"item": x["item"]})
    for edge_types in ([], [BUYS, BUYS]):
        with pytest.raises(ValueError, match="edge_types: expected different ones"):
            RGCNConv(3, 2, edge_types)
    with pytest.raises(ValueError, match="n_bases: expected at least 1 basis, got 0"):
        RGCNConv(3, 2, EDGE_TYPES, n_bases=0)
    shown = str(RGCNConv(3, 2, [BUYS], n_bases=2))
    assert shown == ("RGCNConv(3, 2, [('user', 'buys', 'item')], n_bases=2, root=True, bias=True)")


def test_compiles_as_one_graph():
    torch._dynamo.reset()
    A, x = graph(), features()
    layer = RGCNConv(3, 2, EDGE_TYPES, n_bases=2, dtype=torch.float64)

    def loss(A: TypedCSR, x: dict[str, Tensor]) -> Tensor:
        return layer(rgcn_normalize(A.map_matrices(lambda M: M.map(torch.exp))), x)["item"].sum()

    want = loss(A, x)
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(A, x)
    torch.testing.assert_close(got, want)
    inputs = (A[BUYS].values, x["shop"], layer.bases)
    torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs))
