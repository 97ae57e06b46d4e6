"""Pictures of values at the unknowns: solutions, displacements, and coarse basis functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ddm.plot.canvas import axes_for, bare, ghost, paint_values, plane_of, triangulation
from ddm.plot.geometry import Surface, linear_elements, n_nodes, surface_of
from ddm.plot.graph import draw_dots, draw_edges, layout
from ddm.plot.palette import colour_map
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
        contours: level lines; None: for real scalars in 2D.
        colorbar: whether to add one, with what the colours mean.

    Raises:
        ValueError: `u` has another shape or is not finite, `deform` of a scalar, plane axes in 3D,
            a graph that has no layout.
    """
    u = np.asarray(u)
    if not np.isfinite(u).all():
        raise ValueError("u: some values are NaN or infinite")
    nodal = problem.extend(u)
    cmap = colour_map(_scalar(nodal)[0], True if np.iscomplexobj(nodal) else None)
    return _draw(problem, nodal, ax, cut, deform, contours, colorbar, cmap)


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
    cmap = colour_map(_scalar(nodal)[0], from_white=True)
    return _draw(problem, nodal, ax, cut, deform, False, colorbar, cmap)


def column_of(P: Any, column: int) -> np.ndarray:
    """A column of a CSRTensor, a SciPy sparse array or a dense array, (n,)."""
    if isinstance(P, CSRTensor):
        P = P.detach().to("cpu").to_scipy()
    if hasattr(P, "tocsc"):
        return P.tocsc()[:, [column]].toarray()[:, 0]
    return np.asarray(P)[:, column]


def _draw(
    problem: Problem,
    nodal: np.ndarray,
    ax: Any,
    cut: tuple[str, float] | None,
    deform: float | None,
    contours: bool | None,
    colorbar: bool,
    colours: tuple[str, float, float],
) -> Any:
    values, label = _scalar(nodal)
    cmap, low, high = colours
    if problem.mesh is None:
        places = layout(problem)
        ax = axes_for(places.shape[1], ax)
        draw_edges(ax, problem, places)
        shown = draw_dots(ax, places, c=values[problem.interior], cmap=cmap, vmin=low, vmax=high)
    else:
        points = linear_elements(problem)[0]
        dim = points.shape[1]
        ax = axes_for(dim, ax)
        if cut is not None and dim == 2:
            raise ValueError("cut: expected None for a problem in 2D")
        surface = surface_of(problem, cut=None if cut is None else plane_of(ax, cut, points))
        moved = _deformed(surface, points, nodal, deform)
        if dim == 3 and moved is not surface:
            ghost(ax, surface)
        shown = paint_values(ax, moved, surface.weights @ values, cmap, low, high)
        if dim == 2:
            if moved is not surface and len(moved.triangles) < 20_000:
                ax.triplot(triangulation(moved), color="#33333355", linewidth=0.3)
            _outline(ax, problem, moved)
            if contours if contours is not None else nodal.ndim == 1 and cmap == "viridis":
                _level_lines(ax, moved, surface.weights @ values)
        places = np.concatenate([surface.points, moved.points])
    if colorbar:
        plt.colorbar(shown, ax=ax, label=label, shrink=0.7, pad=0.02)
    bare(ax, places)
    return ax


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


def _outline(ax: Any, problem: Problem, surface: Surface) -> None:
    """The boundary of a plane mesh, as it is moved."""
    ends = problem.mesh.facets[:, problem.mesh.boundary_facets()]
    lines = surface.points[ends.T]  # vertices come first among the nodes
    gaps = np.full((len(lines), 1, 2), np.nan)
    path = np.concatenate([lines, gaps], axis=1).reshape(-1, 2)
    ax.plot(*path.T, color="#555555", linewidth=0.6)


def _level_lines(ax: Any, surface: Surface, values: np.ndarray) -> None:
    levels = np.linspace(values.min(), values.max(), 10)[1:-1]
    if values.max() > values.min():
        ax.tricontour(triangulation(surface), values, levels=levels, colors="white", linewidths=0.4)
