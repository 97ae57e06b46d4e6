"""What a user says of a matrix reaches the learned methods: blocks, motions, elements, networks."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian

import ddm
from ddm.choice import prepared
from ddm.finetuning import finetune
from ddm.problems import random_problem
from ddm.safeguard import LearnedRefusedWarning
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres

A = laplacian(12)
N = A.shape[0]


@pytest.fixture(scope="module")
def body():
    return random_problem("elasticity", 1, 500)


def given_of(problem) -> dict[str, Any]:
    return {
        "coords": problem.positions,
        "block_size": problem.block_size,
        "near_nullspace": problem.near_nullspace,
        "elements": problem.elements,
    }


def test_an_elasticity_matrix_of_ones_own_gets_the_network_that_ships(body):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = ddm.learned_schwarz(body, subdomain=60)
        found = ddm.learned_schwarz(body.A, subdomain=60, **given_of(body))
    r = torch.from_numpy(body.b)
    torch.testing.assert_close(found(r), expected(r))
    bare = ddm.learned_schwarz(body.A, "elasticity_2d", coords=body.positions, block_size=2)
    assert bare.decomposition.block_size == 2


def test_what_is_said_of_a_matrix_is_used(body):
    setup = prepared(body.A, "elasticity_2d", subdomain=60, **given_of(body))[0]
    assert setup.decomposition.block_size == 2
    assert setup.unity.shape[1] == 6 * setup.decomposition.n_subdomains
    same = prepared(body, "elasticity_2d", subdomain=60)[0]
    torch.testing.assert_close(setup.exterior, same.exterior)
    torch.testing.assert_close(setup.unity.values, same.unity.values)
    tuned = finetune(body.A, steps=1, seconds=600, subdomain=60, **given_of(body))
    assert tuned.method.decomposition.block_size == 2


def test_a_matrix_of_this_library_will_do():
    found = ddm.learned_schwarz(CSRTensor.from_scipy(A), "diffusion_2d_algebraic", subdomain=30)
    expected = ddm.learned_schwarz(A, "diffusion_2d_algebraic", subdomain=30)
    r = torch.ones(N, dtype=torch.float64)
    torch.testing.assert_close(found(r), expected(r))
    assert finetune(CSRTensor.from_scipy(A), steps=0, subdomain=30).rate < 1


@pytest.mark.parametrize("call", [ddm.learned_schwarz, finetune, ddm.compare, ddm.tune])
@pytest.mark.parametrize("name", ["coords", "block_size", "near_nullspace", "elements"])
def test_what_a_problem_brings_is_not_given_beside_it(call, name, body):
    with pytest.raises(ValueError, match=rf"{name}: the problem has it; use dataclasses\.replace"):
        call(body, **{name: given_of(body)[name]})


@pytest.mark.parametrize("name", ["coordinates", "block_size", "near_nullspace", "elements"])
def test_nor_in_a_set_up(name, body):
    value = {"coordinates": body.positions, **given_of(body)}[name]
    owner = np.arange(len(body.b)) // 2 % 3
    with pytest.raises(ValueError, match=rf"{name}: the problem has it; use dataclasses\.replace"):
        ddm.set_up(body, owner, **{name: value})


@pytest.mark.parametrize("call", [ddm.learned_schwarz, finetune])
def test_coordinates_have_one_name(call):
    with pytest.raises(TypeError, match="coordinates: give them as coords="):
        call(A, coordinates=np.zeros((N, 2)))


@pytest.mark.parametrize("call", [ddm.learned_schwarz, finetune, ddm.compare, ddm.tune])
def test_what_is_no_network(call):
    with pytest.raises(TypeError, match=r"net: expected a ddm\.InterfaceNet, one of .*, got int"):
        call(A, net=3)
    with pytest.raises(ValueError, match="name: expected one of"):
        call(A, net="other")


@pytest.mark.filterwarnings("ignore::ddm.safeguard.LearnedRefusedWarning")
def test_networks_by_name_in_tables():
    problem = ddm.poisson(delaunay(16))
    options: dict[str, Any] = {"net": "diffusion_2d", "methods": ("mggnn",)}
    assert ddm.compare(problem, **options).runs["mggnn"].converged
    assert ddm.tune(problem, **options, progress=False).best.converged


UNSYMMETRIC = sp.csr_array(A + 0.3 * sp.triu(A, 1))


@pytest.mark.parametrize("net", [None, "diffusion_2d_algebraic"])
@pytest.mark.parametrize("matrix", [UNSYMMETRIC, sp.csr_array(A + 0.1j * sp.eye_array(N))])
@pytest.mark.parametrize("measure_unseen", [False, True])
def test_a_class_that_no_network_has_seen_gets_a_classical_method(net, matrix, measure_unseen):
    with_net = measure_unseen and net is not None and matrix is UNSYMMETRIC
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        M = ddm.learned_schwarz(matrix, net, subdomain=30, measure_unseen=measure_unseen)
    refused = [str(w.message) for w in caught if w.category is LearnedRefusedWarning]
    if not with_net:
        assert len(refused) == 1
        assert "this matrix is like" in refused[0]
        assert ("none that ships has seen such matrices" in refused[0]) == (net is None)
    b = torch.from_numpy(matrix @ np.ones(N))
    found = fgmres(M.A, b, preconditioner=M, rtol=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.x.numpy(), np.ones(N), rtol=1e-6)


def test_the_classical_method_of_a_complex_matrix_has_the_subdomains_asked_for():
    owner = np.arange(N) // 25
    with pytest.warns(LearnedRefusedWarning):
        M = ddm.learned_schwarz(A.astype(complex), owner=owner, overlap=2)
    np.testing.assert_array_equal(M.decomposition.owner, owner)
    assert M.decomposition.overlap == 2
    with pytest.warns(LearnedRefusedWarning):
        same = ddm.learned_schwarz(A.astype(complex), owner=owner, overlap=2, smoothing=2)
    real = ddm.set_up(A, owner, overlap=2, smoothing=2).classical()
    r = torch.ones(N, dtype=torch.float64)
    torch.testing.assert_close(same(r.to(torch.complex128)).real, real(r))


def test_vectors_that_do_not_fit_a_set_up():
    owner = np.arange(N) // 25
    for wrong in (np.ones(N), np.ones((5, 1)), np.ones((N, 0)), np.full((N, 1), np.nan)):
        with pytest.raises(ValueError, match=rf"near_nullspace: expected finite .* \({N}, k\)"):
            ddm.set_up(A, owner, near_nullspace=wrong)
    with pytest.raises(ValueError, match="smoothing: expected at least 0 Jacobi steps, got nan"):
        ddm.set_up(A, owner, smoothing=math.nan)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("count", [math.nan, math.inf, 2.5, 0])
def test_counts_are_whole_numbers(count):
    with pytest.raises(ValueError, match="maxiter: expected at least 1 iteration, got"):
        ddm.compare(A, maxiter=count)
    with pytest.raises(ValueError, match="solves: expected at least 1 right-hand side, got"):
        ddm.tune(A, solves=count)


@pytest.mark.parametrize("size", [math.nan, math.inf, 0])
def test_subdomains_hold_some_unknowns(size):
    for call in (ddm.compare, ddm.learned_schwarz):
        with pytest.raises(ValueError, match="subdomain: expected at least 1 unknown, got"):
            call(A, subdomain=size)
