"""What interface values and coarse basis functions look like: classical ones beside learned ones.

    python examples/coarse_spaces.py [--nodes 900] [--out docs/images]

Draws the pictures of docs/coarse_spaces.md: the basis function of one subdomain (partition of
unity and what smoothing makes of it, classical and learned), its interface values (constant Robin
weight, Schur complement, learned), GenEO's vectors where channels of a high coefficient cross a
subdomain, the errors that a learned method is slow at where coefficients jump, and rigid-body
modes. Prints what each choice needs in iterations.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from skfem import MeshTri

import ddm
from ddm.coarse import assembled_neumann, geneo, nicolaides, smooth
from ddm.enrichment import slow_subspace
from ddm.interface import schur
from ddm.losses import coarse_energy
from ddm.partition import Decomposition, decompose, partition
from ddm.plot import plot_coarse, plot_convergence, plot_interface, plot_overlap
from ddm.problems import Problem, checkerboard
from ddm.rates import iterations_to_reduce
from ddm.schwarz import Schwarz
from ddm.setup import Setup
from ddm.table import Table
from sparsetorch import CSRTensor

SUBDOMAIN = 64  # unknowns that a subdomain owns
REDUCTION = 1e-8


def learned_network() -> ddm.InterfaceNet:
    """The network whose values are drawn."""
    return ddm.load_pretrained("diffusion_2d_algebraic")


def middle_subdomain(problem: Problem, parts: Decomposition) -> int:
    """The subdomain whose middle is nearest to that of all."""
    sizes = np.bincount(parts.owner)
    x = problem.coordinates
    centres = np.stack([np.bincount(parts.owner, weights=c) / sizes for c in x.T], axis=1)
    return int(np.linalg.norm(centres - x.mean(axis=0), axis=1).argmin())


def row_of_axes(count: int, dim: int = 2) -> tuple[Any, list[Any]]:
    """A figure with axes side by side."""
    options = {"projection": "3d"} if dim == 3 else {}
    figure, axes = plt.subplots(
        1, count, figsize=(3.5 * count, 3.5), layout="constrained", subplot_kw=options
    )
    return figure, list(np.atleast_1d(axes))


def save(figure: Any, axes: list[Any], titles: list[str], path: Path) -> None:
    """Title the axes, write the picture whole or not at all, and close it."""
    for ax, title in zip(axes, titles):
        ax.set_title(title, fontsize="medium")
    partial = path.with_name(path.stem + ".partial" + path.suffix)
    figure.savefig(partial, dpi=110)
    partial.replace(path)
    plt.close(figure)


def zoom(ax: Any, problem: Problem, parts: Decomposition, subdomain: int, layers: int = 2) -> None:
    """Show the surroundings of a subdomain in the plane."""
    here = problem.coordinates[parts.node[parts.subdomain == subdomain]]
    low, high = here.min(axis=0), here.max(axis=0)
    middle, half = (low + high) / 2, 0.5 * (1 + 0.3 * layers) * float((high - low).max())
    ax.set_xlim(middle[0] - half, middle[0] + half)
    ax.set_ylim(middle[1] - half, middle[1] + half)


def learned_pictures(problem: Problem, folder: Path, table: Table) -> None:
    """Coarse functions and interface values for Poisson's equation.

    One function a subdomain, by the network without coordinates: with linear functions beside the
    constants, columns of the coarse space are combinations of three, and say less.
    """
    net = learned_network()
    owner = partition(problem.A, max(3, len(problem.b) // SUBDOMAIN))
    setup = ddm.set_up(problem, owner, **net.options)
    parts, A = setup.decomposition, setup.A
    with torch.no_grad():
        values = net(setup.inputs)
        start, learned = setup.classical(net.theta), setup.with_values(*values)
        unity = replace(setup, smoothing=0).with_values(*values).P
    assert learned.P is not None
    assert unity is not None
    assert start.interface is not None
    assert learned.interface is not None
    subdomain = middle_subdomain(problem, parts)
    spaces = {"partition of unity": setup.unity, "smoothed": setup.P, "learned": learned.P}
    functions = {
        "partition of unity": setup.unity,
        "learned": unity,
        "smoothed": setup.P,
        "learned, smoothed": learned.P,
    }
    figure, axes = row_of_axes(4)
    for ax, P in zip(axes, functions.values()):
        plot_coarse(problem, P, subdomain, ax, colorbar=True)
        zoom(ax, problem, parts, subdomain)
    save(figure, axes, list(functions), folder / "coarse_functions.png")

    weights = {
        "constant weight": start.interface,
        "Schur complement, 2 layers": schur(A, parts, 2),
        "learned": learned.interface,
    }
    figure, axes = row_of_axes(3)
    for ax, L in zip(axes, weights.values()):
        plot_interface(problem, parts, L, subdomain, ax, limit=0.5, colorbar=ax is axes[-1])
    save(figure, axes, list(weights), folder / "interface_values.png")
    _count(table, setup, spaces, weights)


def _count(
    table: Table,
    setup: Setup,
    spaces: dict[str, CSRTensor],
    weights: dict[str, torch.Tensor],
) -> None:
    """Stationary iterations of each coarse space with each choice of interface values."""
    A, parts = setup.A, setup.decomposition
    for space, P in spaces.items():
        energy = float(coarse_energy(A, P, spaces["partition of unity"]))
        for label, L in {"RAS": None, **weights}.items():
            method = Schwarz(A, parts, interface=L, P=P, local=setup.local)
            count = iterations_to_reduce(method, REDUCTION, maxiter=500)
            table.add(
                **{
                    "coarse space": space,
                    "energy": energy,
                    "interface values": label,
                    "iterations": count if count < 500 else None,
                }
            )


def geneo_pictures(n_nodes: int, folder: Path) -> None:
    """GenEO where three channels of 1e4, 1e5 and 1e6 cross the middle one of nine boxes."""
    m = max(1, round((3 * n_nodes) ** 0.5 / 12))
    mesh = MeshTri.init_tensor(*[np.linspace(0, 1, 12 * m + 1)] * 2)
    row = (12 * m * mesh.p[1][mesh.t].mean(axis=0)).astype(int)
    coefficient = np.ones(mesh.nelements)
    for place, value in ((5, 1e4), (6, 1e5), (7, 1e6)):
        channel = (row >= place * m) & (row < place * m + max(1, m // 2))
        coefficient[channel] = value
    problem = ddm.diffusion(mesh, coefficient)
    box = np.minimum(3 * problem.coordinates, 2.999).astype(int)
    parts = decompose(problem.A, 3 * box[:, 1] + box[:, 0], overlap=2)
    A = CSRTensor.from_scipy(problem.A)
    assert problem.elements is not None
    neumann = assembled_neumann(parts, problem.elements.dofs, problem.elements.matrices)
    P = geneo(A, parts, neumann=neumann, threshold=None, count=3)
    subdomain = 4
    figure, axes = row_of_axes(4)
    plot_overlap(problem, parts, subdomain, axes[0], legend=False)
    high = mesh.p[:, mesh.t[:, coefficient > 1]].transpose(2, 1, 0)
    axes[0].add_collection(PolyCollection(list(high), facecolors="#d55e00", alpha=0.55))
    zoom(axes[0], problem, parts, subdomain)
    columns = columns_of(P, parts, subdomain)
    vectors = P.to_dense()[:, columns]
    vectors = vectors * vectors.sum(dim=0).sign()  # eigenvectors have no sign of their own
    for k, ax in zip(range(len(columns)), axes[1:]):
        plot_coarse(problem, vectors, k, ax, colorbar=True)
        zoom(ax, problem, parts, subdomain)
    names = [f"GenEO, vector {k + 1}" for k in range(len(columns))]
    save(figure, axes, ["subdomain, channels in red", *names], folder / "coarse_geneo.png")


def columns_of(P: CSRTensor, parts: Decomposition, subdomain: int) -> list[int]:
    """The columns of P whose unknowns are all of one subdomain, by number."""
    here = np.zeros(parts.n, dtype=bool)
    here[parts.node[parts.subdomain == subdomain]] = True
    matrix = P.to_scipy().tocsc()
    inside = [bool(here[matrix[:, [k]].nonzero()[0]].all()) for k in range(P.shape[1])]
    return [int(k) for k in np.flatnonzero(inside)]


def slow_error_pictures(n_nodes: int, folder: Path) -> None:
    """What a learned method is slow at where coefficients jump, and what it gains by that."""
    mesh = ddm.random_mesh(seed=77_000_000, n_nodes=n_nodes)
    coefficient = checkerboard(mesh, 0, contrast=1e6)
    problem = ddm.diffusion(mesh, coefficient)
    net = ddm.load_pretrained("diffusion_2d")
    owner = partition(problem.A, max(3, len(problem.b) // net.unknowns))
    setup = ddm.set_up(problem, owner, **net.options)
    with torch.no_grad():
        method = setup.learned(net)
        wider = {f"{k} slow errors": ddm.enriched(method, k) for k in (2, 4, 8)}
    E = slow_subspace(method, 2)
    E = E * E.gather(0, E.abs().argmax(0, keepdim=True)).sign()  # they have no sign of their own
    figure, axes = row_of_axes(4)
    drawn = axes[0].tripcolor(*mesh.p, mesh.t.T, facecolors=np.log10(coefficient), cmap="viridis")
    figure.colorbar(drawn, ax=axes[0], shrink=0.7)
    axes[0].set_aspect("equal")
    axes[0].set_axis_off()
    for k, ax in zip((0, 1), axes[1:]):
        plot_coarse(problem, E, k, ax, colorbar=True)
    x = torch.from_numpy(problem.b)  # any start will do: the solution is zero
    errors = {"learned": method, **wider}
    plot_convergence({name: reductions(M, x) for name, M in errors.items()}, axes[3])
    axes[3].set_ylabel("error")
    titles = ["coefficient, log10", "slow error, the first", "the second", "the method alone"]
    save(figure, axes, titles, folder / "coarse_slow_errors.png")


def reductions(method: Schwarz, error: torch.Tensor, iterations: int = 15) -> list[float]:
    """The 2-norms of an error (n,) from one stationary iteration to the next."""
    norms = [float(error.norm())]
    for _ in range(iterations):
        error = method.propagate(error)
        norms.append(float(error.norm()))
    return norms


def rigid_body_pictures(n_nodes: int, folder: Path) -> None:
    """The three motions of a plane subdomain, and one of them after a Jacobi step."""
    problem = ddm.elasticity(ddm.random_mesh(5, n_nodes), 1.0, 0.3)
    owner = partition(problem.A, max(3, len(problem.b) // 150), block_size=2)
    parts = decompose(problem.A, owner, block_size=2)
    subdomain = middle_subdomain(problem, parts)
    here = parts.subdomain == subdomain
    unity = np.zeros(parts.n)
    unity[parts.node[here]] = 1.0 / parts.multiplicity[parts.node[here]]
    modes = problem.near_nullspace
    assert modes is not None
    centred = modes.copy()  # turn about the subdomain's own middle
    for component in (0, 1):
        at = np.flatnonzero((np.arange(parts.n) % 2 == component) & (unity > 0))
        centred[component::2, 2] -= modes[at, 2].mean()
    P = CSRTensor.from_dense(torch.from_numpy(unity[:, None] * centred))
    smoothed = smooth(P, CSRTensor.from_scipy(problem.A), block_size=2)
    figure, axes = row_of_axes(4)
    for ax, (space, column) in zip(axes, ((P, 0), (P, 1), (P, 2), (smoothed, 2))):
        largest = float(abs(space.to_dense()[:, column]).max())
        size = 0.03 * float(np.ptp(problem.mesh.p, axis=1).max())  # folds nothing over
        plot_coarse(problem, space, column, ax, deform=size / largest, colorbar=True)
        zoom(ax, problem, parts, subdomain)
    titles = ["motion along x", "motion along y", "rotation", "rotation, one Jacobi step"]
    save(figure, axes, titles, folder / "coarse_rigid_body.png")


def solid_pictures(n_nodes: int, folder: Path) -> None:
    """A coarse function and a rigid-body mode in a solid."""
    mesh = ddm.mesh_box(n_nodes=n_nodes, size=(2, 1, 1), holes=[(1.0, 0.5, 0.5, 0.35)])
    poisson = ddm.poisson(mesh)
    parts = decompose(poisson.A, partition(poisson.A, 8))
    P = smooth(nicolaides(parts, np.ones((len(poisson.b), 1))), CSRTensor.from_scipy(poisson.A))
    figure, axes = row_of_axes(2, 3)
    subdomain = middle_subdomain(poisson, parts)
    plot_coarse(poisson, P, subdomain, axes[0], cut=("y", 0.5), colorbar=True)
    beam = ddm.elasticity(mesh, dirichlet={"left": 0.0})
    clamped = decompose(beam.A, partition(beam.A, 4, block_size=3), block_size=3)
    assert beam.near_nullspace is not None
    modes = nicolaides(clamped, beam.near_nullspace)
    plot_coarse(beam, modes, modes.shape[1] - 1, axes[1], colorbar=True)
    titles = ["smoothed, on a cut", "rigid-body mode of a clamped block"]
    save(figure, axes, titles, folder / "coarse_solid.png")


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=900, help="of the meshes")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    mpl.use("Agg")
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table(("coarse space", "energy", "interface values", "iterations"))
    problem = ddm.poisson(ddm.random_mesh(seed=77_000_000, n_nodes=args.nodes))
    learned_pictures(problem, args.out, table)
    geneo_pictures(args.nodes, args.out)
    slow_error_pictures(2 * args.nodes, args.out)
    rigid_body_pictures(args.nodes, args.out)
    solid_pictures(2 * args.nodes, args.out)
    print(table.to_markdown())


if __name__ == "__main__":
    main()
