"""Mesh files, with the names of boundaries and subdomains."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ddm.extras import extra
from ddm.mesh.build import build_mesh

BELOW = {"triangle": ("line",), "tetra": ("triangle", "line")}  # cells of lower dimension
PREFIXES = {"boundary": "boundary:", "subdomain": "subdomain:"}  # arrays that `save_mesh` writes


def load_mesh(path: str | Path) -> Any:
    """Read the tetrahedra, or else the triangles, of a file that meshio reads (.msh, .vtu, ...).

    Edges (faces of tetrahedra) in the file name boundaries, and groups of elements subdomains: in a
    .msh file by its physical groups' names, or numbers where they have none; in other files by
    integer arrays on cells: "array=value" for each value but zero, or the names that `save_mesh`
    wrote. They are the mesh's `boundaries` and `subdomains`.

    Returns:
        scikit-fem's MeshTet or MeshTri.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a mesh file, no triangles or tetrahedra, other cells too, triangles that
            are not in a plane z = const, or whatever `build_mesh` refuses.
    """
    path = Path(path)
    mesh = _read(path)
    found = set(mesh.cells_dict)
    kind = "tetra" if "tetra" in found else "triangle"
    if kind not in found:
        cells = ", ".join(sorted(found)) or "none"
        raise ValueError(f"path: {path} has no triangles or tetrahedra; its cell types: {cells}")
    others = sorted(found - {kind, *BELOW[kind], "vertex"})
    if others:
        name = "triangles" if kind == "triangle" else "tetrahedra"
        raise ValueError(f"path: {path} also has {', '.join(others)} cells; expected {name} only")
    points, cells = np.asarray(mesh.points, dtype=float), mesh.cells_dict[kind].astype(np.int64)
    if cells.size and not 0 <= cells.min() <= cells.max() < len(points):
        raise ValueError(
            f"path: {path} names vertices {cells.min()} to {cells.max()} of {len(points)}"
        )
    if kind == "triangle":
        height = points[np.unique(cells), 2:]
        if height.size and np.ptp(height) > 1e-9 * np.ptp(points[:, :2]):
            raise ValueError(
                f"path: {path} is not plane: z goes from {height.min()} to {height.max()}"
            )
        points = points[:, :2]
    facets = mesh.cells_dict.get(BELOW[kind][0], np.zeros((0, points.shape[1]), np.int64))
    if facets.size and not 0 <= facets.min() <= facets.max() < len(points):
        raise ValueError(
            f"path: {path} names vertices {facets.min()} to {facets.max()} of {len(points)}"
        )
    boundaries = {
        name: facets[chosen] for name, chosen in _groups(mesh, BELOW[kind][0], "boundary").items()
    }
    return build_mesh(points, cells, boundaries, _groups(mesh, kind, "subdomain"))


def _read(path: Path) -> Any:
    """What meshio finds, without a word on the terminal."""
    meshio = extra("meshio")
    if not path.is_file():
        raise FileNotFoundError(f"path: no mesh file {path}")
    said = io.StringIO()
    try:
        # It prints a line for each format that it tries in vain.
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return meshio.read(path)
    # It ends the process on some unreadable files, and its parsers raise whatever they meet.
    except (Exception, SystemExit) as error:
        detail = said.getvalue() if isinstance(error, SystemExit) else str(error)
        raise ValueError(
            f"path: {path} is not a mesh file that meshio can read ({' '.join(detail.split())})"
        ) from error


def _groups(mesh: Any, kind: str, role: str) -> dict[str, np.ndarray]:
    """Numbers of the cells of a kind, in the order of the file's, by the name that they have."""
    dimension = {"line": 1, "triangle": 2, "tetra": 3}[kind]
    labels = {
        (int(tag), int(dim)): name for name, (tag, dim) in getattr(mesh, "field_data", {}).items()
    }
    blocks = [k for k, block in enumerate(mesh.cells) if block.type == kind]
    groups: dict[str, np.ndarray] = {}
    for array, values in mesh.cell_data.items():
        tags = np.concatenate([np.asarray(values[k]).ravel() for k in blocks] or [np.zeros(0, int)])
        ours = [prefix for prefix in PREFIXES.values() if array.startswith(prefix)]
        theirs = array.startswith("gmsh:") and array != "gmsh:physical"
        if not np.issubdtype(tags.dtype, np.integer) or theirs:
            continue
        if ours and ours != [PREFIXES[role]]:
            continue
        for tag in np.unique(tags[tags != 0]).tolist():
            if ours:
                name = array.removeprefix(ours[0])
            elif array == "gmsh:physical":
                name = labels.get((tag, dimension), str(tag))
            else:
                name = f"{array}={tag}"
            groups[name] = np.flatnonzero(tags == tag)
    return groups | _sets(mesh, blocks, labels.values())


