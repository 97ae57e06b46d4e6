"""Axes in the plane and in space, and triangles painted on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.tri import Triangulation
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from ddm.plot.geometry import Surface

LIGHT = np.array([0.35, -0.5, 0.8]) / np.linalg.norm([0.35, -0.5, 0.8])
AMBIENT = 0.62
FINE = 4000  # surfaces of fewer triangles are cut finer, as each triangle has one colour


def axes_for(dim: int, ax: Any = None) -> Any:
    """Axes of 2 or 3 dimensions: the given ones, the current ones, or new ones.

    Raises:
        ValueError: `ax` is plane and what is drawn is not.
    """
    if dim == 2:
        return ax or plt.gca()
    if ax is None:
        figure = plt.gcf()
        ax = figure.gca() if figure.axes else figure.add_subplot(projection="3d")
    if not hasattr(ax, "get_zlim"):
        raise ValueError(
            "ax: expected axes in space for a problem in 3D; make them with "
            "plt.subplots(subplot_kw={'projection': '3d'})"
        )
    return ax


def bare(ax: Any, points: np.ndarray) -> None:
    """Equal axes around the points (p, d), without frame and ticks."""
    ax.set_axis_off()
    if points.shape[1] == 2:
        ax.set_aspect("equal")
        return
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum(high - low, 1e-9 * float((high - low).max() or 1.0))
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_zlim(low[2], high[2])
    ax.set_box_aspect(size, zoom=0.95)


def towards_viewer(ax: Any) -> np.ndarray:
    """The unit vector from axes in space to who looks at them, (3,)."""
    up, around = np.radians(ax.elev), np.radians(ax.azim)
    return np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])


def plane_of(ax: Any, cut: tuple[str, float], points: np.ndarray) -> tuple[np.ndarray, float]:
    """Normal and offset that keep what lies behind a plane, seen from where the viewer is.

    Args:
        ax: axes in space.
        cut: ("x", "y" or "z", share from 0 to 1 of the mesh's extent in that direction).
        points: (p, 3) nodes.

    Raises:
        ValueError: another `cut`.
    """
    try:
        name, share = cut
        axis, share = "xyz".index(name), float(share)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cut: expected a pair like ('y', 0.5), got {cut!r}") from error
    if len(name) != 1 or not 0 < share < 1:
        raise ValueError(f"cut: expected 'x', 'y' or 'z' and a share between 0 and 1, got {cut!r}")
    normal = np.zeros(3)
    normal[axis] = -1.0 if towards_viewer(ax)[axis] > 0 else 1.0
    low, high = points[:, axis].min(), points[:, axis].max()
    place = low + share * (high - low)
    place += 1e-9 * (high - low)  # not through nodes of a regular mesh
    return normal, float(normal[axis] * place)


def triangulation(surface: Surface) -> Triangulation:
    """Triangles in the plane, as matplotlib takes them."""
    x, y = surface.points.T
    return Triangulation(x, y, surface.triangles)


def paint_elements(
    ax: Any, surface: Surface, numbers: np.ndarray, colours: Sequence[str], *, edges: bool = True
) -> Any:
    """Triangles with one colour each, by its number (k,) among `colours`."""
    cmap = ListedColormap(list(colours))
    if surface.points.shape[1] == 2:
        small = edges and len(surface.triangles) < 10_000
        return ax.tripcolor(
            triangulation(surface),
            facecolors=numbers,
            cmap=cmap,
            vmin=-0.5,
            vmax=cmap.N - 0.5,
            edgecolors="#ffffff" if small else "none",
            linewidth=0.25 if small else 0.0,
            rasterized=True,
        )
    faces = np.asarray(cmap(np.asarray(numbers, dtype=int)))
    return _solid(ax, surface, faces, edges and len(surface.triangles) < 20_000)


def paint_values(
    ax: Any, surface: Surface, values: np.ndarray, cmap: str, low: float, high: float
) -> Any:
    """Triangles coloured by values (p,) at their corners; returns what a colour bar needs."""
    if surface.points.shape[1] == 2:
        return ax.tripcolor(
            triangulation(surface),
            values,
            shading="gouraud",
            cmap=cmap,
            vmin=low,
            vmax=high,
            rasterized=True,
        )
    points, triangles, values = _finer(surface.points, surface.triangles, values)
    scale = ScalarMappable(Normalize(low, high), cmap)
    colours = np.asarray(scale.to_rgba(values[triangles].mean(axis=1)))
    fine = Surface(points, triangles, np.zeros(len(triangles), int), surface.weights)
    _solid(ax, fine, colours, False)
    scale.set_array(values)
    return scale


def ghost(ax: Any, surface: Surface, colour: str = "#888888", alpha: float = 0.06) -> None:
    """The surface of a solid, faint, around what is drawn of its inside."""
    rgba = np.tile(to_rgba(colour, alpha), (len(surface.triangles), 1))
    collection = Poly3DCollection(surface.points[surface.triangles], facecolors=rgba)
    collection.set_rasterized(True)
    ax.add_collection3d(collection)


def _finer(
    points: np.ndarray, triangles: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each triangle in four until there are many, with values on straight lines between."""
    while 0 < len(triangles) < FINE:
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [0, 2]]], axis=2).reshape(-1, 2)
        ends, number = np.unique(edges, axis=0, return_inverse=True)
        middle = len(points) + number.reshape(-1, 3)
        points = np.concatenate([points, points[ends].mean(axis=1)])
        values = np.concatenate([values, values[ends].mean(axis=1)])
        corners = np.concatenate([triangles, middle], axis=1)
        parts = np.array([(0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)])
        triangles = corners[:, parts].reshape(-1, 3)
    return points, triangles, values


def _solid(ax: Any, surface: Surface, colours: np.ndarray, edges: bool) -> Any:
    """Triangles in space with light on them; `colours` are (k, 4)."""
    corners = surface.points[surface.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal /= np.where(length > 0, length, 1)
    shade = AMBIENT + (1 - AMBIENT) * abs(normal @ LIGHT)  # seen from whichever side
    lit = np.concatenate([colours[:, :3] * shade[:, None], colours[:, 3:]], axis=1)
    outline = lit * [0.86, 0.86, 0.86, 1] if edges else lit  # lines of its own colour close gaps
    collection = Poly3DCollection(corners, facecolors=lit, edgecolors=outline, linewidths=0.2)
    collection.set_rasterized(True)
    ax.add_collection3d(collection)
    return collection
