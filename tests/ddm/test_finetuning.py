"""Fine-tuning: never slower than its start, faster after some steps, and stopped at any time."""

import math
import warnings

import pytest
import scipy.sparse as sp
import torch
from small_problems import laplacian, random_matrix, small_setup

import ddm
import ddm.finetuning
from ddm.checkpoints import load_pretrained
from ddm.coarse import CoarseSolver
from ddm.finetuning import finetune
from ddm.learned import InterfaceNet
from ddm.local import SingularError
from ddm.partition import partition
from ddm.problems import random_problem
from ddm.rates import iterations_to_reduce
from ddm.safeguard import LearnedRefusedWarning, convergence_rate
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from sparsetorch import hstack
from sparsetorch.linalg import cg


@pytest.mark.parametrize("kind", ["poisson", "elasticity", "diffusion_3d"])
def test_some_steps_make_the_method_faster(kind):
    problem = random_problem(kind, 1, 400)
    setup = set_up(problem, partition(problem.A, 8, block_size=problem.block_size), smoothing=2)
    found = finetune(setup, steps=25, seconds=600)
    start = setup.classical(0.5)
    assert found.steps == 25
    assert found.start_rate == pytest.approx(convergence_rate(start, iterations=20))
    assert found.rate < 0.8 * found.start_rate
    count = iterations_to_reduce(found.method, 1e-8)
    assert count < 0.8 * iterations_to_reduce(start, 1e-8)
    assert found.method.A.dtype == torch.float64


@pytest.mark.parametrize("size", [1e-3, 100.0])
def test_it_starts_from_the_network_or_the_classical_method(size):
    """Whichever is faster: wild weights are never the start."""
    setup = small_setup(16, 8)
    torch.manual_seed(0)
    net = InterfaceNet(width=8, layers=1)
    torch.nn.init.normal_(list(net.head.parameters())[-2], std=size)
    methods = setup.learned(net), setup.classical(0.5)
    rates = [convergence_rate(method, iterations=20) for method in methods]
    found = finetune(setup, net, steps=0)
    assert found.steps == 0
    assert found.rate == pytest.approx(min(rates))
    r = random_matrix(setup.A.shape[0], 2)
    faster = methods[rates.index(min(rates))]
    torch.testing.assert_close(found.method(r), faster(r))


def test_a_matrix_alone_starts_from_a_network_that_ships():
    A = laplacian(20)
    found = finetune(A, steps=3, seconds=600, subdomain=30)
    assert found.method.decomposition.n_subdomains == round(A.shape[0] / 30)
    assert found.rate <= found.start_rate
    elastic = random_problem("elasticity", 1, 300)  # none has seen such: the classical method
    found = finetune(elastic, steps=3, seconds=600, subdomain=60)
    assert found.method.decomposition.block_size == 2
    assert found.rate < found.start_rate


def test_what_makes_it_worse_is_not_kept():
    setup = small_setup(16, 8)
    found = finetune(setup, steps=6, seconds=600, lr=30.0)
    assert found.rate <= found.start_rate
    assert convergence_rate(found.method, iterations=20) == pytest.approx(found.rate)


def test_it_ends_after_some_seconds():
    found = finetune(small_setup(), seconds=0.3, progress=True)
    seconds, rates = zip(*found.history)
    assert seconds[0] == 0
    assert list(seconds) == sorted(seconds)
    assert all(math.isfinite(rate) for rate in rates)


def test_an_interrupt_keeps_the_best_so_far(monkeypatch):
    setup, calls = small_setup(16, 8), []
    loss = ddm.finetuning._Run.loss

    def interrupted(run) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return loss(run)

    monkeypatch.setattr(ddm.finetuning._Run, "loss", interrupted)
    found = finetune(setup, steps=100, seconds=600)
    assert found.steps == 5
    assert found.rate < found.start_rate


def test_singular_matrices_in_single_precision_are_gone_on_with_in_double(monkeypatch):
    setup, seen = small_setup(), set()
    layout = type(setup.local)
    factor = layout.factor

    def failing(self, values):
        seen.add(values.dtype)
        if values.dtype == torch.float32:
            raise SingularError("of some subdomain")
        return factor(self, values)

    monkeypatch.setattr(layout, "factor", failing)
    tuned = finetune(setup, seconds=60, steps=6)
    assert tuned.steps == 6
    assert seen == {torch.float32, torch.float64}
    assert tuned.rate < tuned.start_rate


