"""A matrix made ready: what `set_up` holds, and what is made of it."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import laplacian, random_interface, random_matrix, small_setup

from ddm.coarse import partition_of_unity, smooth
from ddm.learned import InterfaceNet
from ddm.local import DenseBlocks, SparseBlocks
from ddm.partition import partition
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from sparsetorch import CSRTensor

A = laplacian(10)
OWNER = partition(A, 5)


@pytest.mark.parametrize("smoothing", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_holds_the_matrix_and_the_classical_prolongation(smoothing, dtype):
    setup = set_up(A, OWNER, smoothing=smoothing, dtype=dtype)
    matrix = CSRTensor.from_scipy(A)
    P = smooth(partition_of_unity(setup.decomposition), matrix, smoothing)
    assert setup.A.dtype == setup.P.dtype == dtype
    assert torch.equal(setup.A.values, matrix.values.to(dtype))
    assert torch.equal(setup.P.values, P.values.to(dtype))
    assert setup.inputs.graph.fine_nodes.dtype == torch.float32
    assert setup.inputs is setup.inputs


@pytest.mark.parametrize(
    ("local", "kind"), [("dense", DenseBlocks), ("sparse", SparseBlocks), ("auto", SparseBlocks)]
)
def test_lays_out_the_local_matrices_once(local, kind):
    setup = set_up(A, OWNER, local=local)
    assert isinstance(setup.local, kind)
    assert setup.classical(0.5).local is setup.local


def test_given_values_are_corrections_of_the_prolongation():
    setup = small_setup()
    interface, correction = random_interface(setup), 0.01 * random_matrix(setup.P.nnz, 1)[:, 0]
    method = setup.with_values(interface.float(), correction.float())
    P = setup.P.with_values(setup.P.values + correction.float())
    expected = Schwarz(setup.A, setup.decomposition, interface=interface.float().double(), P=P)
    r = random_matrix(setup.decomposition.n, 2)
    torch.testing.assert_close(method.apply(r), expected.apply(r))


def test_a_network_in_float32_serves_a_matrix_in_float64():
    setup = small_setup()
    method = setup.learned(InterfaceNet(width=8, layers=1))
    r = random_matrix(setup.decomposition.n, 1)
    torch.testing.assert_close(method.apply(r), setup.classical(0.5).apply(r), rtol=1e-6, atol=0)


def test_a_network_has_the_same_gradients_by_sparse_and_by_dense_local_solves():
    gradients = []
    for local in ("sparse", "dense"):
        torch.manual_seed(0)
        net = InterfaceNet(width=8, layers=1)
        setup = small_setup(local=local)
        r = random_matrix(setup.decomposition.n, 2)
        setup.learned(net).propagate(r).square().sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    assert any(bool(g.any()) for g in gradients[0])
    torch.testing.assert_close(*gradients)


def test_moving_to_where_it_is_does_nothing():
    setup = small_setup()
    assert setup.to("cpu") is setup


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_setup_on_a_gpu_gives_what_the_cpu_gives():
    setup = small_setup(20, 12)
    there = setup.to("cuda")
    net = InterfaceNet(width=8, layers=2)
    for head in (net.edge_head, net.pair_head):
        torch.nn.init.normal_(list(head.parameters())[-2], std=0.3)
    e = random_matrix(setup.decomposition.n, 3)
    expected = setup.learned(net).propagate(e)
    expected.square().sum().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    net = net.to("cuda")
    net.zero_grad()
    got = there.learned(net).propagate(e.to("cuda"))
    got.square().sum().backward()
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(net.parameters(), gradients):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.cpu(), gradient, rtol=1e-2, atol=1e-5)


def test_a_matrix_without_local_matrices_is_refused_where_it_comes_in():
    A = sp.csr_array(sp.diags_array([1.0, 2.0, 0.0, 3.0]))
    A.eliminate_zeros()
    owner = np.zeros(4, dtype=np.int64)
    with pytest.raises(ValueError, match="A: 1 empty rows, the first is row 2"):
        set_up(A, owner)
    nan = sp.csr_array(np.array([[1.0, np.nan], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match="A: some entries are NaN"):
        set_up(nan, owner[:2])
    with pytest.raises(TypeError, match="A: expected real entries, got complex128"):
        set_up(sp.csr_array(1j * np.eye(2)), owner[:2])
    with pytest.raises(TypeError, match="A: expected a SciPy CSR array, got format coo"):
        set_up(sp.coo_array(np.eye(2)), owner[:2])  # type: ignore
    with pytest.raises(ValueError, match="smoothing: expected a number of Jacobi steps"):
        set_up(sp.csr_array(np.eye(2)), owner[:2], smoothing=-1)
