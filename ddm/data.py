"""Training data: random problems with subdomains of many sizes, made once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import Dataset

from ddm.mesh import distort, load_mesh, random_mesh
from ddm.partition import partition
from ddm.partitioners import PARTITIONERS
from ddm.problems import Elements, Problem, poisson, random_problem
from ddm.problems.samples import log_uniform
from ddm.setup import Setup, set_up
from sparsetorch.checks import check_count
from sparsetorch.whole_files import replacing

FORMAT = 4  # raised when what a seed gives changes, so that old files are not mistaken for new ones
STREAM = 1  # of random numbers: another one gives other meshes
METHODS = tuple(PARTITIONERS)


@dataclass(frozen=True)
class Recipe:
    """How meshes are drawn: nodes and subdomain sizes log-uniform, partitioners in turn.

    Of "poisson", every other pair of meshes is distorted by random amounts up to those given, and
    half of these are then refined uniformly, which gives patches of equal triangles, as in real
    meshes.

    Attributes:
        count: number of meshes.
        nodes: smallest and largest number of mesh nodes.
        subdomain: smallest and largest number of unknowns that a subdomain owns, on average.
        kinds: of `ddm.random_problem`, in turn.
        jitter, stretch: largest distortion, see `ddm.mesh.distort`.
        seed: first seed; mesh i uses seed + i.
        files: mesh files to take in turn instead of random domains, for "poisson" only; `nodes` has
            no effect then.
    """

    count: int = 500
    nodes: tuple[int, int] = (400, 1600)
    subdomain: tuple[int, int] = (32, 180)
    kinds: tuple[str, ...] = ("poisson",)
    jitter: float = 0.35
    stretch: float = 2.0
    seed: int = 0
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or too small."""
        object.__setattr__(self, "count", check_count("count", self.count, "mesh"))
        for name, low in (("nodes", 50), ("subdomain", 4)):
            span = tuple(getattr(self, name))  # lists from a configuration, too
            object.__setattr__(self, name, span)
            if len(span) != 2 or not low <= span[0] <= span[1]:
                raise ValueError(f"{name}: expected {low} <= smallest <= largest, got {span}")
        if isinstance(self.kinds, str):
            raise TypeError(f"kinds: expected a tuple of names, got {self.kinds!r}")
        if not self.kinds or (self.files and self.kinds != ("poisson",)):
            raise ValueError(
                f"kinds: expected one at least, 'poisson' with files; got {self.kinds}"
            )

    def draw(self, index: int) -> tuple[Problem, np.ndarray]:
        """Problem and owner of sample `index`."""
        seed = self.seed + index
        rng = np.random.default_rng([seed, STREAM])
        n_nodes, size = (log_uniform(rng, *span) for span in (self.nodes, self.subdomain))
        kind, turn = self.kinds[self.kind(index)], index // len(self.kinds)
        if kind == "poisson":
            problem = poisson(self._mesh(turn, seed, n_nodes, rng))
        else:
            problem = random_problem(kind, seed, round(n_nodes))
        problem = problem.with_all_couplings()
        method = METHODS[turn % 2]
        return problem, _parts(problem.A, problem.block_size, size, method, seed)

    def kind(self, index: int) -> int:
        """Which of `kinds` sample `index` is of."""
        return index % len(self.kinds)

    def owner(self, A: sp.csr_array, block_size: int, seed: int) -> np.ndarray:
        """Subdomains of any matrix, drawn as those of this recipe are, from a seed of its own."""
        rng = np.random.default_rng([seed, STREAM])
        size = log_uniform(rng, *self.subdomain)
        return _parts(A, block_size, size, str(rng.choice(METHODS)), seed)

    def _mesh(self, turn: int, seed: int, n_nodes: float, rng: np.random.Generator) -> Any:
        refine = turn % 8 in (2, 3)
        if self.files:
            mesh = load_mesh(self.files[turn % len(self.files)])
        else:
            mesh = random_mesh(seed, round(n_nodes / 4 if refine else n_nodes))
        if turn % 4 >= 2:
            stretch = math.exp(rng.uniform(0, math.log(self.stretch)))
            mesh = distort(mesh, rng.uniform(0, self.jitter), stretch, seed)
        return mesh.refined(1) if refine else mesh

    @property
    def key(self) -> str:
        """Content key: recipes that differ only in `count` share files."""
        contents = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in self.files]
        fields = {**asdict(self), "count": None, "files": contents, "format": FORMAT}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _parts(A: sp.csr_array, block_size: int, size: float, method: str, seed: int) -> np.ndarray:
    n_parts = max(2, round(A.shape[0] / size))
    return partition(A, n_parts, method=method, seed=seed, block_size=block_size)


