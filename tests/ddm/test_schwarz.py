"""The Schwarz operators against their textbook formulas in dense matrices."""

import numpy as np
import pytest
import torch
from dense_schwarz import preconditioner, propagator
from scipy.sparse.linalg import gmres
from small_problems import laplacian, random_matrix

from ddm.coarse import partition_of_unity, smooth
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz, robin
from sparsetorch import CSRTensor

A = laplacian(10)
MATRIX = CSRTensor.from_scipy(A)
DENSE = MATRIX.to_dense()
N = A.shape[0]


def built(overlap: int, values: str, space: str, local: str, coarse: str):
    """A method, and the dense matrices of its M and T."""
    d = decompose(A, partition(A, 5), overlap)
    interface = {
        "RAS": lambda: None,
        "ORAS": lambda: robin(d, 0.4),
        "any": lambda: arbitrary(d),
    }[values]()
    P = {
        "one level": lambda: None,
        "plain": lambda: partition_of_unity(d),
        "smoothed": lambda: smooth(partition_of_unity(d), MATRIX),
    }[space]()
    method = Schwarz(MATRIX, d, interface=interface, P=P, local=local, coarse=coarse)
    arguments = (DENSE, d, interface, None if P is None else P.to_dense())
    return method, preconditioner(*arguments), propagator(*arguments)


def arbitrary(d):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(len(d.interface), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("values", ["RAS", "ORAS", "any"])
@pytest.mark.parametrize("space", ["one level", "plain", "smoothed"])
@pytest.mark.parametrize(("local", "coarse"), [("dense", "dense"), ("sparse", "sparse")])
def test_is_the_textbook_operator(overlap, values, space, local, coarse):
    method, M, T = built(overlap, values, space, local, coarse)
    vector, block = random_matrix(N, 1)[:, 0], random_matrix(N, 3, seed=1)
    for x in (vector, block, block[:, :0]):
        for got, expected in (
            (method.apply(x), M @ x),
            (method(x), M @ x),
            (method.apply_transposed(x), M.T @ x),
            (method.propagate(x), T @ x),
        ):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)
    assert method.shape == (N, N)


@pytest.mark.parametrize(("local", "coarse"), [("dense", "sparse"), ("sparse", "dense")])
def test_solvers_mix(local, coarse):
    method, M, _ = built(1, "ORAS", "plain", local, coarse)
    x = random_matrix(N, 2)
    torch.testing.assert_close(method.apply(x), M @ x, rtol=1e-10, atol=1e-12)


def test_float32_stays_float32():
    d = decompose(A, partition(A, 5))
    P = partition_of_unity(d, torch.float32)
    x = random_matrix(N, 2)
    for local, coarse in (("dense", "dense"), ("sparse", "sparse")):
        method = Schwarz(MATRIX.to(torch.float32), d, P=P, local=local, coarse=coarse)
        got = method.apply(x.float())
        assert got.dtype == torch.float32
        exact = Schwarz(MATRIX, d, P=P.to(torch.float64)).apply(x)
        assert (got - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize(("local", "coarse"), [("dense", "dense"), ("sparse", "sparse")])
@pytest.mark.parametrize("levels", ["multiplicative", "additive", "balanced"])
def test_autocast_rounds_nothing(local, coarse, levels):
    d = decompose(A, partition(A, 5))
    P = smooth(partition_of_unity(d), MATRIX).to(torch.float32)
    x = random_matrix(N, 2).float()

    def results(mixed: bool) -> list[torch.Tensor]:
        values = MATRIX.values.float().requires_grad_()
        matrix = MATRIX.to(torch.float32).with_values(values)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            method = Schwarz(matrix, d, P=P, levels=levels, local=local, coarse=coarse)
            got = [method.apply(x), method.apply_transposed(x), method.propagate(x)]
        gradient = torch.autograd.grad(got[0].square().sum(), values)[0]
        return [*(x.detach() for x in got), gradient]

    for got, expected in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(
            got, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())
        )


@pytest.mark.parametrize("space", ["one level", "smoothed"])
def test_as_scipys_operator(space):
    method, M, _ = built(1, "ORAS", space, "auto", "auto")
    operator = method.as_linear_operator()
    assert operator.shape == (N, N)
    assert operator.dtype == np.float64
    b = random_matrix(N, 2).numpy()
    dense = M.numpy()
    assert np.allclose(operator.matmat(b), dense @ b)
    assert np.allclose(operator.matvec(b[:, 0]), dense @ b[:, 0])
    assert np.allclose(operator.rmatvec(b[:, 0]), dense.T @ b[:, 0])
    assert np.allclose(operator.rmatmat(b), dense.T @ b)
    counts: dict[str, list[float]] = {"with": [], "without": []}
    for name, M in (("with", operator), ("without", None)):
        x, info = gmres(
            A, b[:, 0], M=M, rtol=1e-12, restart=N, maxiter=N, callback=counts[name].append,
            callback_type="pr_norm",
        )  # fmt: skip
        assert info == 0
        assert np.allclose(A @ x, b[:, 0])
    assert len(counts["with"]) < 0.7 * len(counts["without"])


def test_a_matrix_that_the_subdomains_were_not_made_from_is_refused():
    matrix = laplacian(8)
    d = decompose(matrix, partition(matrix, 4))
    A = CSRTensor.from_scipy(matrix)
    for other in (A @ A, CSRTensor.eye(d.n, torch.float64)):
        with pytest.raises(ValueError, match="A: its pattern is not that of the matrix"):
            Schwarz(other, d)
    Schwarz(2 * A, d)  # new values are what a decomposition is kept for


def test_interface_values_of_another_dtype_are_not_cast():
    matrix = laplacian(8)
    d = decompose(matrix, partition(matrix, 4))
    with pytest.raises(TypeError, match=r"interface: expected torch\.float64 like A"):
        Schwarz(CSRTensor.from_scipy(matrix), d, interface=torch.zeros(len(d.interface)))
