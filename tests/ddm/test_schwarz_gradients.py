"""Derivatives of the Schwarz operators, in interface values, prolongation and vectors."""

import pytest
import torch
from small_problems import random_interface, random_matrix, small_setup
from torch.autograd import gradcheck, gradgradcheck

from ddm.schwarz import Schwarz

SETUP = small_setup(6, 3)  # 16 unknowns
R = random_matrix(SETUP.decomposition.n, 2).requires_grad_()
INTERFACE = random_interface(SETUP).requires_grad_()
P_VALUES = SETUP.P.values.clone().requires_grad_()


def method(interface, p_values, **options) -> Schwarz:
    P = SETUP.P.with_values(p_values)
    return Schwarz(SETUP.A, SETUP.decomposition, interface=interface, P=P, **options)


@pytest.mark.parametrize("operation", ["apply", "apply_transposed", "propagate"])
def test_derivatives_of_first_and_second_order(operation):
    def function(interface, p_values, r):
        return getattr(method(interface, p_values), operation)(r)

    assert gradcheck(function, (INTERFACE, P_VALUES, R))
    assert gradgradcheck(function, (INTERFACE, P_VALUES, R))


def test_derivatives_in_the_matrix():
    def function(values):
        A = SETUP.A.with_values(values)
        return Schwarz(A, SETUP.decomposition, interface=INTERFACE, P=SETUP.P).apply(R)

    assert gradcheck(function, (SETUP.A.values.clone().requires_grad_(),))


def test_derivatives_of_one_level():
    def function(interface, r):
        return Schwarz(SETUP.A, SETUP.decomposition, interface=interface).apply(r)

    assert gradcheck(function, (INTERFACE, R))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local": "sparse"}, "local: sparse local solves have no gradient"),
        ({"coarse": "sparse"}, "coarse: the sparse coarse solve has no gradient"),
    ],
)
def test_a_sparse_solver_refuses_to_lose_a_gradient(options, message):
    with pytest.raises(ValueError, match=message):
        method(INTERFACE, P_VALUES, **options)
    with torch.no_grad():
        method(INTERFACE, P_VALUES, **options).apply(R)


@pytest.mark.parametrize("operation", ["apply", "apply_transposed", "propagate"])
@pytest.mark.parametrize("solver", ["local", "coarse"])
def test_a_sparse_solver_refuses_a_vector_that_requires_a_gradient(operation, solver):
    dense = {"local": "dense", "coarse": "dense"}
    sparse = method(INTERFACE.detach(), P_VALUES.detach(), **{**dense, solver: "sparse"})
    with pytest.raises(ValueError, match=f"{solver}: the sparse solve records no gradient"):
        getattr(sparse, operation)(R)
    getattr(sparse, operation)(R.detach())
