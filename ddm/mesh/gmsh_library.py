"""gmsh: its import, sessions of it, and what it has meshed as a checked mesh."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ddm.mesh.build import build_mesh

GMSH_LIBRARIES = (
    "apt-get update && apt-get install -y libglu1-mesa libgl1 libxcursor1 libxft2 libxinerama1"
    " libgomp1"
)


class GmshUnavailableError(ImportError):
    """gmsh cannot be loaded; the message gives the line that installs what is missing."""


def load_gmsh() -> ModuleType:
    """Import gmsh, or say how to get it.

    Raises:
        GmshUnavailableError: the wheel is absent, or the system libraries that it links are.
    """
    try:
        return importlib.import_module("gmsh")
    except ModuleNotFoundError as error:
        raise GmshUnavailableError(
            "gmsh is not installed: pip install 'sparsetorch[ddm]'"
        ) from error
    except OSError as error:
        raise GmshUnavailableError(
            f"gmsh is installed but cannot load ({error}); on Debian or Ubuntu: {GMSH_LIBRARIES}"
        ) from error


@contextlib.contextmanager
def session(seed: int) -> Iterator[Any]:
    """A silent gmsh with an empty model; its settings are gone at the end.

    Raises:
        GmshUnavailableError: gmsh cannot be loaded.
    """
    gmsh = load_gmsh()
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("Mesh.RandomSeed", seed % 2**31)
        yield gmsh
    finally:
        gmsh.finalize()


def generate(gmsh: Any, dim: int, size: float) -> None:
    """Mesh a model that has no elements yet with elements of one size."""
    gmsh.option.setNumber("Mesh.MeshSizeMin", size)
    gmsh.option.setNumber("Mesh.MeshSizeMax", size)
    gmsh.model.mesh.generate(dim)


def read_model(
    gmsh: Any,
    dim: int,
    boundaries: Mapping[str, Sequence[int]],
    subdomains: Mapping[str, Sequence[int]] | None = None,
) -> Any:
    """What gmsh has meshed, with names.

    Args:
        gmsh: within a session.
        dim: 2 for triangles, 3 for tetrahedra.
        boundaries: tags of curves, or surfaces, by name.
        subdomains: tags of surfaces, or volumes, by name.

    Raises:
        ValueError: see `build_mesh`.
    """
    tags, xyz, _ = gmsh.model.mesh.getNodes()
    position = np.zeros(int(tags.max(initial=0)) + 1, dtype=np.int64)
    position[tags.astype(np.int64)] = np.arange(len(tags))

    def corners(dimension: int, entities: Sequence[int]) -> np.ndarray:
        kind = gmsh.model.mesh.getElementType(["", "line", "triangle", "tetrahedron"][dimension], 1)
        nodes = [gmsh.model.mesh.getElementsByType(kind, tag)[1] for tag in entities]
        flat = np.concatenate([np.zeros(0, np.int64), *nodes]).astype(np.int64)
        return position[flat].reshape(-1, dimension + 1)

    cells, groups, start = [], {}, 0
    owners = {tag: name for name, found in (subdomains or {}).items() for tag in found}
    for _, tag in gmsh.model.getEntities(dim):
        cells.append(corners(dim, [tag]))
        if tag in owners:
            here = np.arange(start, start + len(cells[-1]))
            groups.setdefault(owners[tag], []).append(here)
        start += len(cells[-1])
    return build_mesh(
        xyz.reshape(-1, 3)[:, :dim],
        np.concatenate([np.zeros((0, dim + 1), np.int64), *cells]),
        {name: corners(dim - 1, found) for name, found in boundaries.items()},
        {name: np.concatenate(found) for name, found in groups.items()},
    )
