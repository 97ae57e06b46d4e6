"""The paper's grids: P1 Poisson on random convex polygons, in subdomains by Lloyd aggregation."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
from torch.utils.data import Dataset

from ddm.partition import partition
from sparsetorch.whole_files import replacing

if TYPE_CHECKING:
    from ddm.published.setup import PublishedSetup

FORMAT = 1  # raised when what a seed gives changes, so that old files are not mistaken for new ones
STREAM = 2  # of random numbers: another one gives other grids


@dataclass(frozen=True, eq=False)
class Grid:
    """A matrix, who owns its unknowns, and the entries that the network is shown, if others.

    Attributes:
        A: (n, n) SciPy CSR array.
        owner: (n,) subdomain of each unknown.
        seen: (nnz,) see `ddm.published.published_graph`.
    """

    A: sp.csr_array
    owner: np.ndarray
    seen: np.ndarray | None = None


@dataclass(frozen=True)
class GridRecipe:
    """How grids are drawn; numbers of nodes and mean subdomain sizes are log-uniform.

    The defaults are the authors' training data. In their test data there are about sqrt(n)
    subdomains: `GridRecipe.test`.

    Attributes:
        count: number of grids.
        nodes: smallest and largest number of nodes.
        subdomain: smallest and largest number of nodes that a subdomain owns, on average.
        boundary: "kept": as published, nodes on the boundary stay unknowns, with rows and columns
            of the identity, and the network sees the matrix before that, so that it does not see
            the boundary; "eliminated": they are no unknowns.
        seed: grid i uses seed + i.
    """

    count: int = 1000
    nodes: tuple[int, int] = (800, 1000)
    subdomain: tuple[float, float] = (30.3, 31.4)
    boundary: Literal["kept", "eliminated"] = "kept"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or too small, and other words for the boundary."""
        if self.count < 1:
            raise ValueError(f"count: expected at least 1 grid, got {self.count}")
        for name, low in (("nodes", 50), ("subdomain", 4)):
            a, b = getattr(self, name)
            if not low <= a <= b:
                raise ValueError(f"{name}: expected {low} <= smallest <= largest, got {(a, b)}")
        if self.boundary not in ("kept", "eliminated"):
            raise ValueError(f"boundary: expected 'kept' or 'eliminated', got {self.boundary!r}")

    @classmethod
    def test(
        cls, n_nodes: int, count: int = 10, seed: int = 20_000_000, boundary: str = "kept"
    ) -> GridRecipe:
        """Grids of about `n_nodes` nodes in sqrt(n_nodes) subdomains, with seeds of their own."""
        size = math.sqrt(n_nodes)
        return cls(count, (n_nodes, n_nodes), (size, size), boundary, seed)  # type: ignore[arg-type]

    def draw(self, index: int) -> Grid:
        """Grid `index`."""
        from ddm.mesh import mesh_domain, random_outline

        seed = self.seed + index
        rng = np.random.default_rng([seed, STREAM])
        n_nodes, size = (
            math.exp(rng.uniform(math.log(a), math.log(b))) for a, b in (self.nodes, self.subdomain)
        )
        mesh = mesh_domain(random_outline(seed), n_nodes=round(n_nodes), seed=seed)
        A, seen = dirichlet(mesh) if self.boundary == "kept" else (eliminated(mesh), None)
        n_parts = max(2, round(A.shape[0] / size))
        return Grid(A, partition(A, n_parts, method="lloyd", seed=seed), seen)

    @property
    def key(self) -> str:
        """Content key: recipes that differ only in `count` share files."""
        text = json.dumps({**asdict(self), "count": None, "format": FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def dirichlet(mesh: object) -> tuple[sp.csr_array, np.ndarray]:
    """The Laplacian of all nodes with rows and columns of the identity at the boundary.

    Returns:
        (n, n), with explicit zeros for the couplings that the boundary condition removes; and
        (nnz,) its entries before the boundary condition.
    """
    from ddm.problems.diffusion import diffusion_matrices
    from ddm.problems.problem import Elements
    from ddm.problems.space import discretize

    space = discretize(mesh)
    neumann = Elements(space.dofs, diffusion_matrices(space, 1.0)).assemble(space.size)
    neumann.sort_indices()
    fixed = np.zeros(space.size, dtype=bool)
    fixed[space.mesh.boundary_nodes()] = True
    row = np.repeat(np.arange(space.size), np.diff(neumann.indptr))
    A = neumann.copy()
    A.data[fixed[row] | fixed[A.indices]] = 0.0
    A.data[fixed[row] & (row == A.indices)] = 1.0
    return A, neumann.data


def eliminated(mesh: object) -> sp.csr_array:
    """The Laplacian of the nodes inside, (n, n)."""
    from ddm.problems import poisson

    return poisson(mesh, keep_elements=False).A


class GridDataset(Dataset["PublishedSetup"]):
    """The grids of a recipe, each made when it is first asked for and kept on disk.

    Files are written whole or not at all; setups stay in memory.

    Args:
        recipe: of the grids.
        folder: where recipes keep their files, one folder each.
        options: of `PublishedSetup.of`.
    """

    def __init__(self, recipe: GridRecipe, folder: str | Path, **options: Any) -> None:
        self.recipe, self.options = recipe, options
        self.folder = Path(folder) / recipe.key
        self._setups: dict[int, PublishedSetup] = {}

    def __len__(self) -> int:
        return self.recipe.count

    def grid(self, index: int) -> Grid:
        """Grid `index`, from its file or new.

        Raises:
            IndexError: there is no such grid.
            ValueError: its file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        path = self.folder / f"{index:06d}.npz"
        if path.exists():
            return _read(path)
        grid = self.recipe.draw(index)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2))
        _write(path, grid)
        return grid

    def __getitem__(self, index: int) -> PublishedSetup:
        from ddm.published.setup import PublishedSetup

        if index not in self._setups:
            self._setups[index] = PublishedSetup.of(self.grid(index), **self.options)
        return self._setups[index]


def _write(path: Path, grid: Grid) -> None:
    A = grid.A
    arrays = {"data": A.data, "indices": A.indices, "indptr": A.indptr, "owner": grid.owner}
    if grid.seen is not None:
        arrays["seen"] = grid.seen
    with replacing(path, ".npz") as partial:
        np.savez_compressed(partial, **arrays)


def _read(path: Path) -> Grid:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        n = len(arrays["indptr"]) - 1
        A = sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n, n))
        return Grid(A, arrays["owner"], arrays.get("seen"))
    # RuntimeError: a flag that says encrypted, or packed in a way that is not implemented.
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"folder: {path} is damaged ({error}); delete it, and it is made again"
        ) from error
