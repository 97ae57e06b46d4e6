"""Each finite-element problem converges to a known solution at the order of its elements."""

import numpy as np
import pytest
from manufactured import cube, errors, square

from ddm.problems import convection_diffusion, diffusion, elasticity, helmholtz, peclet

# Sides of triangles are halved, those of cubes cut from 1/c to 1/f.
MESHES = {2: (square(7), square(7).refined(), 2.0), 3: (cube(3), cube(5), 5 / 3)}
CASES = [(d, degree) for d in (2, 3) for degree in (1, 2)]
ids = [f"P{degree}-{d}D" for d, degree in CASES]


def wave(*x):
    """A smooth function that is zero nowhere on the boundary, with its gradient and Laplacian."""
    return np.sin(x[0] + 2 * x[1] + sum(x[2:]))


def wave_gradient(*x):
    slope = np.cos(x[0] + 2 * x[1] + sum(x[2:]))
    return np.stack([slope * c for c in (1, 2, 1)[: len(x)]])


def check_orders(d, degree, build, exact, gradient):
    coarse, fine, ratio = MESHES[d]
    found = [errors(build(mesh), degree, exact, gradient) for mesh in (coarse, fine)]
    orders = np.log(np.divide(found[0], found[1])) / np.log(ratio)
    assert orders[0] == pytest.approx(degree + 1, abs=0.3)
    assert orders[1] == pytest.approx(degree, abs=0.3)
    assert found[1][0] < 0.06


@pytest.mark.parametrize(("d", "degree"), CASES, ids=ids)
def test_diffusion_with_a_tensor_and_mixed_boundaries(d, degree):
    K = np.array([[2.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.2, 0.1, 1.5]])[:d, :d]
    direction = np.array([1.0, 2.0, 1.0])[:d]

    def flux(*x):
        return np.einsum("ab,b...->a...", K, wave_gradient(*x))

    def build(mesh):
        return diffusion(
            mesh,
            K,
            lambda *x: (direction @ K @ direction + 3) * wave(*x),
            degree=degree,
            reaction=3.0,
            dirichlet=wave,
            neumann={"right": lambda *x: flux(*x)[0]},
            robin={"top": (lambda *x: 1 + x[0], lambda *x: flux(*x)[1] + (1 + x[0]) * wave(*x))},
        )

    check_orders(d, degree, build, wave, wave_gradient)


@pytest.mark.parametrize(("d", "degree"), CASES, ids=ids)
def test_diffusion_with_a_smooth_coefficient(d, degree):
    def source(*x):
        slope = np.cos(x[0] + 2 * x[1] + sum(x[2:]))
        return (1 + x[0]) * (5 + (d == 3)) * wave(*x) - slope

    def build(mesh):
        return diffusion(
            mesh, lambda *x: 1 + x[0], source, degree=degree, dirichlet={everywhere: wave}
        )

    def everywhere(*x):
        return np.ones_like(x[0], dtype=bool)

    check_orders(d, degree, build, wave, wave_gradient)


@pytest.mark.parametrize(
    ("d", "degree", "scale"),
    [*((*case, 1.0) for case in CASES), (2, 1, 0.001), (3, 1, 0.001)],
    ids=[*ids, "SUPG-2D", "SUPG-3D"],
)
def test_convection_diffusion(d, degree, scale):
    """SUPG is consistent: it keeps the order."""
    w = np.array([1.0, 0.5, 0.25])[:d]
    direction = np.array([1.0, 2.0, 1.0])[:d]

    def source(*x):
        return scale * (direction @ direction) * wave(*x) + np.tensordot(w, wave_gradient(*x), 1)

    def build(mesh):
        assert (peclet(mesh, scale, w).max() > 1) == (scale < 1)
        return convection_diffusion(mesh, scale, w, source, degree=degree, dirichlet=wave)

    check_orders(d, degree, build, wave, wave_gradient)


@pytest.mark.parametrize(
    ("d", "degree", "plane"),
    [*((*case, "strain") for case in CASES), (2, 1, "stress"), (2, 2, "stress")],
    ids=[*ids, "P1-stress", "P2-stress"],
)
def test_elasticity(d, degree, plane):
    """u = s(a . x) c, with a traction on one side."""
    E, nu = 2.0, 0.25
    mu, lam = E / (2 * (1 + nu)), E * nu / ((1 + nu) * (1 - 2 * nu))
    if plane == "stress":
        lam = 2 * mu * lam / (2 * mu + lam)
    a, c = np.array([1.0, 2.0, 1.0])[:d], np.array([1.0, -0.5, 0.75])[:d]

    def exact(*x):
        return np.stack([wave(*x) * component for component in c])

    def gradient(*x):
        return np.einsum("i,j...->ij...", c, wave_gradient(*x))

    def stress(*x):
        g = gradient(*x)
        trace = np.einsum("ii...->...", g)
        return mu * (g + g.swapaxes(0, 1)) + lam * np.einsum("ij,...->ij...", np.eye(d), trace)

    force = mu * (a @ a) * c + (mu + lam) * (a @ c) * a

    def build(mesh):
        return elasticity(
            mesh,
            E,
            nu,
            lambda *x: np.stack([wave(*x) * component for component in force]),
            degree=degree,
            plane=plane,
            dirichlet=exact,
            neumann={"right": lambda *x: stress(*x)[:, 0]},
            robin={"top": (2.0, lambda *x: stress(*x)[:, 1] + 2 * exact(*x))},
        )

    check_orders(d, degree, build, exact, gradient)


@pytest.mark.parametrize(("d", "degree"), CASES, ids=ids)
def test_helmholtz(d, degree):
    """A plane wave that leaves by an impedance boundary."""
    k = 2.0
    direction = np.array([0.6, 0.8, 0.0])[:d]

    def exact(*x):
        return np.exp(1j * k * np.tensordot(direction, np.stack(x), 1))

    def gradient(*x):
        return np.einsum("a,...->a...", 1j * k * direction, exact(*x))

    def outgoing(normal):
        return lambda *x: (1j * k * (direction[normal] - 1)) * exact(*x)

    def build(mesh):
        parts = {"right": outgoing(0), "top": outgoing(1)}
        others = dict.fromkeys(sorted(set(mesh.boundaries) - set(parts)), exact)
        return helmholtz(mesh, k, 0.0, degree=degree, impedance=parts, dirichlet=others)

    check_orders(d, degree, build, exact, gradient)