@pytest.mark.parametrize(("subdomains", "fast"), [(2, True), (60, False)])
def test_fast_methods_are_gone_on_with_in_double_precision(subdomains, fast):
    A = laplacian(24)
    setup = set_up(A, partition(A, subdomains), overlap=2, smoothing=0)
    run = ddm.finetuning._Run(setup, ddm.InterfaceNet(width=8, layers=1), 0)
    optimizer = torch.optim.Adam(run.raw)
    assert run.working.A.dtype == torch.float32
    for _ in range(2):
        assert run.step(optimizer)
    assert (run.working is setup) == fast


def singular_coarse(monkeypatch, fails):
    """Coarse matrices are singular in the calls, counted from 0, that `fails` is true of."""
    make, calls = CoarseSolver.__init__, []

    def failing(self, A0, *others):
        calls.append(A0.dtype)
        if fails(len(calls) - 1):
            raise SingularError("P: the coarse matrix is singular")
        make(self, A0, *others)

    monkeypatch.setattr(CoarseSolver, "__init__", failing)
    return calls


def test_a_coarse_matrix_that_is_singular_says_so_like_a_local_one():
    setup = small_setup()
    twice = hstack([setup.P, setup.P])
    with pytest.raises(SingularError, match="P: the coarse matrix"):
        Schwarz(setup.A, setup.decomposition, P=twice)


def test_a_singular_coarse_matrix_on_the_way_does_not_lose_the_best(monkeypatch):
    """Once in a step, and once in a check: the two alternate after four for the start."""
    setup = small_setup(12, 6)
    singular_coarse(monkeypatch, {8, 13}.__contains__)
    found = finetune(setup, steps=12, seconds=600)
    assert found.steps == 12
    assert found.rate < found.start_rate
    assert any(math.isinf(rate) for _, rate in found.history)


def test_tuning_ends_where_the_best_itself_fails(monkeypatch):
    setup = small_setup()
    calls = singular_coarse(monkeypatch, lambda call: call > 4)
    with pytest.raises(SingularError):  # the best cannot be made a last time
        finetune(setup, seconds=600)
    assert len(calls) < 20


def test_a_start_that_cannot_be_made_says_so_at_once(monkeypatch):
    singular_coarse(monkeypatch, lambda call: True)
    with pytest.raises(SingularError, match="P: the coarse matrix is singular"):
        finetune(small_setup(), seconds=600)


def test_numbers_beyond_the_range_are_gone_on_with_from_the_best(monkeypatch):
    loss, calls = ddm.finetuning._Run.loss, []

    def overflowing(run) -> torch.Tensor:
        calls.append(1)
        return loss(run) * (math.inf if len(calls) == 2 else 1.0)

    monkeypatch.setattr(ddm.finetuning._Run, "loss", overflowing)
    found = finetune(small_setup(), steps=6, seconds=600)
    assert found.steps == 6
    assert all(math.isfinite(rate) for _, rate in found.history)
    assert found.rate < found.start_rate


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "A", [sp.csr_array([[2.0]]), sp.csr_array([[2.0, -1], [-1, 2]]), laplacian(12), laplacian(18)]
)
def test_one_subdomain_solves_at_once_and_needs_no_tuning(A, symmetric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = finetune(A, seconds=600, subdomain=1000, symmetric=symmetric)
        M = ddm.learned_schwarz(A, subdomain=1000, symmetric=symmetric)
    assert found.steps == 0
    assert found.rate == found.start_rate < 0.3
    b = random_matrix(A.shape[0], 2)
    for method in (found.method, M):
        torch.testing.assert_close(method.A @ method(b), b)


def test_unsymmetric_matrices_are_refused():
    A = laplacian(9)
    lopsided = sp.csr_array(A + 0.3 * sp.triu(A, 1))
    for given in (lopsided, set_up(lopsided, partition(lopsided, 4))):
        with pytest.raises(ValueError, match="A: it is not symmetric, and fine-tuning is for"):
            finetune(given, steps=1)


def test_symmetric_methods_are_tuned_for_cg():
    setup = small_setup(16, 6, overlap=2, symmetric=True)
    found = finetune(setup, seconds=60, steps=60)
    assert found.method.is_symmetric
    assert found.rate < 0.98 * found.start_rate
    b = random_matrix(setup.A.shape[0], 1, seed=3)[:, 0]

    def iterations(method) -> int:
        return cg(setup.A, b, preconditioner=method, rtol=1e-10, maxiter=200).iterations

    assert iterations(found.method) < iterations(setup.classical(0.5))


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="seconds: expected a positive number, got 0"):
        finetune(small_setup(), seconds=0)


def test_a_setup_has_its_own_options():
    with pytest.raises(ValueError, match=r"options: a Setup has its own, got \['overlap'\]"):
        finetune(small_setup(), overlap=2)


