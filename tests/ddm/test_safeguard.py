"""Learned methods are never worse than the classical ones that they start from."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian, small_setup

import ddm
import ddm.safeguard
from ddm.choice import chosen_net, net_for
from ddm.learned import InterfaceNet
from ddm.problems import checkerboard
from ddm.safeguard import (
    LearnedRefusedWarning,
    convergence_rate,
    safeguarded,
    warn_refused,
)
from sparsetorch.linalg import fgmres


def perturbed(size: float) -> InterfaceNet:
    """A network whose head says something at random, without metadata."""
    torch.manual_seed(0)
    net = InterfaceNet(width=8, layers=1)
    with torch.no_grad():
        net.head[-1].weight.normal_(0, size)  # pyright: ignore[reportCallIssue]
    return net.eval()


def test_an_untrained_network_is_accepted_since_it_is_its_start():
    verdict = safeguarded(small_setup(), InterfaceNet(width=8, layers=1))
    assert verdict.learned
    assert verdict.rate == pytest.approx(verdict.classical_rate)


def test_a_bad_network_is_refused_with_both_rates():
    setup = small_setup(16, 8)
    verdict = safeguarded(setup, perturbed(3.0))
    assert not verdict.learned
    assert verdict.rate is not None
    assert verdict.classical_rate is not None
    assert verdict.rate > verdict.classical_rate
    assert f"{verdict.rate:.3g}" in verdict.reason
    assert f"{verdict.classical_rate:.3g}" in verdict.reason
    r = torch.ones(setup.A.shape[0], dtype=torch.float64)
    torch.testing.assert_close(verdict.method(r), setup.classical(0.5)(r))


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0, 10.0, 100.0])
def test_the_chosen_method_is_never_slower_than_the_start(size):
    setup = small_setup(14, 7)
    verdict = safeguarded(setup, perturbed(size))
    start = convergence_rate(setup.classical(0.5), iterations=40)
    assert convergence_rate(verdict.method, iterations=40) <= 1.1 * start


def test_ras_takes_the_place_of_a_start_that_diverges():
    """A Robin weight that is next to nothing: local problems are nearly singular."""
    setup = small_setup(14, 7)
    verdict = safeguarded(setup, InterfaceNet(width=8, layers=1, theta=0.01), enrich=0)
    assert convergence_rate(setup.classical(0.01)) > 1
    assert not verdict.learned
    r = torch.ones(setup.A.shape[0], dtype=torch.float64)
    torch.testing.assert_close(verdict.method(r), setup.classical()(r))


@pytest.mark.parametrize("times", [1.02, 3.0, 10.0])
def test_an_indefinite_matrix_gets_no_learned_method_without_a_warning(times):
    """Shifts beyond the lowest eigenvalue: all of them make the two-level iteration diverge."""
    A = laplacian(24)
    lowest = np.linalg.eigvalsh(A.toarray())[0]
    shifted = sp.csr_array(A - times * lowest * sp.eye_array(A.shape[0]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ddm.learned_schwarz(shifted, "diffusion_2d_algebraic", subdomain=60, enrich=0)
    assert [w.category for w in caught] == [LearnedRefusedWarning]
    if times == 3.0:
        assert "this matrix is like indefinite" in str(caught[0].message)


def test_a_learned_method_that_diverges_is_refused_even_if_the_classical_one_is_worse(monkeypatch):
    setup = small_setup(14, 7)
    net = InterfaceNet(width=8, layers=1)
    rates = iter([1.8, 1.2, 1.9])  # of the start, the learned method, and RAS
    monkeypatch.setattr(ddm.safeguard, "convergence_rate", lambda *_, **__: next(rates))
    verdict = safeguarded(setup, net, enrich=0)
    assert not verdict.learned
    assert (verdict.rate, verdict.classical_rate) == (1.2, 1.8)
    assert verdict.reason.startswith("it diverges: its convergence factor is 1.2, that of the cl")
    with pytest.warns(LearnedRefusedWarning, match=r"but diverges on its own, too .*factor 1\.8"):
        warn_refused(verdict)


def hard() -> ddm.Problem:
    """Coefficients that jump by 1e6 inside subdomains: few coarse functions leave slow errors."""
    mesh = delaunay(40, seed=2)
    return ddm.diffusion(mesh, checkerboard(mesh, 5, contrast=1e6))


@pytest.mark.filterwarnings("ignore::ddm.safeguard.LearnedRefusedWarning")
def test_slow_methods_get_their_slow_errors_into_the_coarse_space():
    problem = hard()
    plain, found = (ddm.learned_schwarz(problem, enrich=enrich) for enrich in (0, None))
    assert convergence_rate(plain) > 0.8
    assert convergence_rate(found) < 0.5
    assert columns(found) > columns(plain)
    # Where nothing is slow, nothing is added unless it is asked for.
    easy = ddm.poisson(delaunay(40))
    plain, found, asked = (ddm.learned_schwarz(easy, enrich=enrich) for enrich in (0, None, 3))
    assert columns(plain) == columns(found)
    assert columns(asked) == columns(plain) + 3 * plain.decomposition.n_subdomains
    assert convergence_rate(asked) < convergence_rate(plain)


def columns(method: ddm.Schwarz) -> int:
    assert method.P is not None
    return method.P.shape[1]


def test_a_start_that_diverges_is_overtaken_by_slow_errors():
    """Untrained, the network diverges as its start does."""
    setup = small_setup(24, 12)
    net = InterfaceNet(width=8, layers=1, theta=0.02)
    assert convergence_rate(setup.classical(0.02)) > 1
    assert not safeguarded(setup, net, enrich=0).learned
    verdict = safeguarded(setup, net)
    assert verdict.learned
    assert verdict.errors == 4
    assert verdict.rate == pytest.approx(convergence_rate(verdict.method))
    assert verdict.rate is not None
    assert verdict.rate < 0.8


def test_a_slower_network_is_compared_with_slow_errors_on_both_sides():
    setup = small_setup(24, 12)
    net = perturbed(3.0)
    verdict = safeguarded(setup, net, enrich=4)
    assert verdict.errors == 4
    learned, classical = (
        convergence_rate(ddm.enriched(m, 4)) for m in (setup.learned(net), setup.classical(0.5))
    )
    assert (verdict.rate, verdict.classical_rate) == pytest.approx((learned, classical))
    assert verdict.learned == (learned <= classical)
    assert convergence_rate(verdict.method) == pytest.approx(min(learned, classical))


def test_unasked_slow_errors_must_fit_and_help(monkeypatch):
    setup = small_setup(14, 7)
    net = InterfaceNet(width=8, layers=1)
    plain = setup.learned(net)
    monkeypatch.setattr(ddm.safeguard, "SLOW", 0.0)
    verdict = safeguarded(setup, net)
    assert columns(verdict.method) == columns(plain) + 4 * 7
    assert verdict.errors == 4
    assert str(verdict) == "learned, 4 slow errors"
    monkeypatch.setattr(ddm.safeguard, "VECTORS_ADDED", 30)
    verdict = safeguarded(setup, net)
    assert columns(verdict.method) == columns(plain)
    assert str(verdict) == "learned"
    with pytest.raises(
        ValueError, match="enrich=30: vectors: expected fewer, or larger subdomains: none of 7"
    ):
        safeguarded(setup, net, enrich=30)
    monkeypatch.setattr(ddm.safeguard, "enriched", lambda method, _: setup.classical(0.01))
    assert safeguarded(setup, net).rate == pytest.approx(convergence_rate(plain, iterations=40))


@pytest.mark.parametrize("enrich", [None, 4])
def test_slow_errors_do_not_count_in_favour_of_the_network(enrich, monkeypatch):
    """It is the faster one without them, and the slower one with them."""
    setup, net = small_setup(14, 7), perturbed(0.1)
    rates = iter([0.95, 0.9, 0.3, 0.2])  # start and learned, then learned and start with errors
    monkeypatch.setattr(ddm.safeguard, "convergence_rate", lambda *_, **__: next(rates))
    verdict = safeguarded(setup, net, enrich=enrich)
    assert not verdict.learned
    assert (verdict.rate, verdict.classical_rate, verdict.errors) == (0.3, 0.2, 4)
    r = torch.ones(setup.A.shape[0], dtype=torch.float64)
    expected = ddm.enriched(setup.classical(0.5), 4)
    torch.testing.assert_close(verdict.method(r), expected(r))


@pytest.mark.parametrize(("start", "learned"), [(0.95, 0.5), (0.5, 0.95)])
def test_slow_errors_are_not_looked_for_where_one_of_both_is_fast(start, learned, monkeypatch):
    rates = iter([start, learned])
    monkeypatch.setattr(ddm.safeguard, "convergence_rate", lambda *_, **__: next(rates))
    verdict = safeguarded(small_setup(14, 7), perturbed(0.1))
    assert verdict.learned == (learned < start)
    assert (verdict.rate, verdict.classical_rate, verdict.errors) == (learned, start, 0)


@pytest.mark.parametrize(
    ("enrich", "error"), [(-1, ValueError), (1.5, ValueError), ("4", TypeError)], ids=str
)
def test_bad_numbers_of_slow_errors_are_refused(enrich, error):
    with pytest.raises(error, match="enrich: expected"):
        ddm.learned_schwarz(laplacian(10), enrich=enrich)


def test_what_cannot_be_used_is_refused(monkeypatch):
    setup = small_setup()

    def broken(self, net):
        raise ValueError("interface: singular")

    monkeypatch.setattr(type(setup), "learned", broken)
    verdict = safeguarded(setup, InterfaceNet(width=8, layers=1))
    assert not verdict.learned
    assert verdict.reason == "it cannot be used: interface: singular"


@pytest.mark.filterwarnings("error::ddm.safeguard.LearnedRefusedWarning")
def test_the_public_call_learns_where_it_can():
    problem = ddm.poisson(delaunay(24))
    M = ddm.learned_schwarz(problem.A, "diffusion_2d", coords=problem.coordinates)
    b = torch.from_numpy(problem.b)
    assert fgmres(M.A, b, preconditioner=M, rtol=1e-8).converged
    assert ddm.learned_schwarz(problem).shape == M.shape


def test_the_public_call_warns_and_falls_back():
    A = laplacian(16)
    with pytest.warns(LearnedRefusedWarning, match=r"convergence factor is .*classical method"):
        M = ddm.learned_schwarz(A, perturbed(3.0), subdomain=30)
    owner = M.decomposition.owner
    classical = ddm.set_up(A, owner, **perturbed(3.0).options).classical(0.5)
    r = torch.ones(A.shape[0], dtype=torch.float64)
    torch.testing.assert_close(M(r), classical(r))


def test_saddle_points_are_not_smoothed():
    A = laplacian(8)
    B = sp.random_array((5, A.shape[0]), density=0.2, rng=0)
    saddle = sp.csr_array(sp.block_array([[A, B.T], [B, None]]))
    with pytest.raises(ValueError, match=r"diagonal entry 36 is zero.*take smoothing=0"):
        ddm.learned_schwarz(saddle, subdomain=20)
    with pytest.warns(LearnedRefusedWarning):
        M = ddm.learned_schwarz(saddle, subdomain=20, smoothing=0)
    assert M.shape == saddle.shape


def test_a_class_that_the_network_never_saw():
    mesh = delaunay(16)
    problem = ddm.diffusion(mesh, checkerboard(mesh, 0, contrast=1e4))
    net = perturbed(0.0)
    assert chosen_net(problem, net) == (net, "")  # it does not say what it has seen
    net.metadata = {"kinds": '["poisson"]', "dimension": "2"}
    with pytest.warns(LearnedRefusedWarning, match="trained on poisson; this matrix is like diff"):
        ddm.learned_schwarz(problem, net, subdomain=30)
    shipped = ddm.load_pretrained("diffusion_2d")
    assert chosen_net(problem, shipped)[1] == ""
    body = ddm.elasticity(mesh, dirichlet={lambda x, y: x < 1e-9: 0.0})
    assert chosen_net(body, shipped)[1] == "it was trained on 1 unknown(s) a node, not 2"


def test_a_network_is_tried_on_such_a_class_if_one_asks_for_it():
    problem = ddm.poisson(delaunay(12))
    net = InterfaceNet(width=8, layers=1)  # untrained, it is its start
    net.metadata = {"kinds": '["poisson"]', "dimension": "3"}
    with pytest.warns(LearnedRefusedWarning, match="it was trained in 3D, not 2D"):
        ddm.learned_schwarz(problem, net, subdomain=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ddm.learned_schwarz(problem, net, subdomain=30, measure_unseen=True)


def test_no_network_that_ships_fits():
    A = laplacian(9).astype(complex)
    with pytest.raises(ValueError, match=r"net: none that ships .*this matrix is like helmholtz"):
        net_for(ddm.from_matrix(A))
    assert "poisson" in net_for(ddm.from_matrix(laplacian(9))).metadata["kinds"]


def test_refusals():
    A = laplacian(9)
    with pytest.raises(ValueError, match="subdomain: expected at least 1"):
        ddm.learned_schwarz(A, "diffusion_2d", subdomain=0)
    with pytest.raises(ValueError, match="name: expected one of"):
        ddm.learned_schwarz(A, "other")
    with pytest.raises(ValueError, match="not finite"):
        ddm.learned_schwarz(sp.csr_array(A * np.nan), "diffusion_2d")
    free = sp.csr_array(A - sp.diags_array(np.asarray(A.sum(axis=1)).ravel()))
    with pytest.raises(ValueError, match=r"singular.*choose singular='ground'"):
        ddm.learned_schwarz(free, "diffusion_2d")
    problem = ddm.from_matrix(free, singular="nullspace")
    with pytest.raises(ValueError, match="learned methods take regular matrices"):
        ddm.learned_schwarz(problem, "diffusion_2d")


def test_symmetric_methods_are_judged_by_what_residuals_fall_by():
    setup = small_setup(14, 6, symmetric=True)
    torch.manual_seed(0)
    net = InterfaceNet(width=8, layers=1)
    assert 0 < convergence_rate(setup.classical(0.5)) < convergence_rate(setup.classical(0.01)) < 1
    last = net.head[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.constant_(last.bias, -5.0)  # weights far too small
    verdict = safeguarded(setup, net)
    assert not verdict.learned
    assert verdict.method.is_symmetric
    assert verdict.classical_rate is not None
    assert verdict.rate is not None
    assert verdict.classical_rate < verdict.rate
