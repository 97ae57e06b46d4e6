"""Derivatives of the Schwarz operators, in interface values, prolongation and vectors."""

import pytest
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
@pytest.mark.parametrize(
    ("local", "coarse"), [("dense", "dense"), ("sparse", "dense"), ("dense", "sparse")]
)
def test_derivatives_of_first_and_second_order(operation, local, coarse):
    def function(interface, p_values, r):
        return getattr(method(interface, p_values, local=local, coarse=coarse), operation)(r)

    assert gradcheck(function, (INTERFACE, P_VALUES, R))
    assert gradgradcheck(function, (INTERFACE, P_VALUES, R))


@pytest.mark.parametrize("solver", ["dense", "sparse"])
def test_derivatives_in_the_matrix(solver):
    def function(values):
        A = SETUP.A.with_values(values)
        options = {"local": solver, "coarse": solver}
        return Schwarz(A, SETUP.decomposition, interface=INTERFACE, P=SETUP.P, **options).apply(R)

    assert gradcheck(function, (SETUP.A.values.clone().requires_grad_(),))


def test_derivatives_of_one_level():
    def function(interface, r):
        return Schwarz(SETUP.A, SETUP.decomposition, interface=interface).apply(r)

    assert gradcheck(function, (INTERFACE, R))
