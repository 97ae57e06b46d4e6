"""A matrix made ready: what `set_up` holds, and what is made of it."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dense_schwarz import one_level, two_levels
from small_problems import delaunay, laplacian, random_matrix, small_setup, unit_square

from ddm.classical import Classical
from ddm.coarse import assembled_neumann, partition_of_unity, smooth
from ddm.exterior import exterior
from ddm.interface import robin_between
from ddm.learned import InterfaceNet
from ddm.local import DenseBlocks, SparseBlocks
from ddm.partition import partition
from ddm.problems import Elements, from_matrix, poisson, random_problem
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from ddm.workbench import Workbench
from sparsetorch import CSRTensor
from sparsetorch.linalg import cg

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
    torch.testing.assert_close(setup.P.values, P.values.to(dtype))
    assert setup.inputs.graph.fine_nodes.dtype == torch.float32
    assert setup.inputs is setup.inputs


@pytest.mark.parametrize(
    ("local", "kind"), [("dense", DenseBlocks), ("sparse", SparseBlocks), ("auto", SparseBlocks)]
)
def test_lays_out_the_local_matrices_once(local, kind):
    setup = set_up(A, OWNER, local=local)
    assert isinstance(setup.local, kind)
    assert setup.classical(0.5).local is setup.local


@pytest.mark.parametrize("learned", [False, True])
def test_symmetric_methods_are_positive_definite_for_cg(learned):
    setup = small_setup(overlap=2, symmetric=True)
    generator = torch.Generator().manual_seed(0)
    theta = 0.1 + torch.rand(len(setup.inputs.local), generator=generator)
    shift = 0.1 * torch.randn(len(setup.inputs.local), generator=generator)
    method = setup.with_values(theta, shift) if learned else setup.classical(0.5)
    assert method.is_symmetric
    M = method.apply(torch.eye(setup.A.shape[0], dtype=torch.float64))
    torch.testing.assert_close(M, M.T)
    assert float(torch.linalg.eigvalsh(M).min()) > 0
    assert setup.in_precision(torch.float32).classical().is_symmetric
    b = random_matrix(setup.A.shape[0], 1)[:, 0]
    assert cg(setup.A, b, preconditioner=method, rtol=1e-10, maxiter=60).converged


@pytest.mark.parametrize("smoothing", [0, 2])
def test_given_values_make_local_matrices_and_the_partition_of_unity(smoothing):
    setup = small_setup(overlap=2, smoothing=smoothing)
    d = setup.decomposition
    generator = torch.Generator().manual_seed(0)
    theta = 0.2 + torch.rand(len(setup.inputs.local), generator=generator)
    shift = 0.05 * torch.randn(len(setup.inputs.local), generator=generator)
    method = setup.with_values(theta, shift)
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    L = (torch.sqrt(theta[row].double() * theta[col].double()) - 1) * setup.exterior
    unity = torch.zeros(d.n, d.n_subdomains, dtype=torch.float64)
    unity[d.node, d.subdomain] = torch.from_numpy(1 / d.multiplicity[d.node]) + shift
    P = smooth(CSRTensor.from_dense(unity), setup.A, smoothing)
    expected = Schwarz(setup.A, d, interface=L, P=P)
    r = random_matrix(d.n, 2)
    torch.testing.assert_close(method.apply(r), expected.apply(r))


@pytest.mark.parametrize(
    ("symmetric", "form", "levels"),
    [(False, "restricted", "multiplicative"), (True, "symmetric", "balanced")],
)
def test_learned_values_give_the_dense_method(symmetric, form, levels):
    setup = small_setup(8, 4, overlap=2, smoothing=1, symmetric=symmetric)
    d, A = setup.decomposition, setup.A.to_dense()
    generator = torch.Generator().manual_seed(0)
    theta = 0.2 + torch.rand(len(setup.inputs.local), generator=generator, dtype=torch.float64)
    shift = 0.05 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    L = (torch.sqrt(theta[row] * theta[col]) - 1) * setup.exterior
    unity = torch.zeros(d.n, d.n_subdomains, dtype=torch.float64)
    unity[d.node, d.subdomain] = torch.from_numpy(1 / d.multiplicity[d.node]) + shift
    M = two_levels(A, one_level(A, d, L, form), setup.smoother.to_dense() @ unity, levels)
    found = setup.with_values(theta, shift).apply(torch.eye(d.n, dtype=torch.float64))
    torch.testing.assert_close(found, M, rtol=1e-9, atol=1e-10)


def test_the_elements_give_the_exterior_where_the_matrix_is_no_m_matrix():
    problem = random_problem("anisotropic", 2, 200)
    owner = partition(problem.A, 4)
    setup = set_up(problem, owner)
    d, elements = setup.decomposition, problem.elements
    assert elements is not None
    N = assembled_neumann(d, elements.dofs, elements.matrices)
    torch.testing.assert_close(0.5 * setup.exterior, -robin_between(setup.A, d, N, 0.5))
    without = set_up(problem.with_all_couplings().A, owner)
    torch.testing.assert_close(without.exterior, exterior(without.A, without.decomposition))
    assert not torch.allclose(without.exterior, setup.exterior)


def test_couplings_are_counted_when_a_problem_is_made(monkeypatch):
    """Where none cancel there is nothing to assemble again; where some do, all are stored."""
    cancelling, whole = poisson(unit_square(3)), poisson(delaunay(8))
    for problem in (cancelling, whole, random_problem("elasticity", 1, 300)):
        elements = problem.elements
        assert elements is not None
        assert elements.couplings == elements.assemble(len(problem.b)).nnz
        uncounted = replace(problem, elements=replace(elements))
        assert "couplings" not in vars(uncounted.elements)
        mine, theirs = problem.with_all_couplings().A, uncounted.with_all_couplings().A
        assert np.array_equal(mine.indices, theirs.indices)
        assert np.array_equal(mine.data, theirs.data)
    assert cancelling.with_all_couplings().A.nnz > cancelling.A.nnz
    monkeypatch.setattr(Elements, "assemble", None)
    assert whole.with_all_couplings() is whole


def test_a_problem_brings_blocks_rigid_bodies_and_coordinates():
    problem = random_problem("elasticity", 1, 400)
    owner = partition(problem.A, 4, block_size=2)
    plain, linear = (set_up(problem, owner, linear=held, smoothing=0) for held in (False, True))
    assert plain.unity.shape[1] == 3 * 4
    assert linear.unity.shape[1] == 6 * 4  # the rotation is one of the linear functions
    assert problem.near_nullspace is not None
    for setup in (plain, linear):
        P, B = setup.P.to_dense(), torch.from_numpy(problem.near_nullspace)
        torch.testing.assert_close(P @ torch.linalg.lstsq(P, B).solution, B)
    x = torch.from_numpy(problem.coordinates[:, 0] * (np.arange(len(problem.b)) % 2 == 0))
    P = linear.P.to_dense()
    torch.testing.assert_close(P @ torch.linalg.lstsq(P, x[:, None]).solution, x[:, None])


def test_coordinates_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"coordinates: expected finite values of shape \(64, d\)"):
        set_up(A, OWNER, coordinates=np.zeros((3, 2)))


def test_a_network_in_float32_serves_a_matrix_in_float64():
    setup = small_setup()
    method = setup.learned(InterfaceNet(width=8, layers=1))
    r = random_matrix(setup.decomposition.n, 1)
    torch.testing.assert_close(method.apply(r), setup.classical(0.5).apply(r), rtol=1e-6, atol=0)


@pytest.mark.parametrize("learned", [False, True])
def test_local_factors_in_single_precision_inside_double(learned):
    plain, single = (set_up(A, OWNER, factor_dtype=dtype) for dtype in (None, torch.float32))
    net = InterfaceNet(width=8, layers=1)
    exact, got = (s.learned(net) if learned else s.classical(0.5) for s in (plain, single))
    assert (exact.factor_dtype, got.factor_dtype) == (torch.float64, torch.float32)
    r = random_matrix(len(OWNER), 2)
    difference = (got.apply(r) - exact.apply(r)).norm() / exact.apply(r).norm()
    assert got.apply(r).dtype == torch.float64
    assert 1e-12 < float(difference) < 1e-5
    assert Classical(0.5, single=True)(Workbench(from_matrix(A))).factor_dtype == torch.float32


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
    torch.nn.init.normal_(list(net.head.parameters())[-2], std=0.3)
    e = random_matrix(setup.decomposition.n, 3)
    expected = setup.learned(net).propagate(e)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net = net.to("cuda")  # and its gradients
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
    with pytest.raises(ValueError, match="smoothing: expected at least 0 Jacobi steps"):
        set_up(sp.csr_array(np.eye(2)), owner[:2], smoothing=-1)


def test_other_precisions_are_refused():
    with pytest.raises(TypeError, match=r"dtype: expected torch.float64 or .*, got torch.float16"):
        set_up(A, OWNER, dtype=torch.float16)
    with pytest.raises(TypeError, match=r"factor_dtype: expected torch.float32 or .*float64, got"):
        set_up(A, OWNER, factor_dtype=torch.complex64)


def test_elements_of_another_matrix_are_refused_for_an_m_matrix_too():
    problem = poisson(delaunay(9))
    owner, elements = partition(problem.A, 5), problem.elements
    assert elements is not None
    set_up(problem.A, owner, elements=elements)
    wrong = Elements(elements.dofs, 2 * elements.matrices)
    with pytest.raises(ValueError, match="elements: expected matrices that sum to A"):
        set_up(problem.A, owner, elements=wrong)


def test_a_whole_float_is_a_block_size():
    problem = random_problem("elasticity", 1, 300)
    owner = partition(problem.A, 4, block_size=2)
    options = {"elements": problem.elements, "near_nullspace": problem.near_nullspace}
    setups = [set_up(problem.A, owner, block_size=size, **options) for size in (2.0, 2)]  # type: ignore
    r = random_matrix(len(problem.b), 1)
    first, second = (setup.classical(0.5).apply(r) for setup in setups)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
