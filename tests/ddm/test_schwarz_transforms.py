"""Function transforms and forward mode reach through Schwarz methods, factors and all."""

import numpy as np
import pytest
import torch
from dense_elements import diffusion
from small_problems import random_matrix
from torch.autograd import forward_ad

from ddm.coarse import nicolaides, smooth
from ddm.interface import robin
from ddm.partition import decompose, partition
from ddm.peers import Direct
from ddm.schwarz import Levels, Schwarz
from sparsetorch import CSRTensor

PROBLEM = diffusion(9)
A = CSRTensor.from_scipy(PROBLEM.A)
D = decompose(PROBLEM.A, partition(PROBLEM.A, 5))
P = smooth(nicolaides(D, np.ones((D.n, 1))), A)
ARGUMENTS = {
    "r": random_matrix(D.n, 2),
    "interface": robin(D, 0.5),
    "P": P.values,
    "A": A.values,
}
SOLVERS = ["dense", "sparse"]


def made(solver: str, levels: Levels, values: dict[str, torch.Tensor]) -> Schwarz:
    return Schwarz(
        A.with_values(values["A"]),
        D,
        interface=values["interface"],
        P=P.with_values(values["P"]),
        levels=levels,
        local=solver,
        coarse=solver,
    )


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("levels", ["multiplicative", "balanced"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_jvp_is_what_a_small_step_does(name, solver, levels, transpose):
    def function(x):
        values = ARGUMENTS | {name: x}
        method = made(solver, levels, values)
        return (method.apply_transposed if transpose else method.apply)(values["r"])

    x = ARGUMENTS[name]
    step = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    value, tangent = torch.func.jvp(function, (x,), (step,))[:2]
    torch.testing.assert_close(value, function(x), rtol=1e-12, atol=1e-12)
    expected = (function(x + 1e-5 * step) - function(x - 1e-5 * step)) / 2e-5
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-7)
    assert float(tangent.norm()) > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_method_made_outside_serves_transforms(solver):
    method = made(solver, "multiplicative", ARGUMENTS)
    r = random_matrix(D.n, 3, seed=1)
    whole = method.apply(r)
    torch.testing.assert_close(torch.vmap(method.apply, in_dims=1, out_dims=1)(r), whole)
    with forward_ad.dual_level():
        dual = method.apply(forward_ad.make_dual(r, r))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, whole)
    # What is kept when first used in a transform holds outside of it.
    tangent = torch.func.jvp(method.apply_transposed, (r,), (r,))[1]
    torch.testing.assert_close(tangent, method.apply_transposed(r))


def test_a_direct_solve_has_all_derivatives():
    r = random_matrix(D.n, 1)[:, 0]

    def function(values):
        return Direct(A.with_values(values)).apply(r)

    x = A.values.clone().requires_grad_()
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    tangent = torch.func.jvp(function, (x.detach(),), (step,))[1]
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(gradient @ step, tangent.sum())
    torch.testing.assert_close(torch.func.grad(lambda v: function(v).sum())(x.detach()), gradient)
    expected = (function(x + 1e-6 * step) - function(x - 1e-6 * step)).detach() / 2e-6
    torch.testing.assert_close(tangent, expected, rtol=1e-5, atol=1e-7)