def shifted(share: float) -> sp.csr_array:
    A = laplacian(20)
    return sp.csr_array(A - share * A.diagonal().mean() * sp.eye_array(A.shape[0]))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_indefinite_matrices_are_refused(share):
    message = r"A: it is indefinite, and fine-tuning is for symmetric positive.*ddm\.best_classical"
    with pytest.raises(ValueError, match=message):
        finetune(shifted(share), seconds=60, steps=1)


def test_a_network_that_has_not_seen_such_matrices_is_not_used():
    A = laplacian(20)  # without coordinates
    said = "the network's values are not used: .* no coordinates are given; fine-tuning starts"
    with pytest.warns(LearnedRefusedWarning, match=said):
        found = finetune(A, "diffusion_2d", steps=0, seconds=60, subdomain=40)
    start = set_up(
        A, partition(A, round(A.shape[0] / 40)), **load_pretrained("diffusion_2d").options
    )
    theta = load_pretrained("diffusion_2d").theta
    want = convergence_rate(start.classical(theta), iterations=20)
    assert found.rate == pytest.approx(want)


def test_a_network_for_other_matrices_is_not_used_beside_a_setup_either():
    setup = small_setup(12, 6)
    with pytest.warns(LearnedRefusedWarning, match="it was trained on 2 unknown.s. a node, not 1"):
        found = finetune(setup, "elasticity_2d", steps=0)
    r = random_matrix(setup.A.shape[0], 2)
    theta = load_pretrained("elasticity_2d").theta
    torch.testing.assert_close(found.method(r), setup.classical(theta)(r))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune(setup, "diffusion_2d", steps=0)
        finetune(setup, steps=0)


def test_a_rate_that_cannot_be_measured_is_no_rate(monkeypatch):
    """Infinities that a solve is given, as values go wild."""
    setup = small_setup(12, 6)
    broken = iter([False, True, False])
    measure = ddm.finetuning.convergence_rate

    def measured(method, **options):
        if next(broken, False):
            raise ValueError("b: expected finite numbers")
        return measure(method, **options)

    monkeypatch.setattr(ddm.finetuning, "convergence_rate", measured)
    found = finetune(setup, steps=2)
    assert math.isfinite(found.rate)


def test_ras_takes_over_where_the_result_diverges():
    """From a start beyond repair, which two-level RAS is not."""
    setup = small_setup(20, 8)
    net = InterfaceNet(theta=0.003, width=8, layers=1)
    diverging = setup.classical(0.003)
    assert convergence_rate(diverging) > 1
    found = finetune(setup, net, seconds=60, steps=1)
    assert found.start_rate > 1
    assert found.rate == pytest.approx(convergence_rate(setup.classical()))
    r = random_matrix(setup.A.shape[0], 1)
    torch.testing.assert_close(found.method(r), setup.classical()(r))


def test_a_result_that_diverges_is_warned_of(monkeypatch):
    monkeypatch.setattr(ddm.finetuning, "convergence_rate", lambda *_, **__: 1.5)
    with pytest.warns(LearnedRefusedWarning, match="the method diverges on its own .*factor 1.5"):
        found = finetune(small_setup(), seconds=60, steps=1)
    assert found.rate == 1.5


def test_slow_errors_in_the_coarse_space_are_gone_on_from():
    setup = small_setup(20, 10)
    plain = ddm.finetune(setup, steps=10, seconds=1000)
    found = ddm.finetune(setup, steps=10, seconds=1000, enrich=2)
    assert found.method.P is not None
    assert plain.method.P is not None
    assert found.method.P.shape[1] == plain.method.P.shape[1] + 2 * 10
    wider = ddm.enriched(setup.classical(0.5), 2)
    assert found.start_rate == pytest.approx(convergence_rate(wider, iterations=20))
    assert found.rate < found.start_rate
    assert found.rate < plain.rate
    assert convergence_rate(found.method, iterations=20) == pytest.approx(found.rate)


def test_numbers_of_slow_errors_that_do_not_fit_are_refused():
    setup = small_setup(10, 5)
    with pytest.raises(ValueError, match="enrich: expected at least 0 slow errors, got -1"):
        ddm.finetune(setup, steps=1, enrich=-1)
    with pytest.raises(
        ValueError, match="vectors: expected fewer, or larger subdomains: none of 5"
    ):
        ddm.finetune(setup, steps=1, enrich=20)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_no_gradients_are_recorded(mode):
    A = laplacian(20)
    with mode():
        setup = set_up(A, partition(A, 6))
        found = ddm.finetune(setup, steps=5)
        alone = ddm.finetune(A, subdomain=60, steps=1)
    assert found.steps == 5
    assert found.rate < found.start_rate
    assert alone.steps == 1