def _sets(mesh: Any, blocks: list[int], names: Any) -> dict[str, np.ndarray]:
    """Physical groups of a .msh file of version 4, whose entities may be in several of them.

    meshio's `gmsh:physical` has one of them for each cell, its sets all.
    """
    starts = np.cumsum([0, *(len(mesh.cells[k].data) for k in blocks)])
    found = {}
    for name in names:
        parts = mesh.cell_sets.get(name, [])
        cells = [
            start + np.asarray(parts[k], dtype=np.int64)
            for start, k in zip(starts.tolist(), blocks)
            if k < len(parts) and parts[k] is not None
        ]
        if cells and sum(map(len, cells)):
            found[name] = np.concatenate(cells)
    return found


def save_mesh(mesh: Any, path: str | Path) -> None:
    """Write a mesh to a file whose suffix names the format; gmsh's .msh is written as text.

    The file appears whole or not at all.

    Only .msh (physical groups) and .vtu (arrays of zeros and ones on cells) keep the names of
    boundaries and subdomains.

    Raises:
        ValueError: subdomains that overlap, or have a boundary's name, to .msh, which cannot say
            so.
    """
    meshio = extra("meshio")
    path = Path(path)
    plane = mesh.dim() == 2
    points = np.column_stack([mesh.p.T, np.zeros(mesh.nvertices)]) if plane else mesh.p.T
    kind, facet = ("triangle", "line") if plane else ("tetra", "triangle")
    cells: list[tuple[str, np.ndarray]] = [(kind, mesh.t.T)]
    data: dict[str, list[np.ndarray]] = {}
    fields: dict[str, np.ndarray] = {}
    named = {name: np.asarray(found) for name, found in (mesh.boundaries or {}).items()}
    named = {name: found for name, found in named.items() if len(found)}
    groups = {name: np.asarray(found) for name, found in (mesh.subdomains or {}).items()}
    if named and path.suffix in (".msh", ".vtu"):
        cells.append((facet, np.concatenate([mesh.facets[:, found].T for found in named.values()])))
    if path.suffix == ".msh":
        tags, fields = _physical(mesh, named, groups)
        data = {"gmsh:physical": tags, "gmsh:geometrical": [np.maximum(tag, 1) for tag in tags]}
    elif path.suffix == ".vtu":
        data = _indicators(mesh, named, groups)
    options = {"file_format": "gmsh22", "binary": False} if path.suffix == ".msh" else {}
    found = meshio.Mesh(points, cells, cell_data=data, field_data=fields)
    # A folder, since some formats write a second file and name it in the first.
    with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        found.write(Path(folder) / path.name, **options)
        for file in Path(folder).iterdir():
            os.replace(file, path.with_name(file.name))


def _physical(
    mesh: Any, named: dict[str, np.ndarray], groups: dict[str, np.ndarray]
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Group numbers of elements and of named facets, and gmsh's table of names."""
    dim, fields = mesh.dim(), {}
    if set(named) & set(groups):
        raise ValueError(
            f"mesh: {sorted(set(named) & set(groups))} name both boundaries and subdomains; write "
            "it as .vtu"
        )
    inner = np.zeros(mesh.nelements, dtype=np.int32)
    for tag, (name, found) in enumerate(groups.items(), start=1):
        if inner[found].any():
            raise ValueError(f"mesh: subdomain {name!r} overlaps another; write it as .vtu")
        inner[found] = tag
        fields[name] = np.array([tag, dim])
    tags = [inner]
    outer = [
        np.full(len(found), tag, dtype=np.int32) for tag, found in enumerate(named.values(), 1)
    ]
    if outer:
        tags.append(np.concatenate(outer))
        fields |= {name: np.array([tag, dim - 1]) for tag, name in enumerate(named, start=1)}
    return tags, fields


def _indicators(
    mesh: Any, named: dict[str, np.ndarray], groups: dict[str, np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """An array of zeros and ones for each name, over elements and named facets."""
    data = {}
    size = sum(len(found) for found in named.values())
    start = 0
    for name, found in named.items():
        outer = np.zeros(size, dtype=np.int32)
        outer[start : start + len(found)] = 1
        start += len(found)
        data[PREFIXES["boundary"] + name] = [np.zeros(mesh.nelements, dtype=np.int32), outer]
    for name, found in groups.items():
        inner = np.zeros(mesh.nelements, dtype=np.int32)
        inner[found] = 1
        data[PREFIXES["subdomain"] + name] = [inner] + [np.zeros(size, np.int32)] * bool(named)
    return data
