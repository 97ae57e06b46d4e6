"""Tetrahedral meshes of CAD files, by gmsh and OpenCASCADE."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ddm.mesh.gmsh_library import read_model, session
from ddm.mesh.solid import to_size

EXACT = (".step", ".stp", ".iges", ".igs", ".brep")
SHARP = math.radians(40)  # triangles of an STL file that meet at a larger angle: two surfaces


def mesh_cad(path: str | Path, n_nodes: int, *, seed: int = 0) -> Any:
    """Tetrahedra in the solids of a STEP, IGES, BREP or STL file, about `n_nodes` nodes.

    The outer boundaries are named "surface 1", ..., by gmsh's numbers; the parts of an assembly,
    which share their nodes where they touch, are the subdomains "volume 1", ....

    Args:
        path: the file.
        n_nodes: the wanted number of nodes, met to within 10 % if most of them lie inside.
        seed: gmsh's random seed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, not such a file, no solid in it, `n_nodes` below 8 or far below
            what the shape's details need, parts that do not touch, flat elements.
        GmshUnavailableError: gmsh cannot be loaded.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"path: no CAD file {path}")
    if suffix not in (*EXACT, ".stl"):
        raise ValueError(f"path: expected {', '.join(EXACT)} or .stl, got {path.name}")
    if not n_nodes >= 8:  # NaN, too
        raise ValueError(f"n_nodes: expected at least 8, got {n_nodes}")
    with session(seed) as gmsh:
        try:
            volume = _solids(gmsh, path) if suffix in EXACT else _shell(gmsh, path)
        except Exception as error:  # gmsh raises nothing more special
            raise ValueError(f"path: gmsh cannot read a solid from {path} ({error})") from error
        volumes = [tag for _, tag in gmsh.model.getEntities(3)]
        if not volumes or not volume > 0:
            raise ValueError(f"path: {path} has no solid, only surfaces or nothing")
        gmsh.option.setNumber("Mesh.MeshSizeFromPoints", 0)
        gmsh.option.setNumber("Mesh.MeshSizeExtendFromBoundary", 0)
        # gmsh never returns from meshing a surface of triangles whose elements were deleted.
        again = (lambda: (gmsh.clear(), _shell(gmsh, path))) if suffix == ".stl" else None
        to_size(gmsh, volume, n_nodes, again)
        outer = {
            f"surface {tag}": [tag]
            for _, tag in gmsh.model.getEntities(2)
            if len(gmsh.model.getAdjacencies(2, tag)[0]) == 1
        }
        return read_model(gmsh, 3, outer, {f"volume {tag}": [tag] for tag in volumes})


def _solids(gmsh: Any, path: Path) -> float:
    """Import the solids of an exact file, joined where they touch, and return their volume."""
    occ = gmsh.model.occ
    occ.importShapes(str(path))
    occ.synchronize()
    solids = gmsh.model.getEntities(3)
    if not solids:  # IGES files often hold a solid's surfaces alone
        area = sum(occ.getMass(*surface) for surface in gmsh.model.getEntities(2))
        occ.healShapes(sewFaces=True, makeSolids=True)
        occ.synchronize()
        solids = gmsh.model.getEntities(3)
        closed = gmsh.model.getBoundary(solids, combined=False, oriented=False)
        if abs(sum(occ.getMass(*surface) for surface in closed) - area) > 1e-3 * area:
            raise ValueError("its surfaces do not close to solids; save it as STEP")
    if len(solids) > 1:
        occ.fragment(solids[:1], solids[1:])
        occ.synchronize()
    return sum(occ.getMass(*solid) for solid in gmsh.model.getEntities(3))


def _shell(gmsh: Any, path: Path) -> float:
    """Make a solid of a closed surface of triangles and return its volume."""
    gmsh.merge(str(path))
    mesh = gmsh.model.mesh
    mesh.classifySurfaces(SHARP, True, True, math.pi)
    mesh.createGeometry()
    geo = gmsh.model.geo
    loop = geo.addSurfaceLoop([tag for _, tag in gmsh.model.getEntities(2)])
    geo.addVolume([loop])
    geo.synchronize()
    return _enclosed(gmsh)


def _enclosed(gmsh: Any) -> float:
    """Volume within the triangles of the model, by the divergence theorem."""
    tags, xyz, _ = gmsh.model.mesh.getNodes()
    place = {int(tag): k for k, tag in enumerate(tags)}
    nodes = gmsh.model.mesh.getElementsByType(2)[1]
    corners = xyz.reshape(-1, 3)[[place[int(tag)] for tag in nodes]].reshape(-1, 3, 3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    cross = [
        b[:, 1] * c[:, 2] - b[:, 2] * c[:, 1],
        b[:, 2] * c[:, 0] - b[:, 0] * c[:, 2],
        b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0],
    ]
    return abs(sum(float((a[:, k] * cross[k]).sum()) for k in range(3))) / 6