def generate(recipe: Recipe, folder: str | Path) -> Iterator[int]:
    """Write each mesh of a recipe that is not there yet, one file each, yielding how many are done.

    Files are written whole or not at all, so that an interrupted run goes on where it stopped.
    """
    target = Path(folder) / recipe.key
    target.mkdir(parents=True, exist_ok=True)
    with replacing(target / "recipe.json") as temporary:
        temporary.write_text(json.dumps(asdict(recipe), indent=2))
    for index in range(recipe.count):
        path = target / f"{index:06d}.npz"
        if not path.exists():
            arrays = _arrays(*recipe.draw(index))
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        yield index + 1


def _arrays(problem: Problem, owner: np.ndarray) -> dict[str, Any]:
    A = problem.A
    arrays = {"data": A.data, "indices": A.indices, "indptr": A.indptr, "owner": owner}
    arrays |= {"block_size": problem.block_size, "near_nullspace": problem.near_nullspace}
    if problem.positions is not None:
        arrays["positions"] = problem.positions
    if problem.elements is not None:
        arrays |= {"dofs": problem.elements.dofs, "matrices": problem.elements.matrices}
    return arrays


class MeshDataset(Dataset[Setup]):
    """The matrices of a recipe whose files `generate` has written; kept in memory once read.

    Args:
        recipe, folder: as given to `generate`.
        dtype: of the matrices.
        overlaps: layers, in turn: each of the recipe's kinds gets them all.
        linear: whether coarse spaces hold linear functions, in turn, once for all overlaps.
        smoothing: see `ddm.set_up`.
        fresh: whether subdomains are drawn anew at each visit, with torch's random numbers: the
            same matrices then say more. Their set-ups share a `key`.

    Raises:
        FileNotFoundError: some file is missing.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        overlaps: Sequence[int] = (1,),
        linear: Sequence[bool] = (True,),
        smoothing: int = 1,
        fresh: bool = False,
    ) -> None:
        self.recipe, self.fresh = recipe, fresh
        self.folder = Path(folder) / recipe.key
        self.variants = [
            {"overlap": overlap, "linear": held, "smoothing": smoothing, "dtype": dtype}
            for held in linear
            for overlap in overlaps
        ]
        self.stride = 2 * len(recipe.kinds)  # both partitioners come before the next variant
        self.paths = [self.folder / f"{index:06d}.npz" for index in range(recipe.count)]
        missing = sum(not path.exists() for path in self.paths)
        if missing:
            raise FileNotFoundError(
                f"folder: {self.folder} lacks {missing} of {recipe.count} meshes; run generate"
            )
        self._arguments: dict[int, dict[str, Any]] = {}
        self._setups: dict[int, Setup] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Setup:
        if index in self._setups:
            return self._setups[index]
        if index not in self._arguments:
            self._arguments[index] = _arguments(self.paths[index])
        arguments = self._arguments[index]
        if self.fresh:
            seed = int(torch.randint(2**31, ()))
            owner = self.recipe.owner(arguments["A"], arguments["block_size"], seed)
            arguments = arguments | {"owner": owner}
        variant = self.variants[index // self.stride % len(self.variants)]
        setup = replace(set_up(**arguments, **variant), key=index)
        if not self.fresh:
            self._setups[index] = setup
            del self._arguments[index]
        return setup


def _arguments(path: Path) -> dict[str, Any]:
    """What `set_up` is given, from a file that `generate` wrote."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        n = len(arrays["indptr"]) - 1
        arguments: dict[str, Any] = {
            "A": sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n, n)),
            "block_size": int(arrays["block_size"]),
            "near_nullspace": arrays["near_nullspace"],
            "owner": arrays["owner"],
        }
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(
            f"folder: {path} is damaged ({error}); delete it, and it is generated again"
        ) from error
    arguments["coordinates"] = arrays.get("positions")
    if "dofs" in arrays:
        arguments["elements"] = Elements(arrays["dofs"], arrays["matrices"])
    return arguments
