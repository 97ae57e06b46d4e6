"""Each finite-element problem converges to a known solution at the order of its elements."""

import numpy as np
import pytest
from manufactured import SIDES, cube, errors, square
from skfem import MeshTet, MeshTri

from ddm.problems import convection_diffusion, diffusion, elasticity, helmholtz, peclet, poisson

# Sides of triangles are halved, those of cubes cut from 1/c to 1/f.
MESHES = {2: (square(7), square(7).refined(), 2.0), 3: (cube(3), cube(5), 5 / 3)}
FINER = {2: (square(14), square(14).refined(), 2.0), 3: (cube(5), cube(8), 1.6)}
CASES = [(d, degree) for d in (2, 3) for degree in (1, 2)]
ids = [f"P{degree}-{d}D" for d, degree in CASES]


def wave(*x):
    """A smooth function that is zero nowhere on the boundary, with its gradient and Laplacian."""
    return np.sin(x[0] + 2 * x[1] + sum(x[2:]))


def wave_gradient(*x):
    slope = np.cos(x[0] + 2 * x[1] + sum(x[2:]))
    return np.stack([slope * c for c in (1, 2, 1)[: len(x)]])


def check_orders(d, degree, build, exact, gradient, meshes=MESHES, largest=0.06):
    coarse, fine, ratio = meshes[d]
    found = [errors(build(mesh), degree, exact, gradient) for mesh in (coarse, fine)]
    orders = np.log(np.divide(found[0], found[1])) / np.log(ratio)
    assert orders[0] == pytest.approx(degree + 1, abs=0.3)
    assert orders[1] == pytest.approx(degree, abs=0.3)
    assert found[1][0] < largest


@pytest.mark.parametrize(("d", "degree"), CASES, ids=ids)
def test_poisson(d, degree):
    """Zero on all of the boundary."""

    def exact(*x):
        return np.prod(np.sin(np.pi * np.stack(x)), axis=0)

    def gradient(*x):
        sines, slopes = np.sin(np.pi * np.stack(x)), np.pi * np.cos(np.pi * np.stack(x))
        rows = [np.where(np.arange(d)[:, None, None] == i, slopes, sines) for i in range(d)]
        return np.prod(np.stack(rows), axis=1)

    def build(mesh):
        return poisson(mesh, lambda *x: d * np.pi**2 * exact(*x), degree=degree)

    check_orders(d, degree, build, exact, gradient, FINER)


@pytest.mark.parametrize(("d", "degree"), CASES, ids=ids)
@pytest.mark.parametrize("jump", [1e-3, 1e6])
def test_diffusion_with_a_jump(d, degree, jump):
    """u has a kink where the coefficient jumps, its flux has none; elements end there."""

    def k(x):
        return np.where(x < 0.5, 1.0, jump)

    def parts(*x):
        """sin(2 pi x) over k, and a function of the others, each with its slope."""
        ours, rest = 2 * np.pi * x[0], sum(x[1:])
        return np.sin(ours) / k(x[0]), 2 * np.pi * np.cos(ours) / k(x[0]), rest

    def exact(*x):
        return parts(*x)[0] * np.cos(parts(*x)[2])

    def gradient(*x):
        u, slope, rest = parts(*x)
        return np.stack([slope * np.cos(rest)] + [-u * np.sin(rest)] * (d - 1))

    def build(mesh):
        return diffusion(
            mesh,
            k(mesh.p[0, mesh.t].mean(axis=0)),
            lambda *x: (4 * np.pi**2 + d - 1) * k(x[0]) * exact(*x),
            degree=degree,
            dirichlet=exact,
            neumann={"right": lambda *x: jump * gradient(*x)[0]},
        )

    meshes = {d: (layered(d, 6), layered(d, 8), 8 / 6)}
    check_orders(d, degree, build, exact, gradient, meshes, largest=0.1 * max(1, 1 / jump))


def layered(d, cells):
    """A mesh of the unit square or cube whose elements end at x = 1/2."""
    kind = MeshTri if d == 2 else MeshTet
    return kind.init_tensor(*[np.linspace(0, 1, cells + 1)] * d).with_boundaries(SIDES)


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
        return convection_diffusion(
            mesh,
            scale,
            w,
            source,
            degree=degree,
            dirichlet=wave,
            neumann={"right": lambda *x: scale * wave_gradient(*x)[0]},
            robin={"top": (scale, lambda *x: scale * (wave_gradient(*x)[1] + wave(*x)))},
        )

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
    """A plane wave that leaves by an impedance boundary, its flux given on one side."""
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
        flux = {"bottom": lambda *x: -gradient(*x)[1]}
        others = dict.fromkeys(sorted(set(mesh.boundaries) - {*parts, *flux}), exact)
        return helmholtz(
            mesh, k, 0.0, degree=degree, impedance=parts, neumann=flux, dirichlet=others
        )

    check_orders(d, degree, build, exact, gradient)
