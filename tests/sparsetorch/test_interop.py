"""To and from the matrices of other libraries: the same entries, the same gradients."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_matrices import dense, random_csr

from sparsetorch import CSRTensor

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_from_torch(layout, dtype):
    x = torch.randn(6, 4, dtype=dtype) * (torch.rand(6, 4) < 0.5)
    A = CSRTensor.from_torch(x.to_sparse(layout=layout))
    assert A.dtype == dtype
    assert A.pattern.dtype == torch.int32
    assert torch.equal(A.to_dense(), x)


def test_coo_duplicates_are_summed_and_the_gradient_reaches_the_values():
    indices = torch.tensor([[0, 2, 0], [1, 0, 1]])
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    A = CSRTensor.from_torch(torch.sparse_coo_tensor(indices, values, (3, 2)))
    assert A.to_dense().tolist() == [[0, 4], [0, 0], [2, 0]]
    (A.values * torch.tensor([10.0, 1.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [10, 1, 10]


def test_to_scipy_of_what_pytorch_has_conjugated_or_negated_lazily():
    A = random_csr(5, 4, dtype=torch.complex128).detach()
    assert A.H.values.is_conj()
    np.testing.assert_array_equal(A.H.to_scipy().toarray(), dense(A).mH.resolve_conj().numpy())
    imaginary = A.conj().map(torch.imag)
    assert imaginary.values.is_neg()
    np.testing.assert_array_equal(imaginary.to_scipy().toarray(), (-dense(A).imag).numpy())


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo], ids=str)
def test_to_torch_shares_the_values_and_their_graph(layout):
    A = random_csr(5, 4)
    out = A.to_torch(layout)
    assert out.layout == layout
    assert torch.equal(out.detach().to_dense(), dense(A).detach())
    out.to_dense().sum().backward()
    assert A.values.grad is not None
    assert (A.values.grad == 1).all()


def test_a_batch_to_torch():
    A = random_csr(5, 4, batch=(2,)).detach()
    assert torch.equal(A.to_torch().to_dense(), dense(A))
    with pytest.raises(ValueError, match="expected one matrix for the COO layout"):
        A.to_torch(torch.sparse_coo)
    with pytest.raises(ValueError, match=r"layout: expected torch\.sparse_csr"):
        A.to_torch(torch.sparse_bsr)


def test_what_is_not_a_torch_sparse_matrix():
    with pytest.raises(TypeError, match=r"expected layout torch\.sparse_csr"):
        CSRTensor.from_torch(torch.ones(3, 3))
    with pytest.raises(TypeError, match="got list"):
        CSRTensor.from_torch([[1.0]])  # type: ignore
    with pytest.raises(ValueError, match="expected one matrix of numbers"):
        CSRTensor.from_torch(torch.ones(3, 3, 2).to_sparse(2))


def test_edge_index_passes_messages_from_source_to_target():
    edge_index = torch.tensor([[0, 0, 2, 0], [1, 2, 1, 1]])
    weight = torch.tensor([1.0, 2.0, 3.0, 10.0], requires_grad=True)
    A = CSRTensor.from_edge_index(edge_index, weight)
    x = torch.tensor([1.0, 20.0, 300.0])
    assert (A @ x).tolist() == [0, 911, 2]  # node 1 receives 11 x_0 + 3 x_2
    back, values = CSRTensor.from_edge_index(edge_index).to_edge_index()
    assert back.tolist() == [[0, 2, 0], [1, 1, 2]]
    assert values.tolist() == [2, 1, 1]
    assert CSRTensor.from_edge_index(edge_index, n_nodes=5).shape == (5, 5)
    assert CSRTensor.from_edge_index(edge_index, n_nodes=(3, 4)).shape == (4, 3)
    assert CSRTensor.from_edge_index(torch.empty(2, 0, dtype=torch.int64)).shape == (0, 0)
    with pytest.raises(ValueError, match=r"edge_index: expected shape \(2, n_edges\)"):
        CSRTensor.from_edge_index(edge_index.T)
    with pytest.raises(ValueError, match="col: expected indices from 0 to 1"):
        CSRTensor.from_edge_index(edge_index, n_nodes=(2, 3))


def test_a_sparse_tensor_of_torch_sparse():
    # Stands in for torch_sparse.SparseTensor, which has no build for this PyTorch.
    crow, col = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1])
    for values in (torch.tensor([1.0, 2.0, 3.0]), None):
        tensor = SimpleNamespace(csr=lambda v=values: (crow, col, v), sparse_sizes=lambda: (2, 3))
        A = CSRTensor.from_sparse_tensor(tensor)
        expected = [[1, 0, 2], [0, 3, 0]] if values is not None else [[1, 0, 1], [0, 1, 0]]
        assert A.to_dense().tolist() == expected
    with pytest.raises(TypeError, match=r"expected a torch_sparse\.SparseTensor"):
        CSRTensor.from_sparse_tensor(crow)


def test_networkx_round_trip():
    networkx = pytest.importorskip("networkx", reason="needs sparsetorch[graph]")
    graph = networkx.DiGraph()
    graph.add_nodes_from("abc")
    graph.add_weighted_edges_from([("a", "b", 2.0), ("c", "a", -1.0)])
    graph.add_edge("b", "c")
    A = CSRTensor.from_networkx(graph, dtype=torch.float64)
    assert A.to_dense().tolist() == [[0, 2, 0], [0, 0, 1], [-1, 0, 0]]
    back = A.to_networkx()
    assert back[2][0]["weight"] == -1
    np.testing.assert_array_equal(networkx.to_numpy_array(back), A.to_dense())
    with pytest.raises(ValueError, match="expected a square matrix"):
        random_csr(2, 3).to_networkx()


def test_complex_weights_of_networkx():
    networkx = pytest.importorskip("networkx", reason="needs sparsetorch[graph]")
    for weight in (1 + 2j, np.complex128(1 + 2j)):
        graph = networkx.DiGraph()
        graph.add_edge(0, 1, weight=weight)
        A = CSRTensor.from_networkx(graph, dtype=torch.complex64)
        assert A.to_dense().tolist() == [[0, 1 + 2j], [0, 0]]
        with pytest.raises(TypeError, match=r"^weight: .* do not fit torch.float32: .*complex64"):
            CSRTensor.from_networkx(graph)


def test_what_is_no_graph_or_no_weight_of_networkx():
    networkx = pytest.importorskip("networkx", reason="needs sparsetorch[graph]")
    graph = networkx.DiGraph()
    graph.add_edge(0, 1, cost="high")
    with pytest.raises(TypeError, match=r"^weight: the values of 'cost' do not fit torch.float32"):
        CSRTensor.from_networkx(graph, weight="cost")
    with pytest.raises(TypeError, match=r"^graph: expected a NetworkX graph, got Tensor"):
        CSRTensor.from_networkx(torch.eye(2))


def test_without_networkx_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsetorch\[graph\]'"):
        CSRTensor.from_networkx(None)


def test_cupy_matrices_share_memory():
    # CuPy needs a GPU: a SciPy matrix has the same attributes, and NumPy arrays speak DLPack too.
    A = random_csr(5, 4)
    other = A.to_scipy()
    B = CSRTensor.from_cupy(other)
    assert torch.equal(B.to_dense(), dense(A).detach())
    other.data[0] = 7.0
    assert B.values[0] == 7.0
    with pytest.raises(TypeError, match=r"expected a cupyx\.scipy\.sparse matrix"):
        CSRTensor.from_cupy(np.eye(3))


def test_without_cupy_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="pip install cupy"):
        random_csr(3, 3).to_cupy()
