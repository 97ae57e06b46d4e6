"""Pictures of values at the unknowns: solutions, displacements, and coarse basis functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ddm.plot.canvas import axes_for, bare, ghost, paint_values, plane_of, triangulation
from ddm.plot.geometry import Surface, linear_elements, n_nodes, surface_of
from ddm.plot.graph import draw_dots, draw_edges, layout
from ddm.plot.palette import SEQUENTIAL, colour_map
from ddm.problems import Problem
from sparsetorch import CSRTensor


def plot_solution(
    problem: Problem,
    u: np.ndarray,
    ax: Any = None,
    *,
    cut: tuple[str, float] | None = None,
    deform: float | None = None,
    contours: bool | None = None,
    colorbar: bool = False,
) -> Any:
    """Draw a solution, (n,) unknowns, in colour: of complex ones the real part, of blocks the size.

    Args:
        problem: in 2D or 3D; with prescribed values on its boundary.
        u: (n,) values.
        ax: axes; in 3D those of `projection="3d"`.
        cut: (direction, share), such as ("y", 0.5): in 3D, leave out what lies in front of a plane.
        deform: the mesh is moved by so many times a displacement; None: such that the largest is a
            tenth of the mesh's extent, 0 for none.
        contours: level lines in 2D; None: for real values of one sign, one a node.
        colorbar: whether to add one, with what the colours mean.

    Raises:
        ValueError: `u` has another shape or is not finite, `deform` of a scalar, plane axes in 3D,
            a graph that has no layout.
    """
    u = np.asarray(u)
    if not np.isfinite(u).all():
        raise ValueError("u: some values are NaN or infinite")
    nodal = problem.extend(u)
    colours = colour_map(_scalar(nodal)[0], True if np.iscomplexobj(nodal) else None)
    if contours is None:
        contours = nodal.ndim == 1 and colours[0] == SEQUENTIAL
    return _draw(problem, nodal, ax, _Look(cut, deform, contours, colorbar, colours))


def plot_coarse(
    problem: Problem,
    P: Any,
    column: int,
    ax: Any = None,
    *,
    cut: tuple[str, float] | None = None,
    deform: float | None = None,
    colorbar: bool = False,
) -> Any:
    """Draw one coarse basis function, a column of P; zero on the rest of the domain.

    Args:
        problem: in 2D or 3D.
        P: (n, columns), a CSRTensor, a SciPy sparse array, or a dense array.
        column: its number.
        ax, cut, deform, colorbar: of `plot_solution`; rigid-body modes are drawn as displacements.

    Raises:
        ValueError: P has no such column, or not n rows; see `plot_solution`.
    """
    n = len(problem.b)
    if len(P.shape) != 2 or P.shape[0] != n:
        raise ValueError(f"P: expected shape ({n}, columns), got {tuple(P.shape)}")
    if not 0 <= column < P.shape[1]:
        raise ValueError(f"column: expected 0 to {P.shape[1] - 1}, got {column}")
    values = column_of(P, column)
    nodal = np.zeros((n_nodes(problem), problem.block_size), values.dtype)
    nodal[problem.interior] = values.reshape(-1, problem.block_size)
    if problem.block_size == 1:
        nodal = nodal[:, 0]
    colours = colour_map(_scalar(nodal)[0], from_white=True)
    return _draw(problem, nodal, ax, _Look(cut, deform, False, colorbar, colours))


def column_of(P: Any, column: int) -> np.ndarray:
    """A column of a CSRTensor, a SciPy sparse array or a dense array, (n,)."""
    if isinstance(P, CSRTensor):
        P = P.detach().to("cpu").to_scipy()
    if hasattr(P, "tocsc"):
        return P.tocsc()[:, [column]].toarray()[:, 0]
    return np.asarray(P)[:, column]


@dataclass(frozen=True)
class _Look:
    """How values are drawn: the arguments of `plot_solution`, and colours with their limits."""

    cut: tuple[str, float] | None
    deform: float | None
    contours: bool
    colorbar: bool
    colours: tuple[str, float, float]


def _draw(problem: Problem, nodal: np.ndarray, ax: Any, look: _Look) -> Any:
    draw = _draw_graph if problem.mesh is None else _draw_mesh
    ax, shown, places = draw(problem, nodal, ax, look)
    if look.colorbar:
        plt.colorbar(shown, ax=ax, label=_scalar(nodal)[1], shrink=0.7, pad=0.02)
    bare(ax, places)
    return ax


def _draw_graph(
    problem: Problem, nodal: np.ndarray, ax: Any, look: _Look
) -> tuple[Any, Any, np.ndarray]:
    """Axes, what a colour bar needs, and the places that are drawn."""
    places, (cmap, low, high) = layout(problem), look.colours
    ax = axes_for(places.shape[1], ax)
    draw_edges(ax, problem, places)
    values = _scalar(nodal)[0][problem.interior]
    return ax, draw_dots(ax, places, c=values, cmap=cmap, vmin=low, vmax=high), places


def _draw_mesh(
    problem: Problem, nodal: np.ndarray, ax: Any, look: _Look
) -> tuple[Any, Any, np.ndarray]:
    points = linear_elements(problem)[0]
    dim = points.shape[1]
    ax = axes_for(dim, ax)
    if look.cut is not None and dim == 2:
        raise ValueError("cut: expected None for a problem in 2D")
    plane = None if look.cut is None else plane_of(ax, look.cut, points)
    surface = surface_of(problem, cut=plane)
    moved = _deformed(surface, points, nodal, look.deform)
    values = surface.weights @ _scalar(nodal)[0]
    if dim == 3:
        if moved is not surface:
            ghost(ax, surface)
        both = np.concatenate([surface.points, moved.points])
        return ax, paint_values(ax, moved, values, *look.colours), both
    shown = paint_values(ax, moved, values, *look.colours)
    if moved is not surface:
        _outline(ax, problem, surface, "#bbbbbb")
        if len(moved.triangles) < 20_000:
            ax.triplot(triangulation(moved), color="#33333355", linewidth=0.3)
    _outline(ax, problem, moved)
    if look.contours:
        _level_lines(ax, moved, values)
    return ax, shown, moved.points


def _scalar(nodal: np.ndarray) -> tuple[np.ndarray, str]:
    """What colours show of values (nodes,) or (nodes, block_size), and its name."""
    if nodal.ndim == 2:
        return np.linalg.norm(nodal, axis=1), "displacement"
    if np.iscomplexobj(nodal):
        return np.real(nodal), "real part"
    return nodal, ""


def _deformed(
    surface: Surface, points: np.ndarray, nodal: np.ndarray, deform: float | None
) -> Surface:
    if nodal.ndim == 1 or nodal.shape[1] != points.shape[1]:
        if deform:
            raise ValueError(
                f"deform: expected None, as the values are no displacements in {points.shape[1]}D"
            )
        return surface
    move = surface.weights @ np.real(nodal)
    if deform is None:
        largest = float(np.linalg.norm(move, axis=1).max())
        deform = 0.1 * float(np.ptp(points, axis=0).max()) / largest if largest else 0.0
    if deform == 0:
        return surface
    return Surface(
        surface.points + deform * move, surface.triangles, surface.element, surface.weights
    )


def _outline(ax: Any, problem: Problem, surface: Surface, colour: str = "#555555") -> None:
    """The boundary of a plane mesh, as it is moved."""
    ends = problem.mesh.facets[:, problem.mesh.boundary_facets()]
    lines = surface.points[ends.T]  # vertices come first among the nodes
    gaps = np.full((len(lines), 1, 2), np.nan)
    path = np.concatenate([lines, gaps], axis=1).reshape(-1, 2)
    ax.plot(*path.T, color=colour, linewidth=0.6)


def _level_lines(ax: Any, surface: Surface, values: np.ndarray) -> None:
    levels = np.linspace(values.min(), values.max(), 10)[1:-1]
    if values.max() > values.min():
        ax.tricontour(triangulation(surface), values, levels=levels, colors="white", linewidths=0.4)
