"""Learned transmission values, made short: as fast as the best single weight, and faster."""

import math
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import csr_06_optimized_schwarz as example  # noqa: E402

import ddm.schwarz  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    """The matrices are small, and other processes have the other cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def laplace_in_strips(size):
    return example.Schwarz(example.laplace(size), example.strips(size))


def jumps_in_strips(size):
    return example.Schwarz(example.diffusion(size), example.strips(size))


def dense_propagator(method, L):
    identity = torch.eye(method.A.shape[0], dtype=torch.float64)
    return identity - method.fixed(L)(method.A.to_dense())


@pytest.mark.parametrize("make", [laplace_in_strips, jumps_in_strips])
@pytest.mark.parametrize("seed", [0, 1])
def test_learned_values_beat_the_best_single_weight(make, seed):
    method = make(12)
    best = example.best_single_weight(method)
    learned = example.learn(method, best, seed, epochs=50)
    count, single = (example.iterations(method, L) for L in (learned, best))
    assert count < single < 0.6 * example.iterations(method, method.zero)
    exact = [torch.linalg.eigvals(dense_propagator(method, L)).abs().max() for L in (learned, best)]
    assert exact[0] < exact[1]


def test_the_method_is_that_of_ddm():
    method = example.Schwarz(example.diffusion(8), example.squares(8))
    L = ddm.schwarz.robin(method.parts, 0.3)
    r = example.errors(64, 3, torch.Generator().manual_seed(0))
    expected = ddm.schwarz.Schwarz(method.A, method.parts, interface=L).apply(r)
    torch.testing.assert_close(method.fixed(L)(r), expected)


def test_the_gradient_is_that_of_dense_matrices():
    method = laplace_in_strips(6)
    L = method.centred(0.3).requires_grad_()
    e = example.errors(36, 4, torch.Generator().manual_seed(0))
    matrix = method.matrix(L)
    M = method.preconditioner(lambda r: example.solve(matrix, r))
    inverse = torch.linalg.inv(method.matrix(L).to_dense())
    by_inverse = method.preconditioner(lambda r: inverse @ r)
    sparse = example.contraction(method.A, M, e)
    dense = example.contraction(method.A, by_inverse, e)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(torch.autograd.grad(sparse, L), torch.autograd.grad(dense, L))


def test_the_factor_is_the_spectral_radius():
    method = laplace_in_strips(10)
    exact = torch.linalg.eigvals(dense_propagator(method, method.zero)).abs().max()
    assert example.factor(method, method.zero) == pytest.approx(float(exact), rel=0.02)


@pytest.mark.parametrize("order", ["OO0", "OO2"])
def test_gander_s_values_balance_the_slowest_modes(order):
    # rho = ((s - p - q k^2) / (s + p + q k^2))^2 exp(-2 s h), s^2 = k^2 + eta: with the best p, q
    # the lowest frequency and the peaks of the others are reduced alike. The formulas are the limit
    # of small h.
    size = 50_000
    h, lowest = 1 / (size + 1), math.pi**2 + example.ETA
    p, q = example.gander(size)[order]
    ends = math.log10(lowest) / 2, math.log10(math.pi / h)
    s = torch.logspace(*ends, 200_000, dtype=torch.float64)

    def rho(p, q):
        at = p + q * (s**2 - example.ETA)
        return ((s - at) / (s + at)) ** 2 * torch.exp(-2 * s * h)

    found = rho(p, q)
    peaks = found[1:-1][(found[1:-1] > found[:-2]) & (found[1:-1] > found[2:])]
    assert len(peaks) == {"OO0": 1, "OO2": 2}[order]
    assert peaks.tolist() == pytest.approx([float(found[0])] * len(peaks), rel=0.02)
    for factor in (0.8, 1.25):
        assert rho(factor * p, q).max() > found.max()


def test_published_values_on_a_line():
    # p h and q / h as they enter the matrix.
    method = laplace_in_strips(5)
    p, q = example.gander(5)["OO2"]
    expected = method.centred(p / 6, q * 6)
    torch.testing.assert_close(example.published(method, 5)["OO2, Gander 2006"], expected)


def test_the_block_of_a_line():
    # T + L = T / 2 + p h I + q / h tridiag(-1, 2, -1), with T = tridiag(-1, 4 + eta h^2, -1).
    method = laplace_in_strips(5)
    block = (method.matrix(method.centred(0.3, 2.0))).to_dense()
    first = torch.arange(method.parts.sizes[0])[-5:]  # the last line of the left subdomain
    on_line = block[first][:, first]
    assert torch.equal(method.node[first], torch.arange(10, 15))
    diagonal = 2 + example.ETA / 72 + 0.3 + 4.0
    torch.testing.assert_close(on_line.diagonal(), torch.full((5,), diagonal).double())
    torch.testing.assert_close(on_line.diagonal(1), torch.full((4,), -0.5 - 2.0).double())


def test_table_and_picture(tmp_path, monkeypatch, capsys):
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(
        sys, "argv", ["example", "--size", "6", "--seeds", "1", "--out", str(picture)]
    )
    learn = example.learn
    monkeypatch.setattr(example, "learn", lambda *given: learn(*given, epochs=5))
    example.main()
    assert picture.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert printed.count("learned") == 3
    assert printed.count("OO2, Gander 2006") == 1
